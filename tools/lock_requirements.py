"""Writes requirements-cpu.lock: every package that requirements-cpu.txt brings, pinned, with the hashes of its files.

    python -m tools.lock_requirements             # make lock

torch is left out with what its CUDA build brings (Triton, NVIDIA's libraries): which of its files is the right one depends on
the machine, and CPU builds for Linux come from an index of their own. It is pinned in requirements-cpu.txt and installed first.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-cpu.lock"
OF_THE_MACHINE = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEAD = """\
# Written by `make lock` from requirements-cpu.txt, for Linux, macOS and Windows, Python 3.11 and later. torch comes first:
#   pip install torch==2.13.0 && pip install --require-hashes --no-deps -r requirements-cpu.lock
"""
COMMAND = (
    "uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url"
)


def resolve() -> str:
    """What uv pins, with hashes. Raises RuntimeError with its words where it cannot."""
    command = [sys.executable, "-m", *COMMAND.split(), str(ROOT / "requirements-cpu.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def keep_portable(pins: str) -> str:
    """The pins without torch and what only its CUDA build needs.

    >>> keep_portable("tqdm==4.0 \\\\\\n    --hash=sha256:aa\\ntorch==2.13.0 \\\\\\n    --hash=sha256:bb\\n")
    'tqdm==4.0 \\\\\\n    --hash=sha256:aa\\n'
    """
    blocks = re.findall(r"^\S.*\n(?:^ .*\n)*", pins, re.MULTILINE)
    return "".join(block for block in blocks if not OF_THE_MACHINE.match(block))


def main() -> int:
    try:
        pins = keep_portable(resolve())
    except RuntimeError as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    LOCK.write_text(HEAD + pins, encoding="utf-8")
    packages = sum("==" in line for line in pins.splitlines())
    print(f"{LOCK.name}: {packages} packages, {pins.count('--hash=')} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
