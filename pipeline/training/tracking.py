"""Weights & Biases, when this machine is logged in or on request offline: losses and validation F1 while training,
and at the end the scores, the plots and the report. It never prompts, and without it nothing else changes.
"""

from __future__ import annotations

import netrc
import os
import secrets

from pipeline.run_folder import RunFolder


def uses_wandb(report_to: str) -> bool:
    """When asked for or, on "auto", when this machine is logged in."""
    return report_to in ("wandb", "offline") or report_to == "auto" and has_wandb_login()


def has_wandb_login() -> bool:
    """Whether W&B would find a key: in the environment, or in .netrc by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def start_tracking(run: RunFolder) -> bool:
    """Point the W&B client at this run, the same W&B run when it goes on. Returns whether W&B is used."""
    if not uses_wandb(run.settings.train.report_to):
        return False
    if "wandb" not in run.manifest:
        run.record(wandb=secrets.token_hex(4))
    os.environ |= {"WANDB_RUN_ID": run.manifest["wandb"], "WANDB_RESUME": "allow", "WANDB_DIR": str(run.path.resolve())}
    os.environ.setdefault("WANDB_PROJECT", "medner")
    os.environ.setdefault("WANDB_SILENT", "true")
    if run.settings.train.report_to == "offline":
        os.environ["WANDB_MODE"] = "offline"
    return True


def stop_tracking() -> None:
    """Close what the trainer opened, so that what comes later is added to the same W&B run in order."""
    import wandb

    wandb.finish()


def log_evaluation(run: RunFolder, metrics: dict) -> None:
    """The scores as a table and as summary figures, and the report with its plots as an artifact."""
    import wandb

    columns = ("precision", "recall", "f1", "tp", "fp", "fn", "support")
    rows = [[task, *(figures[column] for column in columns)] for task, figures in metrics["tasks"].items()]
    with wandb.init(id=run.manifest["wandb"], resume="allow", dir=str(run.path)) as tracked:
        tracked.log({"test/scores": wandb.Table(columns=["task", *columns], data=rows)})
        for task, figures in metrics["tasks"].items():
            tracked.summary[f"test/f1_{task}"] = figures["f1"]
        artifact = wandb.Artifact(f"{run.path.name}-evaluation", type="evaluation")
        for name in ("report.html", "metrics.json"):
            artifact.add_file(str(run.path / "eval" / "test" / name))
        tracked.log_artifact(artifact)
