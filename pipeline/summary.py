"""A run's outcome as a JSON object and as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data.table import as_text, join_blocks
from eval.report.tables import build_tables, rates
from pipeline.run_folder import RunFolder


def summarise(run: RunFolder) -> dict:
    """What `medner run --json` prints: where the run is, its stages, and its metrics by split."""
    metrics = {}
    for file in sorted(run.path.glob("eval/*/metrics.json")):
        metrics[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
    return {"run": str(run.path), "device": run.manifest.get("device"), "stages": run.manifest["stages"], "metrics": metrics}


def render_run(summary: Mapping) -> str:
    """The scores on test, or on the split there is; the others' in a line; what took how long; where everything is."""
    metrics, stages = summary["metrics"], summary["stages"]
    shown = [name for name in ("test", *metrics) if name in metrics][:1]
    others = [f"{name}: micro F1 {100 * metrics[name]['micro']['f1']:.1f}" for name in metrics if name not in shown]
    times = ", ".join(f"{name} {stage['seconds']:.0f} s" for name, stage in stages.items())
    exported = [render_export(Path(summary["run"]), stages["export"])] if "passed" in stages.get("export", {}) else []
    where = f"{times}\neverything is in {Path(summary['run'])}"
    return join_blocks([*(render_metrics(metrics[name], name) for name in shown), *others, *exported, where])


def render_metrics(metrics: Mapping, title: str = "scores") -> str:
    """For a terminal: each task's scores with 95 % intervals, what stands beside them, and the answers that failed."""
    first, *more = build_tables(metrics, ["scores"])
    (failed,) = rates(metrics)
    first = replace(first, title=f"{title}: {first.title}").only("F1", "precision", "recall", "gold", "exact")
    return join_blocks(map(as_text, (first, *more, failed)))


def render_export(run: Path, facts: Mapping) -> str:
    """What was exported and whether it answers as the adapter does, and the command that serves it."""
    from pipeline.export.parity import render_parity

    parity = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))
    serve = [f"serve it: {facts['llama_server']}"] if facts["llama_server"] else []
    return "\n".join([render_parity(parity), *serve])
