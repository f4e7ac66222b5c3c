"""A run's outcome as a JSON object and as tables for a terminal."""

from __future__ import annotations

import json
from pathlib import Path

from data.schema import TASKS
from pipeline.run_folder import RunFolder

LABEL = {
    "base_model": "untuned model",
    "dictionary": "dictionary of train names",
    "cooccurrence": "co-occurrence of those",
}


def summarise(run: RunFolder) -> dict:
    """What `medner run --json` prints: where the run is, its stages, and its metrics by split."""
    metrics = {}
    for file in sorted(run.path.glob("eval/*/metrics.json")):
        metrics[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
    return {"run": str(run.path), "device": run.manifest.get("device"), "stages": run.manifest["stages"], "metrics": metrics}


def render_run(summary: dict) -> str:
    seconds = {name: stage["seconds"] for name, stage in summary["stages"].items()}
    metrics = summary["metrics"]
    shown = [name for name in ("test", *metrics) if name in metrics][:1]
    blocks = [render_metrics(metrics[name], name) for name in shown]
    others = [f"{name}: micro F1 {100 * metrics[name]['micro']['f1']:.1f}" for name in metrics if name not in shown]
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    return "\n\n".join([*blocks, *others, f"{times}\neverything is in {Path(summary['run'])}"])


def render_metrics(metrics: dict, title: str = "scores") -> str:
    """Precision, recall and F1 in percent, with 95 % intervals over documents, and the floors beside them."""
    lines = [
        f"{title}: {metrics['documents']} documents, exact strings after normalisation, percent",
        f"{'':28}{'P':>7}{'R':>7}{'F1':>7}   {'95 % of F1':<14}{'exact':>7}{'gold':>7}",
    ]
    for name, figures in [*metrics["tasks"].items(), ("micro", metrics["micro"]), ("macro", metrics["macro"])]:
        lines.append(render_row(name, figures))
    for baseline, tasks in metrics.get("baselines", {}).items():
        lines += ["", f"{LABEL[baseline]}:"]
        lines += [render_row(f"  {task}", tasks[task]) for task in TASKS if task in tasks]
    official = (metrics.get("official") or {}).get("mention")
    if official:
        figures = ", ".join(f"{kind} {100 * official[kind]['f1']:.1f}" for kind in ("Chemical", "Disease", "both"))
        lines += ["", f"official strict mention F1 (BioCreative V CDR): {figures}"]
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in metrics["rates"].items())
    return "\n".join([*lines, "", f"answers and items at fault: {rates}"])


def render_row(name: str, figures: dict) -> str:
    low, high = (100 * bound for bound in figures["ci95"])
    scores = "".join(f"{100 * figures[key]:7.1f}" for key in ("precision", "recall", "f1"))
    exact = f"{100 * figures['exact_match']:7.1f}" if "exact_match" in figures else " " * 7
    return f"{name:28}{scores}   {f'{low:.1f} to {high:.1f}':<14}{exact}{figures.get('support', ''):>7}".rstrip()
