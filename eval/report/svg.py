"""Plots as SVG text: drawn by the program that knows the figures, shown without a script, coloured by the page's style.

Every plot is told by shape as well as by colour, and stands beside a table of the same figures. Scores are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

SHAPES = ("diamond", "square", "triangle", "tick")
ROW, TOP, LEFT, RIGHT = 26, 26, 150, 16


@dataclass(frozen=True)
class Estimate:
    """One row: a value with its interval, and other values to hold it against. A row without a value is a heading."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: str = ""
    marks: tuple[tuple[str, float], ...] = ()  # (shape, value)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def draw_mark(shape: str, x: float, y: float) -> str:
    points = {
        "diamond": f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z",
        "square": f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        "triangle": f"M{x:.1f} {y - 5:.1f}l5 9h-10z",
        "tick": f"M{x:.1f} {y - 8:.1f}v16",
    }
    return f'<path d="{points[shape]}" class="mark {shape}"/>'


def draw_forest(rows: Sequence[Estimate], title: str, width: int = 720, left: int = LEFT) -> str:
    """Values with their intervals on an axis of 0 to 100, one below the other; counts at the right."""
    room = 62 if any(row.count for row in rows) else RIGHT
    height = TOP + ROW * len(rows) + 8

    def at(value: float) -> float:
        return left + value * (width - left - room)

    parts = []
    for tick in range(0, 101, 25 if width < 500 else 10):
        parts.append(line(at(tick / 100), TOP - 4, at(tick / 100), height - 8, "grid"))
        parts.append(text(at(tick / 100), TOP - 10, str(tick), "axis", "middle"))
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        if row.value is None and not row.marks:
            parts.append(text(0, y + 4, row.label, "group"))
            continue
        parts.append(text(left - 12, y + 4, row.label, "label", "end"))
        if row.low is not None and row.high is not None:
            parts.append(line(at(row.low), y, at(row.high), y, "whisker"))
        if row.value is not None:
            parts.append(f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="5" class="dot"/>')
        parts += [draw_mark(shape, at(value), y) for shape, value in row.marks]
        parts.append(text(width, y + 4, row.count, "axis", "end"))
    return svg(width, height, title, parts)


def draw_bars(rows: Sequence[tuple[str, int, int]], title: str, width: int = 360, left: int = 118) -> str:
    """(category, false positives, false negatives): two bars a row, filled and hatched, with their counts."""
    most = max((max(fp, fn) for _, fp, fn in rows), default=0) or 1
    step, height = 34, 34 * len(rows) + 4
    room = width - left - 40
    parts = []
    for number, (label, *counts) in enumerate(rows):
        y = step * number + 2
        parts.append(text(left - 10, y + 18, label, "label", "end"))
        for offset, kind, count in ((1, "fp", counts[0]), (15, "fn", counts[1])):
            length = max(room * count / most, 1.5 if count else 0)
            parts.append(f'<rect x="{left}" y="{y + offset}" width="{length:.1f}" height="11" rx="2" class="bar {kind}"/>')
            parts.append(text(left + length + 6, y + offset + 9.5, f"{count:,}" if count else "0", "axis"))
    return svg(width, height, title, parts)


def draw_curve(
    points: Sequence[tuple[float, float]], title: str, axes: tuple[str, str], *, dots: bool = False,
    diagonal: bool = False, crossing: tuple[float, float] | None = None, size: int = 300,
) -> str:  # fmt: skip
    """A curve through (x, y) in 0..1. `diagonal`: where both are equal; `crossing`: a chosen point, marked."""
    left, bottom = 44, 40
    span = size - left - 14

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * span, 14 + (1 - y) * span

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        (x, low), (_, high) = at(tick, 0), at(tick, 1)
        (start, y), (end, _) = at(0, tick), at(1, tick)
        parts += [line(x, low, x, high, "grid"), line(start, y, end, y, "grid")]
        parts += [
            text(x, low + 16, f"{100 * tick:.0f}", "axis", "middle"),
            text(start - 8, y + 4, f"{100 * tick:.0f}", "axis", "end"),
        ]
    parts.append(text(left + span / 2, size - 8, axes[0], "axis", "middle"))
    parts.append(
        f'<g transform="rotate(-90 11 {14 + span / 2:.0f})">{text(11, 14 + span / 2 + 4, axes[1], "axis", "middle")}</g>'
    )
    if diagonal:
        parts.append(line(*at(0, 0), *at(1, 1), "diagonal"))
    placed = [at(*point) for point in points]
    if placed:
        parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}" class="curve"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot"/>' for x, y in placed if dots]
    if crossing:
        parts.append(draw_mark("diamond", *at(*crossing)))
    return svg(size, size + bottom - 40, title, parts)


def draw_key(entries: Mapping[str, str]) -> str:
    """What the marks mean: {shape or "dot" or "fp" or "fn": words}, as a list beside the plot."""
    parts = []
    for shape, words in entries.items():
        if shape == "dot":
            inner = '<line x1="1" y1="8" x2="25" y2="8" class="whisker"/><circle cx="13" cy="8" r="5" class="dot"/>'
        elif shape in ("fp", "fn"):
            inner = f'<rect x="1" y="3" width="24" height="11" rx="2" class="bar {shape}"/>'
        else:
            inner = draw_mark(shape, 13, 8)
        parts.append(f'<li><svg class="plot" width="26" height="16" aria-hidden="true">{inner}</svg>{escape(words)}</li>')
    return f'<ul class="key">{"".join(parts)}</ul>'
