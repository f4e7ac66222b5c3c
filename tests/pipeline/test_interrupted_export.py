"""A disk that fills up and a process that is killed: no half file under a final name, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from tiny_llama import save_adapter, save_base

MERGE = "from pipeline.export.merge import merge_adapter as do; do(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
CONVERT = "from pipeline.export.gguf import convert_to_gguf as do; do(Path(sys.argv[1]), Path(sys.argv[3]), 'q8_0', {})"
SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)); "
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Large enough, at 170 MB, that merging and converting take long enough to be killed."""
    return save_base(tmp_path_factory.mktemp("base"), layers=6, width=1024)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("adapter"))


def start(code: str, base: Path, adapter: Path, out: Path, before: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; {before}{code}", base, adapter, out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("code", "name"), [(MERGE, "merged"), (CONVERT, "model.q8_0.gguf")])
def test_killed_then_run_again(code, name, base, adapter, tmp_path):
    out, partial = tmp_path / name, tmp_path / f".{name}.partial"
    process = start(code, base, adapter, out)
    while not partial.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists(), "killed too late, or a half file stands under its final name"
    assert partial.exists()
    again = start(code, base, adapter, out)
    assert again.communicate()[1] == ""
    assert out.exists()
    assert not partial.exists()
    if name == "merged":
        with safe_open(out / "model.safetensors", framework="pt") as weights:
            assert len(weights.keys()) > 50


@pytest.mark.parametrize(("code", "name"), [(MERGE, "merged"), (CONVERT, "model.q8_0.gguf")])
def test_a_write_that_fails_leaves_nothing(code, name, base, adapter, tmp_path):
    process = start(code, base, adapter, tmp_path / name, before=SMALL_FILES)
    errors = process.communicate()[1]
    assert process.returncode == 1
    assert "InputError: The disk is full" in errors
    assert "run the same command again" in errors
    assert list(tmp_path.iterdir()) == []
