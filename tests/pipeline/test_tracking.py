"""Weights & Biases without an account: nothing asks, everything is kept for `wandb sync`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from articles import invent

from data.files import write_jsonl
from data.readers.rows import document_rows
from pipeline.training.tracking import uses_wandb


@pytest.mark.parametrize(
    ("report_to", "key", "used"),
    [("none", "k" * 40, False), ("auto", "", False), ("auto", "k" * 40, True), ("offline", "", True), ("wandb", "", True)],
)
def test_it_is_used_when_logged_in_or_asked_for(monkeypatch, tmp_path, report_to, key, used):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert uses_wandb(report_to) is used


@pytest.mark.slow
def test_an_offline_run_keeps_losses_answers_scores_and_report(tmp_path):
    corpus = write_jsonl(tmp_path / "corpus.jsonl", document_rows(invent(12)))
    settings = ["train.num_train_epochs=1", "train.report_to=offline", "eval.max_new_tokens=4", "export.gguf="]
    command = ["run", "--preset", "tiny", "--data", corpus, "--out", tmp_path / "run", "--set", *settings]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    medner = [sys.executable, "-m", "pipeline.cli", *map(str, command)]
    done = subprocess.run(medner, stdin=subprocess.DEVNULL, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    for key in (b"train/loss", b"eval/f1_chemicals", b"test/scores", b"test/f1_relations", b"report.html"):
        assert key in kept, key
