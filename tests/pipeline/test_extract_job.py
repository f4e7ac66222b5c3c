"""`medner extract` as its users start it, with a real llama.cpp: how soon it answers, and that killing it loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from articles import invent
from tiny_gguf import make_tiny_gguf

MEDNER = (sys.executable, "-m", "pipeline.cli", "extract")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("model"))


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen([*MEDNER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_first_answer_takes_less_than_five_seconds_of_the_processor(gguf):
    before = os.times()
    job = start("--model", gguf, "Lithium caused tremor in two patients.", "--json")
    out, said = job.communicate()
    after = os.times()
    assert job.returncode == 0, said
    assert len(json.loads(out)["documents"]) == 1
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 5, "imports, loading and answering"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "pubtator"])
def test_a_job_that_is_killed_again_and_again_gives_the_same_bytes(gguf, tmp_path, ending):
    texts = tmp_path / "texts.jsonl"
    articles = invent(24, seed=5)
    again = articles[3].text  # a text that comes twice, the second time after it was done in another process
    rows = [{"id": str(number), "text": one.text} for number, one in enumerate(articles)] + [{"id": "again", "text": again}]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    whole = tmp_path / f"whole.{ending}"
    undisturbed = start("--model", gguf, texts, "--out", whole)
    said = undisturbed.communicate()[1]
    assert undisturbed.returncode == 0, said

    out = tmp_path / f"killed.{ending}"
    written = out if ending == "jsonl" else out.with_name(out.name + ".partial.jsonl")
    for wanted in (1, 18):
        job = start("--model", gguf, texts, "--out", out)
        while job.poll() is None and (written.read_bytes().count(b"\n") if written.exists() else 0) < wanted:
            time.sleep(0.01)
        assert job.poll() is None, "it ended before it could be killed"
        os.kill(job.pid, signal.SIGKILL)
        job.communicate()
        assert out.with_name(out.name + ".job.json").exists()
    last = start("--model", gguf, texts, "--out", out, "--json")
    facts, said = last.communicate()
    assert last.returncode == 0, said
    assert json.loads(facts)["documents"] == 25 and 18 <= json.loads(facts)["kept from before"] < 25
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "texts.jsonl", whole.name]
    if ending == "jsonl":
        ids = [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()]
        assert ids == [row["id"] for row in rows]
