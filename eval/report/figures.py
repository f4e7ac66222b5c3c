"""The report's plots, section by section, from the metrics: {section: metrics -> HTML}."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from data.schema import TASKS
from eval.report.svg import Estimate, draw_bars, draw_curve, draw_forest, draw_key
from eval.report.tables import BASELINES, bounds_of, f1_of, named_figures

MOST_FAULTS = 8
MARK_OF = {"dictionary": "square", "cooccurrence": "triangle", "base_model": "diamond"}
SLICE_TITLES = {
    "string": "name in train",
    "concept": "concept in train (recall)",
    "words": "words of the name",
    "abbreviation": "abbreviation",
    "items": "items in the article",
    "length": "words in the article",
}


def plot_scores(metrics: Mapping) -> str:
    rows, ceilings = [], metrics.get("ceilings") or {}
    for name, figures in named_figures(metrics):
        low, high = bounds_of(metrics, name, "f1") or (None, None)
        marks = [(MARK_OF[baseline], f1_of(metrics, baseline, name)) for baseline in MARK_OF if name in TASKS]
        marks.append(("tick", ceilings.get(name)))
        shown = tuple((shape, value) for shape, value in marks if value is not None)
        rows.append(Estimate(name, figures["f1"], low, high, marks=shown))
    key = {"dot": "this run, 95 % interval"} | {mark: BASELINES[baseline] for baseline, mark in MARK_OF.items()}
    return figure(
        "F1", draw_forest(rows, "F1 of each task beside floors and ceilings", 1110) + draw_key(key | {"tick": "ceiling"})
    )


def plot_relations(metrics: Mapping) -> str:
    titles = {"exact": "exact strings", "alias": "alias-aware", "mesh": "MeSH ids", "cooccurrence": "co-occurrence floor"}
    rows = []
    for name, own in (metrics.get("conventions") or {}).items():
        figures, ceiling = own["figures"], own.get("ceiling") or own.get("concepts")
        shape = "tick" if own.get("ceiling") else "triangle"
        marks = ((shape, ceiling["f1"]),) if ceiling else ()
        low, high = figures["ci95"] if figures else (None, None)
        rows.append(Estimate(titles[name], figures and figures["f1"], low, high, "" if figures else "none", marks))
    key = {"dot": "F1, 95 % interval", "tick": "ceiling of MeSH ids", "triangle": "co-occurrence over concept ids"}
    return figure("F1 of relations", draw_forest(rows, "F1 of relations under four conventions", 1110) + draw_key(key))


def plot_generalisation(metrics: Mapping) -> str:
    plots = []
    for task, groups in (metrics.get("slices") or {}).items():
        rows = []
        for group, labels in groups.items():
            rows += [Estimate(SLICE_TITLES[group])] if labels else []
            for label, own in (labels or {}).items():
                value = own["recall"] if own["f1"] is None else own["f1"]
                rows.append(Estimate(label, value, *own["ci95"], f"{own['support']:,}"))
        if rows:
            plots.append(figure(task, draw_forest(rows, f"F1 of {task} by slice", 370, 110)))
    return f'<div class="row">{"".join(plots)}</div>' + draw_key({"dot": "F1, 95 % interval; gold items at the right"})


def plot_faults(metrics: Mapping) -> str:
    plots = []
    for task, kinds in ((metrics.get("faults") or {}).get("categories") or {}).items():
        count = {category: [kinds[kind].get(category, {"count": 0})["count"] for kind in ("fp", "fn")] for category in
                 dict.fromkeys([*kinds["fp"], *kinds["fn"]])}  # fmt: skip
        worst = sorted(count, key=lambda category: -sum(count[category]))[:MOST_FAULTS]
        if worst:
            rows = [(category.replace("_", " "), *count[category]) for category in worst]
            plots.append(figure(task, draw_bars(rows, f"commonest faults in {task}", 370)))
    key = draw_key({"fp": "false positives", "fn": "false negatives"}) if plots else ""
    return f'<div class="row">{"".join(plots)}</div>{key}'


def plot_confidence(metrics: Mapping) -> str:
    plots = []
    for task, own in (metrics.get("confidence") or {}).items():
        stated = [(b["stated"], b["right"]) for b in own["reliability"]]
        kept, whole = own["test"]["kept"], own["test"]["all"]
        axes = ("stated chance, %", "right, %")
        plots.append(
            figure(f"{task}: reliability", draw_curve(stated, f"reliability of {task}", axes, dots=True, diagonal=True))
        )
        curve = [(point["coverage"], point["precision"]) for point in own["risk_coverage"]]
        chosen = (kept["items"] / whole["items"], kept["precision"]) if kept["items"] else None
        axes = ("items kept, surest first, %", "precision, %")
        plots.append(figure(f"{task}: coverage", draw_curve(curve, f"coverage of {task}", axes, crossing=chosen)))
    key = draw_key({"dot": "a tenth of stated chances", "diamond": "the chosen threshold"})
    return f'<div class="row">{"".join(plots)}</div>{key}'


def figure(title: str, plot: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>"


PLOTS = {
    "scores": plot_scores,
    "relations": plot_relations,
    "generalisation": plot_generalisation,
    "faults": plot_faults,
    "confidence": plot_confidence,
}
