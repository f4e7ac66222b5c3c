"""What the report's charts show, in numbers that its template draws: a forest of scores, bars of faults, curves of confidence.

A chart never repeats the table under it, but for the forest and the bars, which say at a glance what their tables say in full.
Positions are in percent of the chart's width or height.
"""

from __future__ import annotations

from collections.abc import Mapping

from data.schema import TASKS
from eval.report.tables import BASELINES, baseline_f1, bounds_of, named_figures

MOST_FAULTS = 8
SHAPES = {"base_model_lenient": "diamond", "crf": "cross", "dictionary": "square", "cooccurrence": "triangle"}


def forest(metrics: Mapping) -> dict:
    """{"rows": [{"label", "value", "low", "high", "marks": [(shape, value)]}], "key": {shape: words}}: F1 beside baselines."""
    rows, key, ceilings = [], {"dot": "this model, with 95 % interval"}, metrics.get("ceilings") or {}
    for name, figures in named_figures(metrics):
        beside = {shape: (baseline_f1(metrics, baseline, name), BASELINES[baseline]) for baseline, shape in SHAPES.items()}
        beside["tick"] = (ceilings.get(name), "ceiling")
        marks = [(shape, 100 * value) for shape, (value, _) in beside.items() if value is not None]
        key |= {shape: beside[shape][1] for shape, _ in marks}
        low, high = bounds_of(metrics, name, "f1") or (figures["f1"], figures["f1"])
        rows.append({"label": name, "value": 100 * figures["f1"], "low": 100 * low, "high": 100 * high, "marks": marks})
    return {"rows": rows, "key": key}


def fault_bars(metrics: Mapping) -> list[dict]:
    """[{"task", "rows": [{"label", "fp", "fn", "fp_width", "fn_width"}]}]: each task's commonest faults."""
    charts = []
    for task, kinds in ((metrics.get("faults") or {}).get("categories") or {}).items():
        names = dict.fromkeys([*kinds["fp"], *kinds["fn"]])
        counts = {name: [kinds[kind].get(name, {"count": 0})["count"] for kind in ("fp", "fn")] for name in names}
        worst = sorted(counts, key=lambda name: -sum(counts[name]))[:MOST_FAULTS]
        most = max((max(counts[name]) for name in worst), default=0) or 1
        rows = [
            {"label": name.replace("_", " "), "fp": fp, "fn": fn, "fp_width": 100 * fp / most, "fn_width": 100 * fn / most}
            for name in worst
            for fp, fn in [counts[name]]
        ]
        charts += [{"task": task, "rows": rows}] if rows else []
    return charts


def confidence_curves(metrics: Mapping) -> list[dict]:
    """[{"title", "points": [(x, y)], "axes": (x's, y's), "dots", "chosen": (x, y) or None}]: are stated chances true?"""
    curves = []
    for task in (task for task in TASKS if task in (metrics.get("confidence") or {})):
        own = metrics["confidence"][task]
        kept, whole = own["test"]["kept"], own["test"]["all"]
        stated = [(100 * b["stated"], 100 * b["right"]) for b in own["reliability"]]
        axes = ("stated chance, %", "right, %")
        curves.append({"title": f"{task}: reliability", "points": stated, "axes": axes, "dots": True, "chosen": None})
        coverage = [(100 * point["coverage"], 100 * point["precision"]) for point in own["risk_coverage"]]
        chosen = (100 * kept["items"] / whole["items"], 100 * kept["precision"]) if kept["items"] else None
        axes = ("items kept, surest first, %", "precision, %")
        curves.append({"title": f"{task}: coverage", "points": coverage, "axes": axes, "dots": False, "chosen": chosen})
    return curves
