"""What a person sees who runs the job in a terminal: named bars, and none of the libraries' noise."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from articles import invent
from fixed_run import with_gold

from data.files import write_jsonl
from data.readers.rows import document_rows

SETTINGS = ["train.max_steps=2", "train.report_to=none", "eval.max_new_tokens=4", "export.gguf=", "model.load_in_4bit=true"]
NOISE = re.compile(r"gemm_4bit|warning|deprecat|retry|tokenizers parallelism|special tokens|generation flags", re.IGNORECASE)


def run_in_terminal(command: list[str], folder: Path) -> tuple[int, str]:
    """The exit code and all that was shown."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 100))
    environment = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the last one has closed its end
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(), shown.decode("utf-8", "replace")


@pytest.mark.slow
def test_a_run_in_four_bits_shows_named_bars_and_no_noise(tmp_path):
    corpus = write_jsonl(tmp_path / "corpus.jsonl", document_rows([with_gold(document) for document in invent(12)]))
    run = ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run"), "--set", *SETTINGS]
    code, shown = run_in_terminal([sys.executable, "-m", "pipeline.cli", *run], Path(__file__).parents[2])
    assert code == 0, shown
    parts = [part.strip() for part in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown))]
    bars = [part for part in parts if re.search(r"\d+%\|", part)]
    assert bars and all(re.match(r"[a-z][\w ]*:? +\d+%\|", bar) for bar in bars), [b for b in bars if re.match(r"\d+%", b)]
    assert {"answers", "training"} <= {bar.partition(":")[0] for bar in bars}
    assert not [part for part in parts if NOISE.search(part)]
