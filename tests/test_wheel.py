"""A wheel built from the tree holds all that a run needs: installed away from the checkout, it does the whole job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*command: object, where: Path, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    """In `where`, without what would let the checkout be found. Shows what was printed where it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], cwd=where, env=clean, capture_output=True, text=True)
    assert done.returncode in codes, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the tracked files alone: what lies about in a checkout must not be what makes it work."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    build = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        folder / "tree",
    )
    call(*build, where=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_package_and_its_files(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "data", "eval", "pipeline"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()} - held == set()
    assert not any(name.startswith(("tests/", "bench/", "tools/")) for name in held)


@pytest.mark.slow
def test_an_installed_wheel_does_the_whole_job_away_from_the_checkout(wheel, tmp_path):
    """In an environment of its own; the packages it depends on are lent by this one, so that nothing is downloaded."""
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", where=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", where=tmp_path).stdout.strip())
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, where=tmp_path
    )
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its .pth files are not read, so no checkout either
    found = call(python, "-c", "import data, eval, pipeline; print(pipeline.__file__)", where=tmp_path).stdout
    assert Path(found.strip()).is_relative_to(own)
    rows = (own / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(rows[:180]), encoding="utf-8")
    settings = ["train.max_steps=2", "train.report_to=none", "export.gguf=f16", "eval.max_new_tokens=4"]
    settings += ["eval.base_model=false", "lora.r=4"]
    job = ("run", "--preset", "tiny", "--data", corpus, "--out", "runs/one", "--json", "--set", *settings)
    # 1: of six validation articles the parity check can tell nothing, and does not pass what it cannot show
    done = call(tmp_path / "venv" / "bin" / "medner", *job, where=tmp_path, codes=(0, 1))
    assert json.loads(done.stdout)["stages"].keys() >= {"evaluate", "export", "card"}
    assert json.loads(done.stdout)["metrics"]["test"]["documents"] > 0
    run = tmp_path / "runs" / "one"
    for name in ("adapter/medner.json", "eval/test/report.html", "README.md"):
        assert (run / name).stat().st_size > 0
    assert list((run / "export").glob("*.gguf"))
