"""Weights & Biases without an account: nothing asks, everything is kept for `wandb sync`."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
from articles import invent

from data.files import write_jsonl
from data.readers.rows import document_rows
from data.schema import InputError
from pipeline.training import tracking
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
    run_with_wandb(tmp_path, {"train.report_to": "offline"}, {})
    kept = records(tmp_path)
    for key in (b"train/loss", b"eval/f1_chemicals", b"test/scores", b"test/f1_relations", b"report.html"):
        assert key in kept, key


@pytest.mark.slow
def test_training_goes_on_where_wandb_is_down_and_its_records_are_kept_without_the_key(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        address, key = f"http://127.0.0.1:{closed.getsockname()[1]}", "f" * 40
        done = run_with_wandb(
            tmp_path, {"train.report_to": "wandb", "train.max_steps": 2}, {"WANDB_BASE_URL": address, "WANDB_API_KEY": key}
        )
    assert f"WARNING: W&B: {address} cannot be reached; the job goes on" in done.stderr
    assert b"train/loss" in records(tmp_path) and b"test/scores" in records(tmp_path)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in [*written, (done.stdout + done.stderr).encode()])


@pytest.mark.slow
def test_a_key_or_a_server_that_will_not_do_is_a_line_and_no_end(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
        monkeypatch.setattr(tracking, "LONGEST_INIT", 2)
        fault = tracking.open_online(SimpleNamespace(manifest={"wandb": "ab12"}, path=tmp_path))
    assert fault and "\n" not in fault


@pytest.mark.slow
def test_trackio_keeps_losses_and_scores_in_the_runs_folder_offline(tmp_path):
    pytest.importorskip("trackio")
    settings = {"train.report_to": "trackio", "train.max_steps": 2, "train.evaluations": 1}
    run_with_wandb(tmp_path, settings, {"HF_HUB_OFFLINE": "1"})
    (database,) = (tmp_path / "run" / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as kept:
        rows = [json.loads(row) for (row,) in kept.execute("SELECT metrics FROM metrics")]
    logged = {name for row in rows for name in row}
    assert {"train/loss", "eval/loss", "test/f1_chemicals", "test/f1_relations"} <= logged
    assert not (tmp_path / ".cache" / "huggingface" / "trackio").exists() and not (tmp_path / "run" / "wandb").exists()


def test_trackio_that_is_not_installed_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    run = SimpleNamespace(settings=SimpleNamespace(train=SimpleNamespace(report_to="trackio")), path=tmp_path)
    with pytest.raises(InputError, match="pip install trackio"):
        tracking.start_tracking(run)


def run_with_wandb(folder, settings, environment):
    corpus = write_jsonl(folder / "corpus.jsonl", document_rows(invent(12)))
    settings = {"train.num_train_epochs": 1, "eval.max_new_tokens": 4, "export.gguf": "", **settings}
    given = [f"{name}={value}" for name, value in settings.items()]
    command = ["run", "--preset", "tiny", "--data", corpus, "--out", folder / "run", "--set", *given]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    medner = [sys.executable, "-m", "pipeline.cli", *map(str, command)]
    done = subprocess.run(
        medner, stdin=subprocess.DEVNULL, env=kept | {"HOME": str(folder)} | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def records(folder):
    return b"".join(path.read_bytes() for path in (folder / "run" / "wandb").glob("offline-run-*/*.wandb"))
