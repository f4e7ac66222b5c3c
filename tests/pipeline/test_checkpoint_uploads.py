"""Checkpoints reach the Hub while training goes on; a Hub that fails costs a warning and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from articles import invent
from hub_server import TOKEN, hub

from data.files import write_jsonl
from data.readers.rows import document_rows

pytestmark = pytest.mark.slow
SETTINGS = [
    "train.max_steps=2", "train.evaluations=2", "train.effective_batch_size=4", "train.report_to=none",
    "publish.repo=tester/Llama-checkpoints", "publish.checkpoints=true", "eval.base_model=false",
]  # fmt: skip


def train(server, folder) -> subprocess.CompletedProcess:
    corpus = write_jsonl(folder / "corpus.jsonl", document_rows(invent(12)))
    command = ["train", "--preset", "tiny", "--data", corpus, "--out", folder / "run", "--set", *SETTINGS]
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, command)], env=environment, capture_output=True, text=True
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_each_checkpoint_arrives_as_an_adapter(tmp_path):
    with hub() as server:
        done = train(server, tmp_path)
        assert done.returncode == 0, done.stderr
        files = server.repositories["tester/Llama-checkpoints"].files
    for step in (1, 2):
        assert f"checkpoints/checkpoint-{step}/adapter_model.safetensors" in files
    assert not any("optimizer" in path for path in files)
    assert "WARNING" not in done.stderr


def test_a_hub_that_refuses_every_commit_costs_a_warning(tmp_path):
    with hub() as server:
        server.fail("POST", "/commit/", times=100, status=403)
        done = train(server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING: checkpoint-1 was not uploaded" in done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
