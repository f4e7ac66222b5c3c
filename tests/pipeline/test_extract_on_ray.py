"""Extraction by Ray Data, with real workers: killed as a job and killed as a worker, it ends with the plain command's rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_gguf import make_tiny_gguf

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
TINY = ROOT / "pipeline" / "tiny"
BLOCKS = 8  # of eight texts


@pytest.fixture
def texts(tmp_path) -> Path:
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    articles = dict.fromkeys(json.loads(line)["prompt"].split("\n\n")[1] for line in lines[: 3 * 8 * BLOCKS])
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"é{i}", "text": text}) + "\n" for i, text in enumerate(articles)))
    return path


def start(texts: Path, model: Path, out: Path) -> subprocess.Popen:
    command = ["extract", texts, "--model", model, "--out", out, "--ray", "--ray-workers", "2"]
    command = [sys.executable, "-m", "pipeline.cli", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(seen, job: subprocess.Popen):
    """What `seen` gives once it gives anything."""
    while not (found := seen()):
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    return found


def worker_of(job: subprocess.Popen) -> psutil.Process | None:
    """A process that holds a model and is at work."""
    for process in psutil.Process(job.pid).children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::MapWorker(MapBatches(Worker)).submit"):
                return process
        except (psutil.NoSuchProcess, IndexError):
            continue
    return None


def without_confidence(path: Path) -> tuple[list, list[float]]:
    """The rows, and their confidences: those differ a little where other chats are answered beside."""
    rows, sure = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()], []
    for row in rows:
        sure += [item.pop("confidence") for item in row["entities"] + row["relations"]]
    return rows, sure


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_job_goes_on_and_a_killed_workers_texts_are_read_again(texts, tmp_path_factory, tmp_path):
    model = make_tiny_gguf(tmp_path_factory.mktemp("model"))  # a worker opens it without importing torch
    out = tmp_path / "found.jsonl"
    done = tmp_path / "found.jsonl.ray" / "done"

    def written() -> set[Path]:
        return {path for path in done.glob("*.parquet") if ".pending" not in path.name}

    job = start(texts, model, out)
    wait_for(lambda: len(written()) >= 2, job)
    others = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    for process in psutil.wait_procs(others, timeout=3)[1]:  # two of Ray's own do not see that it ended
        process.kill()
    before = written()
    assert 2 <= len(before) < BLOCKS and not out.exists()

    again = start(texts, model, out)
    wait_for(lambda: len(written()) > len(before), again)
    worker = wait_for(lambda: worker_of(again), again)
    worker.kill()
    said, errors = again.communicate()
    assert again.returncode == 0, errors
    assert not worker.is_running() and f"{8 * len(before)} kept from before" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.jsonl", "texts.jsonl"]
    assert main(["extract", str(texts), "--model", str(model), "--out", str(tmp_path / "plain.jsonl")]) == 0
    rows, sure = without_confidence(out)
    expected, expected_sure = without_confidence(tmp_path / "plain.jsonl")
    assert len(rows) == 8 * BLOCKS and any(row["entities"] for row in rows)
    assert rows == expected and sure == pytest.approx(expected_sure, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray"], "--ray: give --out"),
        (["--ray-workers", "2", "--out", "x.jsonl"], "--ray-workers: only with --ray"),
        (["--ray", "127.0.0.1:9", "--out", "x.jsonl", "--layout", "separate"], "--ray 127.0.0.1:9: no cluster answers there"),
        (["--ray", "--out", "x.jsonl", "--window", "10"], "longer than its overlap"),
        (["--ray", "--out", "x.jsonl", "--like", "nowhere"], "--like nowhere: no such file"),
    ],
)
def test_wrong_arguments_are_told_before_a_worker_is_started(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["extract", "Lithium helped.", "--model", str(TINY), *arguments]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
