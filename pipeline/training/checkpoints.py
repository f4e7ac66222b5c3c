"""Checkpoints that can be trusted: each is sealed with the sha256 of its files once it is whole, and gone on from only then.

The trainer writes a checkpoint in place, file by file; `sealed.json`, written last, aside and renamed, tells a whole one from
what an interruption or a full disk left.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import EarlyStoppingCallback, TrainerCallback

from data.files import write_json
from pipeline.run_folder import hash_files
from pipeline.training.distributed import count_processes, is_first_process

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerState

SEAL = "sealed.json"
# What safetensors and torch say, in errors of their own, where a file cannot be written to its end.
NO_ROOM = re.compile(r"os error (27|28|122)\b|inline_container|PytorchStreamWriter|iostream error")


class SealedCheckpoints(TrainerCallback):
    """Seals what the trainer saves, and finds the best checkpoint again where the run's folder was moved."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.best_global_step:  # the run's folder may have been moved, or named from elsewhere
            state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.best_global_step}")

    def on_save(self, args, state, control, model=None, **kwargs):
        if is_first_process():
            require_finite(model, state.global_step)
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class Patience(EarlyStoppingCallback):
    """Early stopping that counts on, after an interruption, from where it was."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = evaluations_without_gain(state)


def evaluations_without_gain(state: TrainerState) -> int:
    """Evaluations since the best one."""
    return sum("eval_loss" in row and row["step"] > (state.best_global_step or 0) for row in state.log_history)


def require_finite(model: PreTrainedModel, step: int) -> None:
    """Raises RuntimeError where a trained weight is no number any more."""
    if not all(parameter.isfinite().all() for parameter in model.parameters() if parameter.requires_grad):
        raise RuntimeError(f"the adapter's weights are no longer finite at step {step}; lower train.learning_rate")


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turns what libraries raise on a full disk into the OSError that it is, naming `folder`."""
    try:
        yield
    except Exception as error:
        if NO_ROOM.search(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def seal(checkpoint: Path) -> None:
    """Writes the sha256 of each file of a finished checkpoint beside them."""
    # another process may still be writing its rng_state_1.pth
    files = [file for file in sorted(checkpoint.iterdir()) if file.is_file() and file.name != SEAL and not per_process(file)]
    write_json(checkpoint / SEAL, {file.name: hash_files([file]) for file in files})


def per_process(file: Path) -> bool:
    """Whether each process writes such a file of its own."""
    return file.name.startswith("rng_state_")


def find_fault(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being gone on from; None where it is whole."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "was not written to its end"
    for name, digest in sealed.items():
        file = checkpoint / name
        if not file.is_file() or hash_files([file]) != digest:
            return f"its {name} is missing or damaged"
    if count_processes() > 1 and sum(1 for file in checkpoint.iterdir() if per_process(file)) < count_processes():
        return "was not written to its end"
    return None


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint whose best one, the adapter so far, is whole too. What is damaged is said, and removed."""
    faults = {
        checkpoint: find_fault(checkpoint) for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    }
    whole = [checkpoint for checkpoint, fault in faults.items() if not fault]
    found = next((one for one in whole if best_of(one) is None or folder / f"checkpoint-{best_of(one)}" in whole), None)
    for checkpoint, fault in faults.items():
        if checkpoint in whole and (found is None or step_of(checkpoint) <= step_of(found)):
            continue
        if is_first_process():
            fault = fault or "the best one before it is damaged"
            go_on = f"training goes on from step {step_of(found)}" if found else "training begins anew"
            print(f"WARNING: {checkpoint}: {fault}; {go_on}", file=sys.stderr)
            shutil.rmtree(checkpoint, ignore_errors=True)
    return found


def step_of(checkpoint: Path) -> int:
    """The step of "checkpoint-STEP"."""
    return int(checkpoint.name.partition("-")[2])


def best_of(checkpoint: Path) -> int | None:
    """The best step until this checkpoint, by the trainer's state; None before the first evaluation."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["best_global_step"]
