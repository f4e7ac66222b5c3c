"""Several devices: two processes train as one does with the same effective batch, and only the first of them writes.

Run by a launcher, this file is the program that trains: `torchrun --nproc-per-node 2 tests/test_ddp.py FOLDER ACCUMULATION`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES, STEPS, EFFECTIVE = 24, 4, 4


def train_here(folder: Path, accumulation: int) -> None:
    """Train the tiny model for a few steps on random ids; the first process writes its losses to folder/facts.json."""
    from pipeline.config import apply_settings
    from pipeline.model import load_model, load_tokenizer, model_path
    from pipeline.training.distributed import is_first_process
    from pipeline.training.train import train_adapter

    settings = apply_settings(
        {
            "model.name": "tiny",
            "model.dtype": "float32",
            "model.load_in_4bit": False,
            "model.max_length": 64,
            "train.max_steps": STEPS,
            "train.learning_rate": 1e-3,  # at more, validation gets worse, and which checkpoint is kept hangs on a hair
            "train.effective_batch_size": EFFECTIVE,
            "train.per_device_train_batch_size": 2,
            "train.gradient_accumulation_steps": accumulation,
            "train.per_device_eval_batch_size": 1,
            "train.gradient_checkpointing": False,
            "train.evaluations": 2,
            "train.report_to": "none",
        }
    )
    facts = train_adapter(
        settings,
        load_model(settings, trainable=True),
        load_tokenizer(model_path("tiny")),
        make_examples(EXAMPLES, 0),
        make_examples(6, 1),
        folder,
        score=lambda model: {"f1": os.getpid() / 1e9},
    )
    if is_first_process():
        (folder / "facts.json").write_text(json.dumps(facts))
    measured = {row["eval_f1"] for row in facts["losses"] if "eval_f1" in row}
    assert len(measured) == 1 and (measured == {os.getpid() / 1e9}) is is_first_process(), "F1 is the first process's in all"


def make_examples(count: int, seed: int) -> list[dict]:
    """Random ids of unequal lengths with unequal numbers of supervised tokens: a mean of means would differ from the mean."""
    draw = random.Random(seed)
    examples = []
    for _ in range(count):
        length, answer = draw.randint(16, 60), draw.randint(2, 12)
        ids = [draw.randrange(20, 1000) for _ in range(length)]
        examples.append({"input_ids": ids, "completion_mask": [0] * (length - answer) + [1] * answer})
    return examples


def launch(folder: Path, processes: int) -> dict:
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, str(folder), str(EFFECTIVE // 2 // processes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((folder / "facts.json").read_text())


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    one, two = launch(tmp_path / "one", 1), launch(tmp_path / "two", 2)
    losses = [[row["loss"] for row in facts["losses"] if "loss" in row] for facts in (one, two)]
    assert len(losses[0]) == STEPS
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    # transformers averages the validation loss over batches, and one of two processes holds twice the examples.
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-2)
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["adapter", "checkpoints", "facts.json"]


@pytest.mark.slow
def test_the_command_hears_one_f1_in_all_processes_stops_with_a_checkpoint_and_goes_on_where_both_were_killed(tmp_path):
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (corpus := tmp_path / "corpus.jsonl").write_text("".join(lines[:120]), encoding="utf-8")
    settings = ["train.max_steps=9", "train.evaluations=3", "train.eval_f1_articles=1", "train.effective_batch_size=2",
                "train.report_to=none", "eval.max_new_tokens=8"]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pipeline.processes"]
    job = ["train", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run"), "--set", *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    checkpoints = tmp_path / "run" / "checkpoints"

    def start_until(step: int) -> subprocess.Popen:
        began = subprocess.Popen([*launcher, *job], env=environment, stderr=subprocess.PIPE, text=True)
        while not (checkpoints / f"checkpoint-{step}" / "sealed.json").exists():
            assert began.poll() is None, began.stderr.read()
            time.sleep(0.02)
        return began

    with start_until(3) as stopped:
        stopped.send_signal(signal.SIGINT)
        said = stopped.communicate(timeout=120)[1]
    last = max(int(path.parent.name.partition("-")[2]) for path in checkpoints.glob("*/sealed.json"))
    assert stopped.returncode != 0 and 3 < last < 6, said[-3000:]
    assert said.count("stopping at the end of this step") == said.count("interrupted in stage train") == 1
    assert f"at step {last}" in said and "Traceback" not in said.partition("interrupted in stage train")[0]

    with start_until(6) as killed:
        own = [int(pid) for pid in Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()]
        for pid in own:  # the launcher ends by itself then
            os.kill(pid, signal.SIGKILL)
        said = killed.communicate(timeout=120)[1]
    assert len(own) == 2 and killed.returncode != 0 and "Truncating" not in said, "only the first process is to be heard"
    ran = subprocess.run([*launcher, *job], env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    stages = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]
    assert list(stages) == ["data", "plan", "train"] and stages["plan"]["processes"] == 2
    assert [row["step"] for row in stages["train"]["losses"] if "eval_f1" in row] == [3, 6, 9]


def start_ranks(folder: Path, longest_step: float) -> list[subprocess.Popen]:
    """Two processes that a cluster would start on two machines: nobody watches over both."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LONGEST_STEP": str(longest_step), "STEPS": "100000"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, __file__, str(folder), "1"],
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | address | place,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return ranks


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_where_one_process_dies_or_hangs_the_other_ends_in_time(tmp_path, how):
    dead, other = start_ranks(tmp_path / "run", longest_step=8)
    try:
        while not (tmp_path / "run" / "began").exists():
            assert other.poll() is None and dead.poll() is None, (other.stderr.read() if other.poll() else "", dead.poll())
            time.sleep(0.05)
        dead.send_signal(how)
        assert other.wait(120) != 0
        said = other.stderr.read()
        assert any(word in said for word in ("Connection closed", "Timed out", "timeout", "reset by peer")), said[-2000:]
    finally:
        for process in (dead, other):
            process.kill()
            process.communicate()


if __name__ == "__main__":
    from datetime import timedelta

    from transformers import TrainerCallback

    from pipeline.training import distributed, train

    if "LONGEST_STEP" in os.environ:
        distributed.LONGEST_STEP = timedelta(seconds=float(os.environ["LONGEST_STEP"]))
        STEPS = int(os.environ["STEPS"])
        make = train.make_trainer

        class Began(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                (Path(sys.argv[1]) / "began").touch()

        def make_noted(*arguments):
            trainer = make(*arguments)
            trainer.add_callback(Began())
            return trainer

        train.make_trainer = make_noted
    train_here(Path(sys.argv[1]), int(sys.argv[2]))
