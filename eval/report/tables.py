"""The figures of an evaluation as tables, which the report, the terminal and the model card write each in its own way.

Reads metrics.json's object, with the sections that were computed; a table whose figures are not there is left out, and so is
a column that no row fills. Scores are in percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from data.items import show
from data.schema import TASKS
from data.table import NONE, Table, as_markdown, percent
from eval.scoring.confidence import LEAST

BASELINES = {
    "base_model_lenient": "untuned",
    "base_model": "untuned, strict",
    "crf": "CRF",
    "dictionary": "dictionary",
    "cooccurrence": "co-occurrence",
}
BESIDE = {
    "filtered": "its answers without items that are not in the article as whole words, and without repeats.",
    "untuned": "the base model before training, asked the same; its answers are read leniently, as what a general chat model "
    "means by them (this model's strictly).",
    "untuned, strict": "the same answers, read as strictly as this model's.",
    "CRF": "a linear-chain tagger trained on the same articles.",
    "dictionary": "the names in train, found in the text.",
    "co-occurrence": "every pair of a chemical and a disease that the dictionary finds.",
    "ceiling": "the share of gold that stands in the article word for word.",
    "resolvable": "the difference that a test set of this size finds in 80 of 100 comparisons with another system on other "
    "articles; on the same articles less is enough (medner compare).",
}
VERSIONS = {"raw": "as answered", "filtered": "filtered"}
OF_ITEMS = ("duplicate", "ungrounded")
FIGURES = ("F1", "precision", "recall", "tp", "fp", "fn")


def build_tables(metrics: Mapping, sections: Sequence[str] | None = None) -> list[Table]:
    """The tables of some sections, or all: scores, relations, generalisation, faults, confidence."""
    builders = {
        "scores": (headline, readings, beside, official),
        "relations": (conventions,),
        "generalisation": (slices,),
        "faults": (rates, fault_counts),
        "confidence": (confidence,),
    }
    wanted = builders if sections is None else sections
    return [table for section in wanted for build in builders[section] for table in build(metrics)]


def render_markdown(metrics: Mapping, sections: Sequence[str] | None = None) -> str:
    """All tables, or those of some sections, as Markdown."""
    return "\n\n".join(map(as_markdown, build_tables(metrics, sections))) + "\n"


def with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """A score and its 95 % interval.

    >>> with_interval(0.5, [0.4, 0.61])
    '50.0 (40.0–61.0)'
    """
    return percent(value) + (f" ({percent(bounds[0])}–{percent(bounds[1])})" if bounds else "")


def named_figures(metrics: Mapping) -> Iterator[tuple[str, Mapping]]:
    """(name, figures) of each task, then micro and macro."""
    yield from ((task, metrics["tasks"][task]) for task in TASKS if task in metrics["tasks"])
    yield from ((name, metrics[name]) for name in ("micro", "macro") if metrics.get(name))


def bounds_of(metrics: Mapping, name: str, figure: str) -> Sequence[float] | None:
    """(low, high) of a figure's 95 % interval, of a task, "micro" or "macro"; None where there is none."""
    own = (metrics.get("intervals") or {}).get(name, {})
    figures = metrics[name] if name in ("micro", "macro") else metrics["tasks"][name]
    return own.get(figure) or (figures.get("ci95") if figure == "f1" else None)


def baseline_f1(metrics: Mapping, baseline: str, task: str) -> float | None:
    """F1 of a baseline, None where there is none."""
    figures = ((metrics.get("baselines") or {}).get(baseline) or {}).get(task)
    return figures["f1"] if isinstance(figures, Mapping) else None


def shown_baselines(metrics: Mapping) -> dict[str, str]:
    """The baselines to show and their words: the untuned model's strict reading only where it is another than the lenient."""
    both = [[baseline_f1(metrics, name, task) for task in TASKS] for name in ("base_model", "base_model_lenient")]
    return {name: words for name, words in BASELINES.items() if name != "base_model" or both[0] != both[1]}


def headline(metrics: Mapping) -> Iterator[Table]:
    """Each task's scores with their intervals."""
    rows = []
    for name, figures in named_figures(metrics):
        values = [with_interval(figures[figure], bounds_of(metrics, name, figure)) for figure in ("f1", "precision", "recall")]
        counts = [f"{figures[key]:,}" if key in figures else NONE for key in ("tp", "fp", "fn", "support")]
        rows.append((name, *values, *counts, percent(figures.get("exact_match"))))
    note = (
        f"{metrics['documents']:,} articles; percent, with 95 % intervals from resampling articles. Names are compared as "
        "sets, per article, after normalisation; all that is predicted and not gold is a false positive. exact: whole answers."
    )
    if any(bounds_of(metrics, name, "f1") is None for name, figures in named_figures(metrics) if figures.get("support")):
        note += " What is all right or all wrong has no interval."
    if metrics.get("interval_remark"):
        note += f" {metrics['interval_remark']}."
    header = ("task", "F1", "precision", "recall", "tp", "fp", "fn", "gold", "exact")
    yield Table(header, tuple(rows), "Precision, recall and F1", note).without_empty()


def readings(metrics: Mapping) -> Iterator[Table]:
    """F1 of the strict and the lenient reading, and which is compared with other models; nothing where they are the same."""
    found = metrics.get("readings") or {}
    repaired = ((found.get("lenient") or {}).get("rates") or {}).get("repaired")
    if not found or not repaired and found["compared"] == "strict":
        return
    strict, lenient = (dict(named_figures(found[name])) for name in ("strict", "lenient"))
    rows = tuple((name, percent(own["f1"]), percent(lenient[name]["f1"])) for name, own in strict.items())
    note = (
        f"lenient: mark-up, introductions, numbers, 'None' and the like are mended, in {percent(repaired)} % of answers. "
        f"Compared with other models: {found['compared']}; every other table here is of the strict reading."
    )
    yield Table(("F1", "strict", "lenient"), rows, "Two readings of the answers", note)


def beside(metrics: Mapping) -> Iterator[Table]:
    """Each task's F1 beside what needs no training of a language model, and beside what can be reached at all."""
    ceilings, resolvable = metrics.get("ceilings") or {}, metrics.get("resolvable") or {}
    filtered = dict(named_figures((metrics.get("faults") or {}).get("filtered") or {"tasks": {}}))
    shown = shown_baselines(metrics)
    columns = [words for words in BESIDE if words in shown.values() or words not in BASELINES.values()]
    rows = tuple(
        (
            name,
            percent(figures["f1"]),
            percent(filtered.get(name, {}).get("f1")),
            *(percent(baseline_f1(metrics, baseline, name)) for baseline in shown),
            percent(ceilings.get(name)),
            percent(resolvable.get(name)),
        )
        for name, figures in named_figures(metrics)
        if name != "macro"
    )
    table = Table(("task", "this model", *columns), rows, "F1 beside filtered answers, baselines and ceilings").without_empty()
    if len(table.header) > 2:
        note = " ".join(f"{column}: {words}" for column, words in BESIDE.items() if column in table.header)
        yield replace(table, note=note)


def official(metrics: Mapping) -> Iterator[Table]:
    """BioCreative V CDR's own figures, where the corpus has offsets."""
    found = metrics.get("official") or {}
    mention = found.get("mention")
    if mention:
        named = {f"mentions: {kind}": own for kind, own in mention.items()} | {"relations, by id": found.get("relation")}
        figures = ("f1", "precision", "recall")
        rows = tuple((name, *(percent(own[key]) for key in figures)) for name, own in named.items() if own)
        note = (
            "The official evaluation's own count: exact offsets of every mention, concept ids of relations through train's "
            f"names. Other conventions than the tables above. {in_pubtator(metrics)}"
        )
        yield Table(("official", "F1", "precision", "recall"), rows, "BioCreative V CDR", note)


def in_pubtator(metrics: Mapping) -> str:
    """What predictions.PubTator lacks, in a sentence; empty where it lacks nothing."""
    own = (metrics.get("official") or {}).get("relations") or {}
    if not own.get("left_out"):
        return ""
    return f"predictions.PubTator has {own['written']} of {own['written'] + own['left_out']} relations: {own['reason']}."


def conventions(metrics: Mapping) -> Iterator[Table]:
    """Relations counted in four ways, each with the reason if it cannot be."""
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
    note = f"The same answers, counted as the literature does in four ways. Compare like with like. {in_pubtator(metrics)}"
    yield Table(("convention", *FIGURES), tuple(rows), "Relations under four conventions", note)


def _row(figures: Mapping | None) -> tuple[str, ...]:
    if figures is None:
        return (NONE,) * len(FIGURES)
    f1 = with_interval(figures["f1"], figures["ci95"]) if figures["f1"] is not None else NONE
    recall = with_interval(figures["recall"], figures["ci95"]) if figures["f1"] is None else percent(figures["recall"])
    counts = (NONE if figures[key] is None else f"{figures[key]:,}" for key in ("tp", "fp", "fn"))
    return f1, percent(figures["precision"]), recall, *counts


def slices(metrics: Mapping) -> Iterator[Table]:
    """One table a task: its figures on seen and unseen names, short and long ones, and so on."""
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
            yield Table(("slice", *FIGURES, "articles"), tuple(rows), f"What makes {task} hard", note)


def rates(metrics: Mapping) -> Iterator[Table]:
    """What share of answers and items failed; raw and filtered where both are known."""
    faults = metrics.get("faults") or {"raw": metrics}
    versions = {words: faults[name]["rates"] for name, words in VERSIONS.items() if name in faults}
    kinds = [kind for kind in next(iter(versions.values())) if kind != "empty"]  # which many an answer rightly is
    rows = tuple((words, *(percent(own.get(kind)) for kind in kinds)) for words, own in versions.items())
    items = [kind for kind in kinds if kind in OF_ITEMS]
    note = f"{', '.join(items)}: of items; the others of answers. wrongly empty: though gold is not."
    yield Table(("", *(kind.replace("_", " ") for kind in kinds)), rows, "Answers and items at fault, percent", note)


def fault_counts(metrics: Mapping) -> Iterator[Table]:
    """One table a task: how often each category of fault occurs, with two examples."""
    faults = metrics.get("faults") or {}
    for task, kinds in (faults.get("categories") or {}).items():
        rows = []
        for kind, categories in kinds.items():
            total = sum(own["count"] for own in categories.values())
            for category, own in categories.items():
                example = "; ".join(map(_example, own["examples"][:2]))
                shown = (category.replace("_", " "), kind, f"{own['count']:,}", percent(own["count"] / total))
                rows.append((*shown, faults["names"][category], example))
        if rows:
            note = "Each fault is in one category. fp: predicted and not gold; fn: gold and not predicted."
            header = ("fault", "kind", "count", "% of kind", "meaning", "example")
            yield Table(header, tuple(rows), f"Faults in {task}", note, words=("kind", "meaning", "example"))


def _example(example: Mapping) -> str:
    near = f" ~ {show(example['near'])}" if example["near"] else ""
    return f"{show(example['item'])}{near} [{example['document']}]"


def confidence(metrics: Mapping) -> Iterator[Table]:
    """How true stated chances are, and what the threshold for a wanted precision costs on test."""
    rows = []
    for task, own in (metrics.get("confidence") or {}).items():
        threshold = "none promises it" if own["threshold"] is None else f"{own['threshold']:.2f}"
        kept, whole = own["test"]["kept"], own["test"]["all"]
        row = (task, percent(own["calibration_error"]), percent(own["min_precision"]), threshold)
        moved = (f"{percent(whole[figure])} → {percent(kept[figure])}" for figure in ("precision", "recall"))
        rows.append((*row, *moved, f"{kept['items']:,} of {whole['items']:,}"))
    if rows:
        note = (
            "Each item's mean token log-probability, made a probability on validation. The threshold is the lowest at which "
            f"{LEAST} or more validation items show the wanted precision (its lower 95 % bound, items taken as independent); "
            "what it does to test is on the right."
        )
        header = ("task", "calibration error", "wanted precision", "threshold", "test precision", "test recall", "items kept")
        yield Table(header, tuple(rows), "Confidence", note)
