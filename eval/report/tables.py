"""The figures of an evaluation as tables of text, which the report writes as HTML and the terminal as Markdown.

Reads metrics.json's object, with the sections that were computed; a table whose figures are not there is left out. Scores are
in percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from data.items import show
from data.schema import TASKS

NONE = "–"
FLOORS = {"dictionary": "train's dictionary", "cooccurrence": "co-occurrence", "base_model": "untuned model"}
TEXT_COLUMNS = ("task", "convention", "slice", "fault", "meaning", "example", "kind", "")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; `note` says how to read it. `name` is the report's section."""

    name: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def build_tables(metrics: Mapping, sections: Sequence[str] | None = None) -> list[Table]:
    """The tables of some sections, or all: scores, relations, generalisation, faults, confidence."""
    builders = {
        "scores": (headline, floors),
        "relations": (conventions,),
        "generalisation": (slices,),
        "faults": (rates, fault_counts),
        "confidence": (confidence,),
    }
    wanted = builders if sections is None else sections
    return [table for section in wanted for build in builders[section] for table in build(metrics)]


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """A score and its 95 % interval.

    >>> with_interval(0.5, [0.4, 0.61])
    '50.0 (40.0–61.0)'
    """
    return percent(value) + (f" ({percent(bounds[0])}–{percent(bounds[1])})" if bounds else "")


def scored(metrics: Mapping) -> Iterator[tuple[str, Mapping]]:
    """(name, figures) of each task, then micro and macro."""
    yield from ((task, metrics["tasks"][task]) for task in TASKS if task in metrics["tasks"])
    yield from ((name, metrics[name]) for name in ("micro", "macro"))


def bounds_of(metrics: Mapping, name: str, figure: str) -> Sequence[float] | None:
    own = (metrics.get("intervals") or {}).get(name, {})
    figures = metrics[name] if name in ("micro", "macro") else metrics["tasks"][name]
    return own.get(figure) or (figures.get("ci95") if figure == "f1" else None)


def floor_of(metrics: Mapping, floor: str, task: str) -> float | None:
    """F1 of a baseline, None where there is none."""
    figures = ((metrics.get("baselines") or {}).get(floor) or {}).get(task)
    return figures["f1"] if isinstance(figures, Mapping) else None


def headline(metrics: Mapping) -> Iterator[Table]:
    rows = []
    for name, figures in scored(metrics):
        values = [with_interval(figures[figure], bounds_of(metrics, name, figure)) for figure in ("f1", "precision", "recall")]
        counts = [f"{figures[key]:,}" if key in figures else NONE for key in ("tp", "fp", "fn", "support")]
        rows.append((name, *values, *counts, percent(figures.get("exact_match"))))
    note = (
        f"{metrics['documents']:,} articles. In percent, with 95 % intervals from resampling articles. Names are compared as "
        "sets, per article, after normalisation; all that is predicted and not gold is a false positive."
    )
    header = ("task", "F1", "precision", "recall", "tp", "fp", "fn", "gold", "all right")
    yield Table("scores", "Precision, recall and F1", note, header, tuple(rows))


def floors(metrics: Mapping) -> Iterator[Table]:
    ceilings, resolvable = metrics.get("ceilings") or {}, metrics.get("resolvable") or {}
    rows = tuple(
        (
            task,
            percent(figures["f1"]),
            *(percent(floor_of(metrics, floor, task)) for floor in FLOORS),
            percent(ceilings.get(task)),
            percent(resolvable.get(task)),
        )
        for task, figures in scored(metrics)
        if task in TASKS
    )
    note = (
        "F1 of this run beside what needs no training. Ceiling: the share of gold that stands in the article word for word. "
        "Resolvable: the difference in F1 that a test set of this size finds in 80 of 100 comparisons with another system "
        "scored on other articles; on the same articles less is enough, see medner compare."
    )
    header = ("task", "this run", *FLOORS.values(), "ceiling", "resolvable")
    yield Table("scores", "Floors and ceilings", note, header, rows)


def conventions(metrics: Mapping) -> Iterator[Table]:
    if not metrics.get("conventions"):
        return
    rows = []
    for own in metrics["conventions"].values():
        rows.append((own["convention"] + (f" – none: {own['reason']}" if own["reason"] else ""), *_row(own["figures"])))
        for key, title in (
            ("ceiling", "ceiling of MeSH ids: gold's own names"),
            ("concepts", "co-occurrence over concept ids"),
        ):
            if own.get(key):
                rows.append((title, *_row(own[key])))
    note = "The same answers, counted in the ways that the literature does. Compare like with like."
    yield Table("relations", "Relations under four conventions", note, ("convention", *_COLUMNS), tuple(rows))


_COLUMNS = ("F1", "precision", "recall", "tp", "fp", "fn")


def _row(figures: Mapping | None) -> tuple[str, ...]:
    if figures is None:
        return (NONE,) * len(_COLUMNS)
    f1 = with_interval(figures["f1"], figures["ci95"]) if figures["f1"] is not None else NONE
    recall = with_interval(figures["recall"], figures["ci95"]) if figures["f1"] is None else percent(figures["recall"])
    counts = (NONE if figures[key] is None else f"{figures[key]:,}" for key in ("tp", "fp", "fn"))
    return f1, percent(figures["precision"]), recall, *counts


def slices(metrics: Mapping) -> Iterator[Table]:
    for task, groups in (metrics.get("slices") or {}).items():
        rows = [
            (f"{group}: {label}", *_row(figures), f"{figures['documents']:,}" if "documents" in figures else NONE)
            for group, labels in groups.items()
            for label, figures in (labels or {}).items()
        ]
        if rows:
            note = (
                "string and concept: whether train's gold has them (concepts: recall only, since predictions carry no ids); "
                "words of the name; abbreviation; gold items in the article; words in the article."
            )
            yield Table("generalisation", f"What makes {task} hard", note, ("slice", *_COLUMNS, "articles"), tuple(rows))


def rates(metrics: Mapping) -> Iterator[Table]:
    """Raw and filtered side by side where both are known."""
    faults = metrics.get("faults") or {"raw": metrics}
    versions = [name for name in ("raw", "filtered") if name in faults]
    rows = []
    for rate, of in (("malformed", "answers"), ("truncated", "answers"), ("empty", "answers"), ("duplicate", "items"),
                     ("ungrounded", "items")):  # fmt: skip
        rows.append((f"{rate}, of {of}", *(percent(faults[version]["rates"][rate]) for version in versions)))
    for name, _ in scored(metrics):
        values = (dict(scored(faults[version]))[name]["f1"] for version in versions)
        rows.append((f"F1 of {name}", *map(percent, values)))
    note = "In percent. Filtered: without items that are not in the article as whole words, and without repeats."
    yield Table("faults", "Answers that failed", note, ("", *versions), tuple(rows))


def fault_counts(metrics: Mapping) -> Iterator[Table]:
    faults = metrics.get("faults") or {}
    for task, kinds in (faults.get("categories") or {}).items():
        rows = []
        for kind, categories in kinds.items():
            total = sum(own["count"] for own in categories.values())
            for category, own in categories.items():
                example = "; ".join(map(_example, own["examples"][:2]))
                meaning = faults["names"][category]
                rows.append(
                    (kind, category.replace("_", " "), f"{own['count']:,}", percent(own["count"] / total), meaning, example)
                )
        if rows:
            note = "Each fault is in one category. fp: predicted and not gold; fn: gold and not predicted."
            header = ("kind", "fault", "count", "% of kind", "meaning", "example")
            yield Table("faults", f"Faults in {task}", note, header, tuple(rows))


def _example(example: Mapping) -> str:
    near = f" ~ {show(example['near'])}" if example["near"] else ""
    return f"{show(example['item'])}{near} [{example['document']}]"


def confidence(metrics: Mapping) -> Iterator[Table]:
    rows = []
    for task, own in (metrics.get("confidence") or {}).items():
        threshold = "out of reach" if own["threshold"] is None else f"{own['threshold']:.2f}"
        kept, whole = own["test"]["kept"], own["test"]["all"]
        row = (task, percent(own["calibration_error"]), percent(own["min_precision"]), threshold)
        moved = (f"{percent(whole[figure])} → {percent(kept[figure])}" for figure in ("precision", "recall"))
        rows.append((*row, *moved, f"{kept['items']:,} of {whole['items']:,}"))
    if rows:
        note = (
            "Each item's mean token log-probability, made a probability on validation. The threshold is the lowest that "
            "reaches the wanted precision on validation; what it does to test is on the right."
        )
        header = ("task", "calibration error", "wanted precision", "threshold", "test precision", "test recall", "items kept")
        yield Table("confidence", "Confidence", note, header, tuple(rows))


def render_table(table: Table) -> str:
    """As Markdown; text that a model wrote cannot break out of its cell."""
    align = ("---" if column in TEXT_COLUMNS else "--:" for column in table.header)
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (table.header, *table.rows)]
    return "\n".join([f"### {table.title}", "", lines[0], f"|{'|'.join(align)}|", *lines[1:], "", table.note])


def _cell(text: str) -> str:
    text = " ".join(text.split())
    for character in "\\|<>`*_[]":
        text = text.replace(character, "\\" + character)
    return text


def render_markdown(metrics: Mapping, sections: Sequence[str] | None = None) -> str:
    """All tables, or those of some sections: scores, relations, generalisation, faults, confidence."""
    return "\n\n".join(map(render_table, build_tables(metrics, sections))) + "\n"
