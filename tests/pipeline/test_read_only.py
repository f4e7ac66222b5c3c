"""Folders and files that may not be written or read. Permissions bind: a root's process gives up what overrides them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixed_run import make_run

CORPUS = Path(__file__).parents[1] / "files" / "invented.rows.jsonl"
BOUNDING_SET_DROP, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, linux/capability.h
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


def obey_permissions() -> None:
    """In a child before exec: a root without these capabilities may do with its files what their mode says."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if any(prctl(BOUNDING_SET_DROP, capability, 0, 0, 0) for capability in (DAC_OVERRIDE, DAC_READ_SEARCH)):
            raise OSError(ctypes.get_errno(), "capabilities cannot be given up here")


def medner(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=obey_permissions)


def test_permissions_bind_here(tmp_path):
    """Else the others would show nothing."""
    tmp_path.chmod(0o555)
    write = [sys.executable, "-c", f"open({str(tmp_path / 'x')!r}, 'w')"]
    done = subprocess.run(write, capture_output=True, text=True, preexec_fn=obey_permissions)
    tmp_path.chmod(0o755)
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["train --preset tiny --data {corpus} --out {place}", "data convert {corpus} {place} --to instruct",
     "extract text --model {corpus} --out {place}.jsonl"],
)  # fmt: skip
def test_a_read_only_folder_is_told_in_a_line(tmp_path, command):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    done = medner(*command.format(corpus=CORPUS, place=folder / "x").split())
    assert done.returncode == 2 and not done.stdout and not list(folder.iterdir())
    assert f": {folder / 'x'}" in done.stderr and "Permission denied" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_may_not_be_read_is_told_in_a_line(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(CORPUS.read_bytes())
    secret.chmod(0)
    done = medner("data", "audit", secret)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"medner data audit: {secret}: cannot be read: Permission denied\n"


@pytest.mark.slow
def test_a_run_in_a_read_only_folder_is_left_as_it_was(tmp_path):
    run = make_run(tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = medner("evaluate", run)
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 2 and str(run) in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert {path: path.read_bytes() for path in Path(run).rglob("*") if path.is_file()} == before
