"""Nothing leaves the machine that nobody asked to send, and no token is ever written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from articles import invent
from fixed_run import with_gold

from data.files import write_jsonl
from data.readers.rows import document_rows
from pipeline import cli

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are Linux's")
SETTINGS = ["train.max_steps=2", "train.evaluations=2", "train.effective_batch_size=2", "lora.r=4", "eval.max_new_tokens=6",
            "train.eval_f1_articles=1", "export.gguf=f16"]  # fmt: skip
TOKENS = {
    "HF_TOKEN": "hf_" + "Hidden" * 6,
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "Covert" * 6,
    "OPENAI_API_KEY": "sk-" + "Secret" * 6,
    "NCBI_API_KEY": "Private" * 6,
}


def alone(arguments: list[str], folder: Path, **environment: str) -> tuple[dict, str]:
    """A command in a network namespace of its own: {"attempts", "code"} and all that it printed. Skips where there is none."""
    program = [sys.executable, str(ROOT / "tests" / "support" / "no_network.py"), *arguments]
    home = {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=folder, env=os.environ | home | environment, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this system gives no network namespace")
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_what_tries_to_get_out_is_counted(tmp_path):
    asking = "import socket\ntry: socket.getaddrinfo('example.org', 443)\nexcept OSError: pass\n"
    calling = "import socket\ntry: socket.create_connection(('192.0.2.1', 80))\nexcept OSError: pass\n"
    for code in (asking, calling):
        assert sum(alone([sys.executable, "-c", code], tmp_path)[0]["attempts"].values()) > 0
    assert sum(alone([sys.executable, "-c", "pass"], tmp_path)[0]["attempts"].values()) == 0


@pytest.mark.slow
def test_a_job_an_evaluation_and_an_extraction_try_no_connection_and_write_no_token(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", document_rows([with_gold(document) for document in invent(14)]))
    medner = f"{sys.executable} -m pipeline.cli"
    commands = [
        f"{medner} run --preset tiny --data corpus.jsonl --out run --set {' '.join(SETTINGS)}",
        f"{medner} evaluate run --grounded",
        f"{medner} extract --model run 'Lithium caused tremor.' --out found.csv",
        f"{medner} data audit corpus.jsonl",
    ]
    found, printed = alone(["sh", "-c", " && ".join(commands)], tmp_path, **TOKENS)
    assert found == {"attempts": {"ipv4": 0, "ipv6": 0}, "code": 0}, printed
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"README.md", "found.csv", "manifest.json", "report.html"} <= {path.name for path in written}
    for name, token in TOKENS.items():
        assert token not in printed, name
        assert [path for path, content in written.items() if token.encode() in content] == [], name


def test_libraries_are_told_to_tell_nothing(monkeypatch):
    for variable in cli.UNTRACKED:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # what a user sets stays
    cli.quiet_libraries(debug=True)
    assert {variable: os.environ[variable] for variable in cli.UNTRACKED} == cli.UNTRACKED | {"RAY_USAGE_STATS_ENABLED": "1"}
