"""Training that is killed goes on from its checkpoint and learns what it would have learnt; the best checkpoint is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from quick_kernels import use_quick_kernels
from two_layer_job import settings, short_examples

STEPS = 6


def train(reference: Path, tokenizer, folder: Path, dtype: str) -> dict:
    from pipeline.model import load_model
    from pipeline.training.train import train_adapter

    changes = {"train__max_steps": STEPS, "train__evaluations": 3, "train__learning_rate": 1e-2}
    chosen, examples = settings(reference / "base", dtype, **changes), short_examples(tokenizer)
    folder.mkdir(exist_ok=True)
    return train_adapter(chosen, load_model(chosen, trainable=True), tokenizer, examples, examples[:2], folder)


def kill_after(checkpoint: Path, work) -> None:
    """Do the work in a copy of this process, killed when the checkpoint is whole."""
    from pipeline.training.checkpoints import SEAL

    child = os.fork()
    if not child:
        work()
        os._exit(1)
    while not (checkpoint / SEAL).is_file():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended before it could be killed"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture(scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        use_quick_kernels(patch)
        yield


@pytest.fixture(scope="module")
def whole(quick, reference, tokenizer, dtype, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(reference, tokenizer, folder, dtype)


def test_what_is_killed_goes_on_and_learns_the_same(whole, reference, tokenizer, dtype, tmp_path):
    folder, facts = tmp_path / "killed", whole[1]
    kill_after(folder / "checkpoints/checkpoint-2", lambda: train(reference, tokenizer, folder, dtype))
    resumed = train(reference, tokenizer, folder, dtype)
    losses, wanted = ([row["loss"] for row in one["losses"] if "loss" in row] for one in (resumed, facts))
    assert len(losses) == STEPS and losses[-1] < losses[2] < losses[0]
    assert losses == pytest.approx(wanted, rel=1e-3)
    assert resumed["validation_loss"] == pytest.approx(facts["validation_loss"], rel=1e-3)


def test_the_adapter_is_that_of_the_best_checkpoint(whole):
    from safetensors.torch import load_file

    folder, facts = whole
    measured = {row["step"]: row["eval_loss"] for row in facts["losses"] if "eval_loss" in row}
    assert facts["best_step"] == min(measured, key=measured.get)
    saved = load_file(folder / "adapter/adapter_model.safetensors")
    best = load_file(folder / f"checkpoints/checkpoint-{facts['best_step']}/adapter_model.safetensors")
    assert saved.keys() == best.keys() and len(saved) == 28 and all(torch.equal(saved[name], best[name]) for name in saved)
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("/base") and config["peft_type"] == "LORA"
