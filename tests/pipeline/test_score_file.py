"""`medner score`: what a file of predictions lacks is said and counted apart, and never becomes a low score without a word."""

from __future__ import annotations

import json
import time
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
    assert f"NOT SCORED: {lacking} are not scored, since the predictions file has none; relations" in text
    assert not any(line.startswith(("relations", lacking)) for line in text.splitlines())
    everything = score(capsys, tmp_path / "partial.txt", gold)
    assert everything["not_scored"] == dict.fromkeys([lacking, "relations"], "the gold file has none")


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


def completion(document: Document, task: str, text: str) -> dict:
    return {"document": document.id, "task": task, "completion": text, "finish": "stop"}


def test_completions_are_read_both_ways_and_lists_are_not(gold, tmp_path, capsys):
    """A chat model that numbers its list has answered; strictly it has not, and both figures are given."""
    written = {"chemicals": "Here they are:\n1. **Zol**", "diseases": "- gout", "relations": "- Zol | gout"}
    path = predicted(tmp_path, [completion(d, task, text) for d in DOCUMENTS for task, text in written.items()])
    found = score(capsys, gold, path)["readings"]
    assert found["compared"] == "strict" and found["lenient"]["rates"]["repaired"] == pytest.approx(1 / 3)
    assert [found[name]["tasks"]["chemicals"]["f1"] for name in ("strict", "lenient")] == [0, 1]
    assert main(["score", str(gold), str(path)]) == 0
    shown = capsys.readouterr().out
    assert "Two readings of the answers" in shown and "in 33.3 % of answers" in " ".join(shown.split())
    assert "readings" not in score(capsys, gold, predicted(tmp_path, [row(d, task) for d in DOCUMENTS for task in TASKS]))


def test_both_readings_leave_out_what_is_not_scored_and_count_what_is_missing(gold, tmp_path, capsys):
    path = predicted(tmp_path, [completion(DOCUMENTS[0], "chemicals", "1. Zol")])
    found = score(capsys, gold, path, "--allow-missing")["readings"]
    for name, right in (("strict", 0), ("lenient", 1)):
        assert list(found[name]["tasks"]) == ["chemicals"] and found[name]["rates"]["missing"] == 0.75
        assert found[name]["tasks"]["chemicals"]["tp"] == right


# An untuned model's answers to "chemicals", as strict and lenient reading take them: items, or the fault.
WRITTEN = [
    ("- lithium\n- Li", ["lithium", "Li"], ["lithium", "Li"]),
    ("-", "empty", "empty"),
    ("**lithium**", "malformed", "malformed"),
    ("- **lithium**", "malformed", ["lithium"]),
    ("1. lithium\n2. `Li`", "malformed", ["lithium", "Li"]),
    ("* lithium", ["lithium"], ["lithium"]),
    ("Here they are:\n- lithium", "malformed", ["lithium"]),
    ("```\n- lithium\n```", "malformed", ["lithium"]),
    ("<think>Is it?</think>\n- lithium<|eot_id|>", "malformed", ["lithium"]),
    ("- lithium\nThat is all.", ["lithium"], ["lithium"]),
    ("- lithium\n-", ["lithium"], ["lithium"]),
    ("None", "malformed", "empty"),
    ("- None", "malformed", "empty"),
    ("N/A", "malformed", "empty"),
    ("[]", "malformed", "empty"),
    ('["lithium"]', "malformed", "malformed"),
    ("lithium, Li", "malformed", "malformed"),
    ("No chemicals mentioned.", "malformed", "empty"),
    ("The only chemical is lithium.", "malformed", "malformed"),
    ("| lithium | Li |", "malformed", "malformed"),
]


@pytest.mark.parametrize(("text", "strict", "lenient"), WRITTEN)
def test_an_answer_is_read_as_the_two_readings_are_documented(text, strict, lenient, tmp_path, capsys):
    """Gold is what the reading is to find, so that F1 of 1 shows that it found that, and nothing else."""
    for name, wanted in (("strict", strict), ("lenient", lenient)):
        names = wanted if isinstance(wanted, list) else []
        mentions = tuple(Mention(item, "Chemical") for item in names)
        document = Document("d", "Of lithium, Li for short.", None, mentions, (), ("chemicals",))
        (tmp_path / "gold.jsonl").write_text(render_rows([document]))
        row = json.loads((tmp_path / "gold.jsonl").read_text()) | {"document": None, "completion": text}
        found = score(capsys, tmp_path / "gold.jsonl", predicted(tmp_path, [row]))["readings"][name]
        chemicals, rates = found["tasks"]["chemicals"], found["rates"]
        assert (chemicals["tp"], chemicals["fp"], chemicals["fn"]) == (len(names), 0, 0)
        assert rates["malformed"] == (wanted == "malformed") or names
        assert rates["empty"] == (wanted == "empty")


def test_texts_that_once_took_time_in_the_cube_of_their_length_are_scored(gold, tmp_path, capsys):
    """At these lengths a cube, or a square, would not end within the hour."""
    long = 100_000
    texts = ["- chemical" + " " * long + "x", "- " + "(" * long + "a" + ")" * long, "- a" + "\u0323\u0301" * long, "\n" * long]
    rows = [completion(d, "relations", text) for d, text in zip(DOCUMENTS, texts, strict=True)]
    started = time.process_time()
    score(capsys, gold, predicted(tmp_path, rows), "--allow-missing")
    assert time.process_time() - started < 10
