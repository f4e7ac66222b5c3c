"""What the page shows of an extraction: highlighted names, a table of relations, a small graph; and what the slider leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

from pipeline.extract.results import Extraction, related_ids

COLOURS = {"Chemical": "#9ec5fe", "Disease": "#ffc9a3"}
ROW, SIDE, WIDTH = 30, 12, 420  # pixels of the graph


def keep_sure(extraction: Extraction, confidence: float) -> Extraction:
    """What is at least so sure (0 to 1), or of unknown confidence."""

    def sure(found: Any) -> bool:
        return found.confidence is None or found.confidence >= confidence

    return replace(
        extraction, entities=tuple(filter(sure, extraction.entities)), relations=tuple(filter(sure, extraction.relations))
    )


def highlight(extraction: Extraction) -> dict[str, Any]:
    """The text and its names for Gradio's HighlightedText, which shows no name within another: the longest are shown."""
    spans = [(start, end, entity.type) for entity in extraction.entities for start, end in entity.spans]
    shown: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= other or start >= other_end for other, other_end, _ in shown):
            shown.append((start, end, kind))
    entities = [{"entity": kind, "start": start, "end": end} for start, end, kind in sorted(shown)]
    return {"text": extraction.text, "entities": entities}


def relation_rows(extraction: Extraction) -> list[list[Any]]:
    """[chemical, disease, confidence or None] of each relation."""
    return [[one.chemical, one.disease, one.confidence and round(one.confidence, 2)] for one in extraction.relations]


def describe(extraction: Extraction) -> str:
    """How many of each were found, names that stand nowhere, and which answers could not be read whole, in one line."""
    counts = {"chemicals": extraction.chemicals, "diseases": extraction.diseases, "relations": extraction.relations}
    notes = [", ".join(f"{len(found)} {task}" for task, found in counts.items())]
    notes += [f"read in {extraction.windows} windows"] * (extraction.windows > 1)
    nowhere = [entity.name for entity in extraction.entities if not entity.spans]
    notes += [f"not in the text: {', '.join(nowhere)}"] * bool(nowhere)
    notes += [f"the answer for {task} was {fault}: some may be missing" for task, fault in extraction.faults.items()]
    return "; ".join(notes)


def draw_graph(extraction: Extraction) -> str:
    """Chemicals on the left, diseases on the right, a line for each relation between them, as SVG; "" without relations."""
    pairs = sorted({(chemical, disease) for chemical, disease, _ in related_ids(extraction)})
    if not pairs:
        return ""
    lefts, rights = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    height = ROW * max(len(lefts), len(rights)) + SIDE
    names, left, right = [entity.name for entity in extraction.entities], WIDTH * 0.42, WIDTH * 0.58
    lines = [
        f'<line x1="{left}" y1="{_middle(lefts, chemical)}" x2="{right}" y2="{_middle(rights, disease)}" stroke="currentColor" '
        'stroke-opacity=".5" stroke-width="1.5"/>'
        for chemical, disease in pairs
    ]
    labels = [_label(names[one], left - 10, _middle(lefts, one), "end", "Chemical") for one in lefts]
    labels += [_label(names[one], right + 10, _middle(rights, one), "start", "Disease") for one in rights]
    said = escape("; ".join(f"{names[chemical]} to {names[disease]}" for chemical, disease in pairs), quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" style="max-width:{WIDTH}px" role="img" aria-label="{said}" '
        f'font-size="14">{"".join(lines + labels)}</svg>'
    )


def _middle(column: Sequence[int], one: int) -> float:
    return SIDE + ROW * column.index(one) + ROW / 4


def _label(name: str, x: float, y: float, anchor: str, kind: str) -> str:
    """A name beside its end of the lines, the long ones cut and whole in their tooltip."""
    short = name if len(name) <= 20 else f"{name[:19]}…"
    dot = f'<circle cx="{x + 9 if anchor == "end" else x - 9}" cy="{y}" r="5" fill="{COLOURS[kind]}" stroke="currentColor"/>'
    title = f"<title>{escape(name)}</title>{escape(short)}"
    return f'{dot}<text x="{x}" y="{y + 5}" text-anchor="{anchor}" fill="currentColor">{title}</text>'
