"""What the audit finds in files that were made to hold it: leaks of each kind, conflicts, names that no reader can find."""

from __future__ import annotations

import json

import pytest
from articles import invent

from data.audit import audit_path, count_tokens, read_tokenizer, render_audit, summarise_lengths
from data.files import read_jsonl, write_jsonl
from data.readers.rows import document_rows
from data.schema import SPLITS, TASKS, Document, InputError, Mention, Relation
from data.split import row_level_split
from pipeline.cli import main

TEXT = "Zoltamine was given to nine cases and gout followed in all but one of them before tremor set in at last."


def document(name, text, chemicals=(), diseases=(), relations=(), title=None):
    mentions = [Mention(n, "Chemical") for n in chemicals] + [Mention(n, "Disease") for n in diseases]
    return Document(name, text, title, tuple(mentions), tuple(Relation(*pair) for pair in relations))


def write_split(folder, train, validation, test):
    for name, documents in zip(SPLITS, (train, validation, test), strict=True):
        write_jsonl(folder / f"{name}.jsonl", document_rows(documents))
    return folder


def audit(folder, train, test, validation=None):
    return audit_path(write_split(folder, train, validation or invent(2, seed=9), test), 42)


ZOL = document("z", TEXT, ["Zoltamine"], ["gout", "tremor"], [("Zoltamine", "gout")])


@pytest.mark.parametrize(
    ("twin", "leaking", "answers"),
    [
        (ZOL, True, (1, 2, 1)),
        (document("t", TEXT.upper(), ["ZOLTAMINE"], ["Gout."]), True, (1, 1, 0)),
        # a pair is known where both names are, in whatever answers
        (document("t", TEXT, relations=[("zoltamine", "Tremor"), ("Zoltamine", "cough")]), True, (0, 0, 1)),
        (document("t", TEXT.replace("nine", "six"), ["nothing known"]), True, (0, 0, 0)),
        (document("t", TEXT[:60], ["Zoltamine"], title="A title of its own"), True, (1, 0, 0)),
        (document("t", "\u00ad".join(TEXT), ["Zoltamine"]), True, (1, 0, 0)),
        (document("t", TEXT.replace("e", "-\n  e"), ["Zoltamine"]), True, (1, 0, 0)),
        # names and even pairs seen in train are no leak when the article is another
        (
            document("t", "Zoltamine and gout again, in other words.", ["Zoltamine"], ["gout"], [("Zoltamine", "gout")]),
            False,
            (),
        ),
    ],
)
def test_planted_leaks_are_found(tmp_path, capsys, twin, leaking, answers):
    found = audit(tmp_path, [*invent(3), ZOL], [*invent(2, seed=1), twin])["leaks"]
    assert found["leaking"] is leaking and found["articles"] == leaking
    assert found["answers"] == dict(zip(TASKS, answers or (0, 0, 0), strict=True))
    assert found["examples"] == ([f"z (train) ~ {twin.id} (test)"] if leaking else [])
    assert main(["data", "audit", str(tmp_path)]) == int(leaking)
    shown = capsys.readouterr().out
    assert ("LEAKS: 1 articles" if leaking else "no leak between splits") in shown
    assert not leaking or all(f"{found['answers'][task]} {task} (" in shown for task in TASKS)


def test_names_inside_a_relation_leak_and_are_shown(tmp_path, capsys):
    """A split by rows: one article's relations in train, its chemicals and diseases in test."""
    pair = document_rows([document("z", TEXT, relations=[("Zoltamine", "tremor")])])[2:]
    write_split(tmp_path, invent(3), invent(2, seed=9), [])
    write_jsonl(tmp_path / "train.jsonl", pair)
    write_jsonl(tmp_path / "test.jsonl", document_rows([ZOL])[:2])
    assert main(["data", "audit", str(tmp_path), "--json"]) == 1
    leaks = json.loads(capsys.readouterr().out)["leaks"]
    assert leaks["answers"] == {"chemicals": 1, "diseases": 1, "relations": 0}
    assert leaks["answer_shares"] == {"chemicals": 1.0, "diseases": 0.5, "relations": 0.0}
    assert main(["data", "audit", str(tmp_path)]) == 1
    assert "1 chemicals (100%), 1 diseases (50%), 0 relations (0%)" in capsys.readouterr().out


@pytest.mark.parametrize("places", [(0, 1), (1, 2), (0, 2)])
def test_a_leak_between_any_two_splits_counts(tmp_path, places):
    split = [invent(3, seed=n) for n in range(3)]
    for place in places:
        split[place].append(ZOL)
    leaks = audit_path(write_split(tmp_path, *split), 42)["leaks"]
    assert leaks["leaking"] and leaks["articles"] == 1


def test_near_duplicates_within_a_split_are_no_leak(tmp_path):
    found = audit(tmp_path, [*invent(3), ZOL, document("y", TEXT)], invent(2, seed=1))
    assert found["duplicates"]["near_duplicate_articles"] == 1 and not found["leaks"]["leaking"]


def test_a_single_file_never_fails_however_often_it_repeats_itself(tmp_path):
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, document_rows([ZOL, *invent(12)]) + document_rows([ZOL]))
    found = audit_path(file, 42)
    assert not found["given_split"] and not found["leaks"]["leaking"] and found["duplicates"]["rows"] == 3
    assert main(["data", "audit", str(file)]) == 0


def test_a_split_by_rows_is_shown_for_what_it_leaks(tmp_path):
    """Ten rows: one goes to test, one to validation; whichever it is, its article has two rows more."""
    documents = [document(str(n), d.text, ["lithium", "lead"], ["lithium"]) for n, d in enumerate(invent(3))]
    file = tmp_path / "rows.jsonl"
    rows = document_rows(documents)
    write_jsonl(file, [*rows, rows[0]])
    shown = [audit_path(file, seed)["row_level_split"] for seed in range(12)]
    assert all(one["test_rows"] == 1 and one["article_in_train"] == 1 for one in shown)
    chemicals = {one["answer_in_train_completion"]["chemicals"] for one in shown}
    # of a chemicals row's two answers, its diseases row in train holds one, its own repetition both
    assert chemicals <= {0.0, 0.5, 1.0} and 0.5 in chemicals


@pytest.mark.slow
def test_the_users_file_would_leak_if_split_by_rows(shared_data):
    shown = audit_path(shared_data / "both_rel_instruct_all.jsonl", 42)
    assert shown["row_level_split"]["test_rows"] == 300 and shown["row_level_split"]["article_in_train"] > 280
    leaking = shown["row_level_split"]["answer_in_train_completion"]
    assert all(0.15 < leaking[task] < 0.35 for task in ("chemicals", "diseases")) and 0.4 < leaking["relations"] < 0.7
    assert shown["letter_case_duplicates"]["answers"] > 400 and not shown["leaks"]["leaking"]
    assert shown["tasks"]["relations"]["items"] == 2049
    assert sum(task["empty"] for task in shown["tasks"].values()) == 6


@pytest.mark.slow
def test_a_split_of_the_users_file_by_rows_is_seen_to_leak(shared_data, tmp_path):
    rows = [row for _, row in read_jsonl(shared_data / "both_rel_instruct_all.jsonl")]
    for name in SPLITS:
        part = [row for row, place in zip(rows, row_level_split(len(rows), 42), strict=True) if place == name]
        write_jsonl(tmp_path / f"{name}.jsonl", part)
    leaks = audit_path(tmp_path, 42)["leaks"]
    assert all(0.15 < leaks["answer_shares"][task] < 0.35 for task in ("chemicals", "diseases"))
    assert 0.4 < leaks["answer_shares"]["relations"] < 0.7


def test_conflicts_empties_and_letter_case_are_counted(tmp_path):
    documents = [document("1", "One text.", ["ZOL", "zol", "Zol", "lead"], ["gout"]), *invent(9)]
    more = document_rows([document("1", "One text.", ["lead"], ["Gout"])])[:1]
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, document_rows(documents) + more)
    found = audit_path(file, 42)
    assert (found["documents"], found["rows"]) == (10, 31)
    assert found["conflicts"] == {"rows": 1, "examples": [f"{file}:31 chemicals"]}
    assert found["letter_case_duplicates"] == {"names": 2, "answers": 1}
    assert found["tasks"]["chemicals"] == {"answers": 10, "items": 4, "empty": 9}
    assert found["tasks"]["relations"] == {"answers": 10, "items": 0, "empty": 10}


def test_names_that_stand_nowhere_in_the_article_are_named(tmp_path):
    one = document(
        "1", "zol-tamine and gout", ["ZOL", "tamin", "lead"], ["Gout"], [("zol", "gout"), ("lead", "gout")], "A (title)"
    )
    two = document("2", "Aspirin™ after aspirins", ["aspirin", "title"])
    found = audit(tmp_path, [one, *invent(3)], [two])["not_in_text"]
    assert found["chemicals"]["examples"] == ["1: tamin", "1: lead", "2: title"]
    assert (found["chemicals"]["items"], found["chemicals"]["share"]) == (5, 3 / 5)
    assert found["diseases"] == {"items": 1, "missing": 0, "share": 0.0, "examples": []}
    assert found["relations"]["examples"] == ["1: lead | gout"] and found["relations"]["missing"] == 1


def test_seen_and_unseen_names_are_told_apart(tmp_path):
    train = [document("1", "One text.", ["Zoltamine", "lead"], ["gout"], [("lead", "gout")])]
    test = [document("2", "Quite another.", ["zoltamine,", "gout"], ["Gout", "tremor"], [("Lead", "gout"), ("lead", "tremor")])]
    seen = audit(tmp_path, train, test)["seen"]
    assert seen["chemicals"] == {"test_items": 2, "seen": 1, "unseen": 1, "seen_share": 0.5}  # gout was no chemical in train
    assert seen["diseases"]["seen"] == 1 and seen["relations"]["seen"] == 1


def test_tokens_are_counted_by_task_and_whole(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"-": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(5)  # a limit left in the file must not hide how long texts are
    path = tmp_path / "words" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    documents = [document("1", "a b c", ["a b", "c"]), document("2", " ".join("x" * 40))]
    around = 10 + 8 + 4  # the opening, the shortest request and the last line
    counted = count_tokens(documents, read_tokenizer(path), "words")
    assert counted["tokenizer"] == "words"
    assert counted["completion"] == {"median": 1, "p99": 1, "max": 5}
    assert counted["prompt"]["max"] > 40 + around and counted["prompt"]["median"] > 3 + around


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), ("{}", "not a tokenizer.json")])
def test_a_tokenizer_that_cannot_be_read_is_refused(content, said, tmp_path, capsys):
    path = tmp_path / "tokenizer.json"
    if content:
        path.write_text(content)
    write_split(tmp_path, *([document(name, f"Nothing of {name}.")] for name in ("train", "validation", "test")))
    assert main(["data", "audit", str(tmp_path), "--tokenizer", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and f"--tokenizer {path}: {said}" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], (0, 0, 0)), ([7], (7, 7, 7)), (range(101), (50, 99, 100)), ([3, 1, 2], (2, 2, 3))],
)
def test_describe(numbers, expected):
    assert tuple(summarise_lengths(numbers).values()) == expected


def test_a_folder_that_is_no_split_is_refused(tmp_path, capsys):
    write_jsonl(tmp_path / "train.jsonl", document_rows([ZOL]))
    with pytest.raises(InputError, match=r"missing validation\.jsonl"):
        audit_path(tmp_path, 42)
    assert main(["data", "audit", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_is_audited_by_its_data(tmp_path):
    write_split(tmp_path / "data", [ZOL], invent(1), [ZOL])
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    assert audit_path(tmp_path, 42)["leaks"]["leaking"]


def test_the_audit_is_json_and_a_table(tmp_path):
    found = audit(tmp_path, [ZOL, *invent(3)], invent(2, seed=1))
    assert json.loads(json.dumps(found)) == found
    text = render_audit(found)
    assert "8 articles, 24 rows; train 4/12, validation 2/6, test 2/6 articles/rows (given)" in text
    assert max(map(len, text.splitlines())) < 120
