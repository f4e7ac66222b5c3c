"""The lock says what requirements-cpu.txt says, with hashes, and names no index."""

from __future__ import annotations

import re

from tools.lock_requirements import COMMAND, LOCK, ROOT, keep_portable


def pins_of(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_every_requirement_is_locked_at_its_version_and_has_hashes():
    lock = LOCK.read_text(encoding="utf-8")
    wanted = pins_of((ROOT / "requirements-libraries.txt").read_text(encoding="utf-8"))
    assert len(wanted) > 15 and wanted.items() <= pins_of(lock).items(), "run make lock"
    blocks = re.findall(r"^[\w.-]+==.*\n(?:^    .*\n)*", lock, re.MULTILINE)
    assert len(blocks) == sum("==" in line and not line.startswith("#") for line in lock.splitlines())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_it_names_no_index_and_leaves_out_what_depends_on_the_machine():
    lock = LOCK.read_text(encoding="utf-8")
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
    assert not {name for name in pins_of(lock) if name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-"))}
    torch = pins_of((ROOT / "requirements-cpu.txt").read_text(encoding="utf-8"))["torch"]
    assert f"pip install torch=={torch} " in lock
    assert keep_portable("torch==1 \\\n    --hash=sha256:a\n") == "" and "--generate-hashes" in COMMAND
