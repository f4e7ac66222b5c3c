"""Weights & Biases, when this machine is logged in or on request offline: losses and validation F1 while training,
and at the end the scores, the plots and the report. It never prompts, and without it nothing else changes: where W&B does not
answer, what it should have got is kept in the run's folder, for `wandb sync`.

Or Trackio, on request: the same figures in the run's folder, without an account or a network, for `trackio show`.
"""

from __future__ import annotations

import netrc
import os
import secrets
import sys
from importlib.util import find_spec

from data.schema import InputError
from pipeline.hub_reach import is_reachable
from pipeline.run_folder import RunFolder

WANDB = "https://api.wandb.ai"
PROJECT = "medner"
LONGEST_INIT, LONGEST_FINISH = 60, 300  # seconds that W&B may keep the job waiting, first and last


def uses_wandb(report_to: str) -> bool:
    """Whether W&B is written to: when asked for or, on "auto", when this machine is logged in."""
    return report_to in ("wandb", "offline") or report_to == "auto" and has_wandb_login()


def has_wandb_login() -> bool:
    """Whether W&B would find a key: in the environment, or in .netrc by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def tracker_of(report_to: str) -> str:
    """The integration of transformers' trainer: "wandb", "trackio" or "none"."""
    return "trackio" if report_to == "trackio" else "wandb" if uses_wandb(report_to) else "none"


def start_tracking(run: RunFolder) -> bool:
    """Open this run at W&B, the same W&B run when it goes on; offline where W&B does not answer.

    Returns whether W&B is used. For Trackio, which the trainer opens and closes, says where it writes.
    """
    if run.settings.train.report_to == "trackio":
        require_trackio()
        os.environ["TRACKIO_DIR"] = str(run.path.resolve() / "trackio")
        return False
    if not uses_wandb(run.settings.train.report_to):
        return False
    if "wandb" not in run.manifest:
        run.record(wandb=secrets.token_hex(4))
    os.environ |= {"WANDB_RUN_ID": run.manifest["wandb"], "WANDB_RESUME": "allow", "WANDB_DIR": str(run.path.resolve())}
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    os.environ.setdefault("WANDB_SILENT", "true")
    if run.settings.train.report_to == "offline":
        os.environ["WANDB_MODE"] = "offline"
    if os.environ.get("WANDB_MODE", "online") == "online" and (fault := open_online(run)):
        os.environ["WANDB_MODE"] = "offline"
        kept = run.path / "wandb"
        print(f"WARNING: W&B: {fault}; the job goes on. What W&B should have got is kept: wandb sync {kept}", file=sys.stderr)
    return True


def open_online(run: RunFolder) -> str | None:
    """The W&B run that the trainer and the evaluation write to. Returns what went wrong, if anything did."""
    import wandb

    address = os.environ.get("WANDB_BASE_URL") or WANDB
    if not is_reachable(address):
        return f"{address} cannot be reached"
    try:
        waits = wandb.Settings(init_timeout=LONGEST_INIT, finish_timeout=LONGEST_FINISH)
        wandb.init(id=run.manifest["wandb"], name=run.path.name, resume="allow", dir=str(run.path), settings=waits)
    except wandb.Error as error:  # a server in trouble, or a key that it refuses
        return str(error).strip().split("\n")[0]
    return None


def stop_tracking() -> None:
    """Close what the trainer opened, so that what comes later is added to the same W&B run in order."""
    import wandb

    wandb.finish()


def require_trackio() -> None:
    if not find_spec("trackio"):
        raise InputError("train.report_to=trackio: the package trackio is not installed: pip install trackio")


def log_evaluation(run: RunFolder, metrics: dict) -> None:
    """The scores as a table and as summary figures, and the report with its plots as an artifact (Trackio: the figures)."""
    if run.settings.train.report_to == "trackio":
        import trackio

        trackio.init(project=PROJECT, name=run.path.name, resume="allow", embed=False)
        trackio.log({f"test/f1_{task}": figures["f1"] for task, figures in metrics["tasks"].items()})
        trackio.finish()
        return
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
