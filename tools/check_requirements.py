"""Whether the GPU requirements can be installed: each file resolved for each Python; only metadata is downloaded.

    python -m tools.check_requirements            # make check-requirements

prints what torch, CUDA, Triton and xformers come together, and ends with 1 where pins contradict each other or a wheel is
missing, with 2 where the index cannot be reached.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("requirements.txt", "requirements-cuda12.txt")
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_31"  # what llguidance's wheel needs; Colab's and Kaggle's system is newer
SHOWN = ("torch", "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "triton", "xformers", "unsloth", "transformers")
UNREACHED = ("Could not connect", "Failed to fetch", "error sending request", "dns error", "timed out")


def resolve(file: str, python: str, index: str | None = None) -> subprocess.CompletedProcess[str]:
    """uv's resolution of one file: pins on standard output. `index`: the default one where None."""
    options = f"--quiet --no-header --no-annotate --only-binary :all: --python-version {python} --python-platform {PLATFORM}"
    command = [sys.executable, "-m", "uv", "pip", "compile", *options.split(), str(ROOT / file)]
    return subprocess.run(command + (["--default-index", index] if index else []), capture_output=True, text=True)


def describe(pins: str) -> str:
    versions = dict(line.split("==") for line in pins.splitlines() if "==" in line)
    return ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions)


def check(index: str | None = None, files: Sequence[str] = FILES, pythons: Sequence[str] = PYTHONS) -> int:
    """Resolve all, print a line each, and return the exit code."""
    pairs = list(product(files, pythons))
    with ThreadPoolExecutor(3) as pool:
        resolved = list(pool.map(lambda pair: resolve(*pair, index), pairs))
    for (file, python), one in zip(pairs, resolved, strict=True):
        if one.returncode and any(sign in one.stderr for sign in UNREACHED):
            print(f"{file}: not checked, the package index cannot be reached: {one.stderr.strip()}", file=sys.stderr)
            return 2
        said = describe(one.stdout) if one.returncode == 0 else f"CANNOT BE INSTALLED\n{one.stderr.strip()}"
        print(f"{file}, Python {python}: {said}")
    return int(any(one.returncode for one in resolved))


if __name__ == "__main__":
    sys.exit(check())
