"""`medner evaluate --model X --data FILE` through the command: every kind of model, scored as a run's own is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixed_run import make_run
from llama_server import serve

from data.readers.rows import document_rows
from data.schema import TASKS
from data.split import read_split_folder
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.merge import merge_adapter

ASKED = ["--layout", "conversation", "--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def foreign(run, tmp_path_factory) -> Path:
    """The same adapter as another program would have saved it: nothing says how it is asked."""
    folder = shutil.copytree(run / "adapter", tmp_path_factory.mktemp("foreign") / "adapter")
    (folder / "medner.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) | {"base_model_name_or_path": str(TINY)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def merged(run, tmp_path_factory) -> Path:
    return merge_adapter(TINY, run / "adapter", tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture(scope="module")
def gguf(merged, tmp_path_factory) -> Path:
    return convert_to_gguf(merged, tmp_path_factory.mktemp("gguf") / "model.gguf", "f16", {})


def test_of(run: Path) -> str:
    return str(run / "data" / "test.jsonl")


test_of.__test__ = False


def figures(capsys, *flags: object) -> dict:
    """The command's JSON object."""
    capsys.readouterr()
    code = main(["evaluate", *map(str, flags), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def counts(metrics: dict) -> dict:
    return {task: [metrics["tasks"][task][key] for key in ("tp", "fp", "fn", "support")] for task in TASKS}


@pytest.mark.slow
def test_an_adapter_scores_as_its_run_does_and_without_train_claims_nothing_about_it(run, foreign, capsys):
    own = figures(capsys, run)
    alone = figures(capsys, "--model", run / "adapter", "--data", test_of(run))
    other = figures(capsys, "--model", foreign, "--data", test_of(run), *ASKED)
    assert counts(alone) == counts(other) == counts(own) and sum(counts(own)["chemicals"]) > 0
    assert alone["baselines"] == {} and alone["slices"]["chemicals"]["string"] is None
    assert alone["readings"]["compared"] == "strict" and other["readings"]["compared"] == "lenient"


@pytest.mark.slow
def test_a_run_brings_what_it_learnt_from_and_a_file_can(run, foreign, capsys):
    learnt = figures(capsys, "--model", run, "--data", test_of(run))
    given = figures(capsys, "--model", foreign, "--data", test_of(run), "--train", run / "data" / "train.jsonl", *ASKED)
    assert {"dictionary", "crf"} <= learnt["baselines"].keys() and learnt["baselines"] == given["baselines"]


def test_a_folder_keeps_report_and_answers_which_are_not_asked_again(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    first = figures(capsys, "--model", run / "adapter", "--data", test_of(run), "--out", out)
    assert {"report.html", "metrics.json", "predictions.jsonl", "predictions.PubTator"} <= {p.name for p in out.iterdir()}
    monkeypatch.setattr("pipeline.evaluate_model.open_answering", lambda *_: pytest.fail("the model was opened"))
    assert figures(capsys, "--model", run / "adapter", "--data", test_of(run), "--out", out) == first
    assert main(["evaluate", "--model", str(run / "adapter"), "--data", test_of(run), "--out", str(out), "--grounded"]) == 2
    assert "another variant: grounded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_merged_model_a_gguf_and_a_server_answer_alike(run, merged, gguf, capsys):
    own = counts(figures(capsys, run))
    assert counts(figures(capsys, "--model", merged, "--data", test_of(run), *ASKED)) == own
    by_gguf = figures(capsys, "--model", gguf, "--data", test_of(run), *ASKED)
    with serve(gguf) as client:
        by_server = figures(capsys, "--model", str(client.base_url), "--data", test_of(run), "--like", run)
    assert counts(by_gguf) == counts(by_server)


def test_articles_that_were_learnt_from_are_told(run, capsys):
    path = run / "data" / "train.jsonl"
    assert main(["evaluate", "--model", str(run / "adapter"), "--data", str(path), "--train", str(path)]) == 0
    documents = read_split_folder(run / "data")["train"]
    assert f"WARNING: {len(documents)} of {len(documents)} articles stand in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give a run's folder, or --model and --data"),
        (["--data", "x.jsonl"], "give --model, and no run"),
        (["RUN", "--data", "x.jsonl", "--model", "x"], "give --model, and no run"),
        (["RUN", "--train", "x.jsonl"], "--train: only with --data"),
        (["--model", "x", "--data", "x.jsonl", "--cases"], "--cases: only for a run"),
        (["--model", "ADAPTER", "--data", "none.jsonl"], "none.jsonl: no such file"),
        (["--model", "./none", "--data", "TEST"], "--model ./none: no such file or folder"),
        (["--model", "FOREIGN", "--data", "TEST"], "give --layout"),
        (["--model", "http://127.0.0.1:9", "--data", "TEST"], "give --like or --layout"),
        (["--model", "http://127.0.0.1:9", "--data", "TEST", *ASKED], "cannot be reached"),
    ],
)
def test_what_does_not_go_together_is_refused(run, foreign, capsys, flags, said):
    names = {"RUN": run, "ADAPTER": run / "adapter", "FOREIGN": foreign, "TEST": test_of(run)}
    assert main(["evaluate", *(str(names.get(flag, flag)) for flag in flags)]) == 2
    out, err = capsys.readouterr()
    assert said in err and not out


def test_rows_without_a_task_are_scored_on_what_they_have(run, tmp_path, capsys):
    rows = [row for row in document_rows(read_split_folder(run / "data")["test"]) if row["task"] == "chemicals"]
    path = tmp_path / "chemicals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    metrics = figures(capsys, "--model", run / "adapter", "--data", path)
    assert metrics["tasks"]["chemicals"]["support"] > 0 and set(metrics["tasks"]) == {"chemicals"}
