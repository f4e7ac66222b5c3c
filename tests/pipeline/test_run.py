"""The whole job on the embedded model and a dozen invented articles: its files, its figures, and every way to go on with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from articles import invent

from data.files import read_jsonl, write_json, write_jsonl
from data.readers.rows import document_rows
from data.schema import SPLITS, TASKS, Document, Mention, Relation
from data.split import read_split_folder
from eval.scoring.parse import parse_completions, read_predictions
from eval.scoring.score import score_predictions
from pipeline import run as job
from pipeline.cli import main
from pipeline.config import resolve_explicit
from pipeline.run_folder import read_run

pytestmark = pytest.mark.slow

SETTINGS = [
    "train.max_steps=2", "train.evaluations=2", "train.effective_batch_size=4", "train.report_to=none",
    "eval.max_new_tokens=6", "eval.batch_tokens=1", "export.gguf=",
]  # fmt: skip
FIGURES = {"precision", "recall", "f1", "tp", "fp", "fn", "support", "ci95", "exact_match"}


def with_gold(document: Document) -> Document:
    chemical, disease, *_ = document.text.split()
    mentions = (Mention(chemical, "Chemical"), Mention(disease, "Disease"))
    return Document(document.id, document.text, None, mentions, (Relation(chemical, disease),))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    documents = [with_gold(document) for document in invent(14)]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", document_rows(documents))


def command(corpus, out, *more):
    return ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(out), "--set", *SETTINGS, *more]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(corpus, out)) == 0
    return out


def rows_of(path):
    return [row for _, row in read_jsonl(path)]


def outcome(run):
    """All that a run is for, without the times that it took."""
    files = sorted(path for path in run.glob("eval/**/*.json*"))
    return {str(path.relative_to(run)): path.read_text(encoding="utf-8") for path in files} | {
        "weights": (run / "adapter" / "adapter_model.safetensors").read_bytes()
    }


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_training_alone_is_no_failure_where_an_export_of_the_run_had_failed(whole, corpus, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "run")
    manifest = read_json(out / "manifest.json")
    manifest["stages"]["export"] = {"seconds": 1.0, "parity": {"x.gguf": {"verdict": "failed", "passed": False}}}
    write_json(out / "manifest.json", manifest)
    assert main(["train", *command(corpus, out)[1:]]) == 0
    assert main(command(corpus, out)) == 1
    capsys.readouterr()


def test_the_folder_holds_what_the_design_says(whole, corpus):
    manifest = read_json(whole / "manifest.json")
    assert list(manifest["stages"]) == list(job.STAGES)
    assert {"versions", "git_commit", "seed", "data_sha256", "device"} <= manifest.keys()
    assert manifest["stages"]["train"]["steps"] == 2 and len(manifest["stages"]["train"]["losses"]) >= 2
    assert (whole / "config.yaml").exists() and (whole / "README.md").exists() and read_json(whole / "data" / "audit.json")
    split = read_split_folder(whole / "data")
    assert {name: len(split[name]) for name in SPLITS} == {"train": 12, "validation": 1, "test": 1}
    for name in SPLITS:
        rows = rows_of(whole / "data" / f"{name}.jsonl")
        assert len(rows) == 3 * len(split[name]) and all(r.keys() == {"prompt", "completion", "document", "task"} for r in rows)
    medner = read_json(whole / "adapter" / "medner.json")
    assert {"layout", "system_prompt", "date", "base_model"} <= medner.keys() and medner["layout"] == "conversation"


@pytest.mark.parametrize("folder", ["validation", "test", "test/base"])
def test_every_evaluation_holds_its_answers_and_figures(whole, folder):
    documents = read_split_folder(whole / "data")[folder.partition("/")[0]]
    completions = rows_of(whole / "eval" / folder / "completions.jsonl")
    assert sorted((r["document"], r["task"]) for r in completions) == sorted((d.id, task) for d in documents for task in TASKS)
    assert all(r.keys() - {"logprobs"} == {"document", "task", "completion", "finish"} for r in completions)
    assert {r["finish"] for r in completions} <= {"stop", "length"}
    predictions = rows_of(whole / "eval" / folder / "predictions.jsonl")
    assert all(r.keys() == {"document", "task", "items", "status"} for r in predictions)
    assert read_predictions(whole / "eval" / folder / "predictions.jsonl") == parse_completions(completions)
    metrics = read_json(whole / "eval" / folder / "metrics.json")
    assert {"tasks", "micro", "macro", "rates", "baselines", "documents"} <= metrics.keys()
    assert all(metrics["tasks"][task].keys() >= FIGURES for task in TASKS)
    assert metrics["rates"].keys() >= {"malformed", "truncated", "empty", "duplicate", "ungrounded"}
    assert {"dictionary", "cooccurrence"} <= metrics["baselines"].keys()
    assert ("base_model" in metrics["baselines"]) is (folder == "test")
    again = json.loads(json.dumps(score_predictions(documents, parse_completions(completions))))
    assert {key: metrics[key] for key in ("tasks", "micro", "documents")} == {
        key: again[key] for key in ("tasks", "micro", "documents")
    }


def test_the_same_command_again_does_nothing(whole, corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main([*command(corpus, whole), "--json"]) == 0
    out, err = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    summary = json.loads(out)
    assert summary["run"] == str(whole) and summary["metrics"].keys() == {"validation", "test"} and "done in" not in err


def test_a_run_interrupted_at_the_end_of_every_stage_is_the_run_that_was_not(whole, corpus, tmp_path, monkeypatch):
    """The worst moment: a stage has written all of its files, and is not yet recorded."""
    out, stages = tmp_path / "run", dict(job.STAGES)
    explicit = resolve_explicit("tiny", None, SETTINGS) | {"data.file": str(corpus)}
    for name, work in stages.items():

        def work_and_stop(run, work=work):
            work(run)
            raise KeyboardInterrupt

        monkeypatch.setitem(job.STAGES, name, work_and_stop)
        with pytest.raises(KeyboardInterrupt):
            job.run_job(out, explicit)
        assert name not in read_run(out).manifest["stages"]
        monkeypatch.setitem(job.STAGES, name, work)
    assert main(command(corpus, out)) == 0
    assert list(read_run(out).manifest["stages"]) == list(stages)
    assert outcome(out) == outcome(whole)


def test_an_interruption_is_one_line(corpus, tmp_path, monkeypatch, capsys):
    def stop(run):
        raise KeyboardInterrupt

    monkeypatch.setitem(job.STAGES, "data", stop)
    assert main(command(corpus, tmp_path / "run")) == 1
    err = capsys.readouterr().err
    assert err == "medner run: interrupted in stage data; kept: nothing yet. The same command goes on from there\n"


def kill_when(arguments, ready):
    """Start the command in a process of its own and kill it, without warning, once `ready()`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
    )
    while not ready() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"


def test_a_killed_process_is_gone_on_with(whole, corpus, tmp_path):
    out = tmp_path / "run"
    base, checkpoints = out / "eval" / "test" / "base" / "completions.jsonl", out / "checkpoints"
    kill_when(command(corpus, out), lambda: base.exists())
    assert "evaluate_base" not in read_run(out).manifest["stages"]
    kill_when(command(corpus, out), lambda: (checkpoints / "checkpoint-1").exists())
    assert "train" not in read_run(out).manifest["stages"]
    assert main(command(corpus, out)) == 0
    assert outcome(out) == outcome(whole)


def test_fresh_starts_over_with_other_settings(corpus, tmp_path, capsys):
    out = tmp_path / "run"
    job.run_job(out, resolve_explicit("tiny", None, SETTINGS) | {"data.file": str(corpus)}, until="data")
    other = command(corpus, out, "eval.base_model=false", "train.max_steps=1", "eval.splits=test", "data.seed=7")
    assert main(other) == 2
    assert "--fresh" in capsys.readouterr().err
    assert main([*other, "--fresh", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["stages"]["train"]["steps"] == 1 and "skipped" in summary["stages"]["evaluate_base"]
    assert summary["metrics"].keys() == {"test"} and "base_model" not in summary["metrics"]["test"]["baselines"]
