"""Unsloth's CUDA path, run on a processor: `make test-unsloth`, in an environment of its own.

MEDNER_PRETEND_GPU names the compute capability of the card that this process pretends to have. Without it nothing here is
collected: the other tests need a process that Unsloth has not changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAPABILITY = os.environ.get("MEDNER_PRETEND_GPU")
ROOT = Path(__file__).parents[2]
if CAPABILITY:
    from pretended_gpu import pretend

    pretend(CAPABILITY)
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def reference(tmp_path_factory) -> Path:
    """The folder that `two_layer_job.py` writes, by plain transformers and PEFT."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "tests/support/two_layer_job.py", folder]
    script = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    from pipeline.model import prepare_engine

    assert prepare_engine(tmp_path_factory.mktemp("cache")) == "unsloth"
    assert script.wait(300) == 0
    return folder


@pytest.fixture(scope="session")
def tokenizer(reference):
    from pipeline.model import load_tokenizer

    return load_tokenizer(reference / "base")


@pytest.fixture(scope="session")
def dtype() -> str:
    return "float16" if CAPABILITY == "7.5" else "bfloat16"
