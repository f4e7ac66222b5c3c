"""`medner score`: what a file of predictions lacks is said and counted apart, and never becomes a low score without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.files import write_jsonl
from data.readers.pubtator import write_pubtator
from data.readers.rows import render_rows
from data.schema import TASKS, Document, Mention, Relation
from pipeline.cli import main

DOCUMENTS = [
    Document(
        str(n), "Zol gave gout.", f"Case {n}",
        (Mention("Zol", "Chemical", 7, 10, ("C1",)), Mention("gout", "Disease", 16, 20, ("D1",))),
        (Relation("Zol", "gout", "C1", "D1"),),
    )
    for n in range(4)
]  # fmt: skip


@pytest.fixture
def gold(tmp_path) -> Path:
    write_pubtator(DOCUMENTS, tmp_path / "gold.txt")
    return tmp_path / "gold.txt"


def predicted(folder: Path, rows: list[dict]) -> Path:
    return write_jsonl(folder / "predictions.jsonl", rows)


def row(document: Document, task: str, **more) -> dict:
    return {"document": document.id, "task": task, "items": list(document.gold(task))} | more


def score(capsys, *arguments) -> dict:
    assert main(["score", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_answers_that_are_missing_are_an_error_with_a_way_out(gold, tmp_path, capsys):
    path = predicted(tmp_path, [row(DOCUMENTS[0], task) for task in TASKS])
    assert main(["score", str(gold), str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and "9 of 12 answers are missing, such as chemicals of document '1'" in err and "--allow-missing" in err


def test_allowed_they_are_counted_apart_and_said(gold, tmp_path, capsys):
    path = predicted(tmp_path, [row(DOCUMENTS[0], task) for task in TASKS])
    metrics = score(capsys, gold, path, "--allow-missing")
    assert metrics["missing"] == {"answers": 9, "of": 12, "examples": [["1", task] for task in TASKS] + [["2", "chemicals"],
        ["2", "diseases"]]}  # fmt: skip
    assert metrics["rates"]["missing"] == 0.75 and metrics["rates"]["empty"] == metrics["rates"]["wrongly_empty"] == 0
    assert metrics["tasks"]["chemicals"]["recall"] == 0.25
    assert main(["score", str(gold), str(path), "--allow-missing"]) == 0
    assert "MISSING: 9 of 12 answers are not in the file, and count as empty" in capsys.readouterr().out


def test_a_whole_file_lacks_nothing_and_keeps_its_statuses(gold, tmp_path, capsys):
    rows = [row(document, task) for document in DOCUMENTS for task in TASKS]
    rows[0] |= {"status": "malformed", "items": []}
    rows[1] |= {"status": "truncated"}
    rows[2] |= {"status": "empty", "items": []}
    metrics = score(capsys, gold, predicted(tmp_path, rows))
    assert metrics["missing"]["answers"] == 0 and "missing" not in metrics["rates"]
    assert [metrics["rates"][kind] for kind in ("malformed", "truncated", "wrongly_empty")] == [pytest.approx(1 / 12)] * 3
    assert main(["score", str(gold), str(predicted(tmp_path, [rows[0] | {"status": "fine"}]))]) == 2
    assert '"status" must be one of' in capsys.readouterr().err


@pytest.mark.parametrize(("kept", "lacking"), [("Chemical", "diseases"), ("Disease", "chemicals")])
def test_what_a_file_does_not_speak_of_is_not_scored_and_said(kept, lacking, gold, tmp_path, capsys):
    lines = [line for line in gold.read_text().splitlines() if "\t" not in line or line.split("\t")[4:5] == [kept]]
    (tmp_path / "partial.txt").write_text("\n".join(lines) + "\n")
    metrics = score(capsys, gold, tmp_path / "partial.txt")
    assert list(metrics["not_scored"]) == [lacking, "relations"] and len(metrics["tasks"]) == 1
    assert metrics["micro"]["f1"] == metrics["macro"]["f1"] == 1
    assert main(["score", str(gold), str(tmp_path / "partial.txt")]) == 0
    text = capsys.readouterr().out
    assert f"NOT SCORED: {lacking} are not scored, since the predictions file holds none; relations" in text
    assert not any(line.startswith(("relations", lacking)) for line in text.splitlines())
    everything = score(capsys, tmp_path / "partial.txt", gold)
    assert everything["not_scored"] == dict.fromkeys([lacking, "relations"], "the gold file holds none")


def test_an_answer_that_is_rightly_empty_is_no_fault(tmp_path, capsys):
    rows = [Document(f"none {n}", f"Nothing of the kind, {n}.") for n in range(3)]
    (tmp_path / "gold.jsonl").write_text(render_rows([*rows, *DOCUMENTS[:1]]))
    metrics = score(capsys, tmp_path / "gold.jsonl", tmp_path / "gold.jsonl")
    assert (metrics["rates"]["empty"], metrics["rates"]["wrongly_empty"]) == (0.75, 0)
    assert main(["score", *[str(tmp_path / "gold.jsonl")] * 2]) == 0
    assert "wrongly empty" in capsys.readouterr().out


def test_what_gold_does_not_ask_is_said(tmp_path, capsys):
    from dataclasses import replace

    (tmp_path / "gold.jsonl").write_text(render_rows([replace(DOCUMENTS[0], tasks=("chemicals",))]))
    (tmp_path / "all.jsonl").write_text(render_rows(DOCUMENTS[:1]))
    assert score(capsys, tmp_path / "gold.jsonl", tmp_path / "all.jsonl")["not_asked"] == 2


def test_the_official_rules_take_no_allowance(gold, capsys):
    assert main(["score", str(gold), str(gold), "--official", "--allow-missing"]) == 2
