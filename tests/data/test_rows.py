"""The user's rows as documents, and back: joined by article whatever the letter case, refused with their place when wrong."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import detect_format, read_corpus
from data.files import write_text
from data.prompts import ASKED, render_answer, render_prompt
from data.readers.rows import (
    Row,
    conflicting_rows,
    document_rows,
    join_rows,
    parse_prompt,
    parse_row,
    read_rows,
    render_rows,
    repeated_rows,
)
from data.schema import TASKS, Document, InputError, Mention, Relation, document_from_json, document_to_json

ARTICLE = "Zoltamine and gout.\nGout followed ZOL in two cases."


def row(task="chemicals", items=("ZOL",), article=ARTICLE, **more):
    return {"prompt": render_prompt(article, task) + "\n", "completion": render_answer(items)} | more


def write(folder, *rows):
    return write_text(folder / "rows.jsonl", "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows))


def read(folder, *rows):
    return join_rows(read_rows(write(folder, *rows)))


def test_rows_of_one_article_are_one_document(tmp_path):
    rows = [
        row("relations", [("ZOL", "gout"), ("ZOL", "Gout")]),
        row("chemicals", ["x"], "Another article."),
        row("diseases", ["gout", "Gout"]),
        row("chemicals", ["Zoltamine", "ZOL"]),
    ]
    first, second = read(tmp_path, *rows)
    assert (first.title, first.text) == ("Zoltamine and gout.", "Gout followed ZOL in two cases.")
    assert first.tasks == TASKS
    assert first.gold("chemicals") == ("Zoltamine", "ZOL")
    assert first.gold("diseases") == ("gout", "Gout")
    assert first.gold("relations") == (("ZOL", "gout"), ("ZOL", "Gout"))
    assert (second.title, second.text, second.tasks) == (None, "Another article.", ("chemicals",))
    assert re.fullmatch("[0-9a-f]{12}", first.id) and first.id != second.id


def test_rows_that_lost_their_letter_case_join_the_article_that_kept_it(tmp_path):
    lower = {"prompt": row("diseases")["prompt"].lower(), "completion": "- gout"}
    for rows in ([row(), lower], [lower, row()]):
        (document,) = read(tmp_path, *rows)
        assert document.article == ARTICLE
        assert document.gold("chemicals") == ("ZOL",) and document.gold("diseases") == ("gout",)


def test_an_id_does_not_hang_on_letter_case_or_order(tmp_path):
    ids = [[d.id for d in read(tmp_path, *rows)] for rows in ([row()], [row(article=ARTICLE.upper())], [row("relations", [])])]
    assert ids == [ids[0]] * 3


def test_what_repeats_is_counted_once(tmp_path):
    path = write(tmp_path, row(), row(), row("diseases", ["gout"]))
    rows = read_rows(path)
    assert repeated_rows(rows) == 1 and conflicting_rows(rows) == []
    assert join_rows(rows)[0].gold("chemicals") == ("ZOL",)


def test_answers_that_disagree_give_their_union_and_are_counted(tmp_path):
    path = write(tmp_path, row(items=["ZOL", "a"]), row(items=["b", "ZOL"]), row(items=["a", "ZOL"]), row("diseases", []))
    rows = read_rows(path)
    assert join_rows(rows)[0].gold("chemicals") == ("ZOL", "a", "b")
    assert conflicting_rows(rows) == [(f"{path}:2", "chemicals")]
    assert repeated_rows(rows) == 0


def test_documents_that_are_named_keep_their_names(tmp_path):
    documents = read(
        tmp_path, row(document="7"), row("diseases", ["gout"], document="7"), row(article="Another.", document="8")
    )
    assert [(d.id, d.tasks) for d in documents] == [("7", ("chemicals", "diseases")), ("8", ("chemicals",))]


@pytest.mark.parametrize(
    ("completion", "task", "expected"),
    [
        ("- a\n- b", "chemicals", ("a", "b")),
        ("- a | b", "relations", (("a", "b"),)),
        ("- Chemical a influences disease b", "relations", (("a", "b"),)),
        ("- chemical a influences disease b\n- c | d", "relations", (("a", "b"), ("c", "d"))),
        ("- ", "diseases", ()),
        ("-", "relations", ()),
        ("", "chemicals", ()),
        ("- a\r\n- b\r\n", "chemicals", ("a", "b")),
    ],
)
def test_answers_of_rows(tmp_path, completion, task, expected):
    (document,) = read(tmp_path, {"prompt": render_prompt(ARTICLE, task), "completion": completion})
    assert document.gold(task) == expected and document.tasks == (task,)


@pytest.mark.parametrize(
    ("asked", "task"),
    [("chemicals", "chemicals"), ("Diseases", "diseases"), ("INFLUENCES", "relations"), ("relations", "relations")],
)
def test_prompts_in_any_letter_case_and_instruction(tmp_path, asked, task):
    prompt = f"Whatever\nis asked.\n\nAn article.\n\nwith a blank line\n\nLIST of extracted {asked} :  \n"
    (document,) = read(tmp_path, {"prompt": prompt.replace("\n", "\r\n"), "completion": ""})
    assert (document.article, document.tasks) == ("An article.\n\nwith a blank line", (task,))


@pytest.mark.parametrize("foreign", ["a\n\n" * 20_000, "\n\n" * 20_000 + "x", ("list of extracted \n\n" * 5_000) + "x:"])
def test_a_foreign_prompt_is_refused_in_time_that_grows_with_its_length(foreign):
    began = time.process_time()
    with pytest.raises(InputError, match="unknown prompt"):
        parse_prompt(foreign, "here")
    assert time.process_time() - began < 1


GOOD = json.dumps(row())


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (f"{GOOD}\n{GOOD[:-1]}\n", ":2", "broken JSON at column"),
        (f"\n\n{GOOD}\nnot JSON\n", ":4", "broken JSON at column 1"),
        (f"{GOOD}\n[1]\n", ":2", "expected a JSON object, got list"),
        ('{"completion": "- a"}\n', ":1", 'missing key "prompt"'),
        (f'{GOOD}\n{{"prompt": "x"}}\n', ":2", 'missing key "completion"'),
        (json.dumps(row() | {"completion": ["a"]}), ":1", '"completion" must be a string, got list'),
        (json.dumps(row() | {"prompt": None}), ":1", '"prompt" must be a string, got NoneType'),
        (json.dumps(row() | {"document": 7}), ":1", '"document" must be a string, got int'),
        (json.dumps({"prompt": "What is this?", "completion": "-"}), ":1", "unknown prompt, ends in 'What is this?'"),
        (json.dumps(row() | {"prompt": row()["prompt"].replace("chemicals:", "genes:")}), ":1", "unknown prompt"),
        (json.dumps(row(article=" ")), ":1", "unknown prompt"),
        (json.dumps(row() | {"completion": "None."}), ":1", "not a list line: 'None.'"),
        (json.dumps(row() | {"completion": "- a | b"}), ":1", "not a list line: '- a | b'"),
        (json.dumps(row("relations", []) | {"completion": "- a | b | c"}), ":1", "not a list line"),
        (json.dumps(row() | {"completion": "- a\u2028b"}), ":1", "may not contain a line break"),
        (json.dumps(row() | {"completion": "- a\x0bb"}), ":1", "may not contain a line break"),
        (json.dumps(row(article="half a pair \ud800")), ":1", "half of a surrogate pair"),
        (f"{GOOD}\n".encode() + b'{"prompt": "caf\xe9"}\n', ":2", "not UTF-8 (byte 0xe9)"),
        (GOOD.encode("utf-16"), ":1", "not UTF-8"),
        ("", "", "the file is empty"),
        (" \n\n", "", "the file is empty"),
        (
            json.dumps(row(document="7")) + "\n" + json.dumps(row(article="Other.", document="7")),
            ":2",
            "has another article at",
        ),
        ("id,text\n", ":1", "neither instruct JSONL"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_place(tmp_path, content, place, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        read_corpus(path)
    assert str(refused.value).startswith(f"{path}{place}: ")
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="is a directory, expected a file"):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_corpus(tmp_path / "none.jsonl")


def test_the_format_is_told_by_content(tmp_path):
    for text, kind in (
        (f"\n{GOOD}", "instruct"),
        ("<?xml?>", "bioc"),
        ("7|t|Title", "pubtator"),
        ("\ufeff" + GOOD, "instruct"),
    ):
        assert detect_format(write_text(tmp_path / "any.name", text)) == kind


words = st.text("abé™ß 1-", max_size=4).map(lambda text: f"a{text}b")
documents = st.lists(
    st.builds(
        Document,
        id=st.uuids().map(str),
        text=words,
        title=st.none() | words,
        mentions=st.lists(st.builds(Mention, words, st.sampled_from(["Chemical", "Disease"])), max_size=4).map(tuple),
        relations=st.lists(st.builds(Relation, words, words), max_size=3).map(tuple),
    ),
    max_size=3,
    unique_by=lambda document: document.id,
)


@given(documents)
def test_what_is_written_is_read_back(documents):
    rows = [parse_row(json.loads(line), "here") for line in render_rows(documents).splitlines()]
    again = join_rows(rows)
    assert [(d.id, d.title, d.text, d.tasks) for d in again] == [(d.id, d.title, d.text, d.tasks) for d in documents]
    assert all(a.gold(task) == b.gold(task) for a, b in zip(again, documents, strict=True) for task in TASKS)
    assert [document_from_json(json.loads(json.dumps(document_to_json(d)))) for d in documents] == documents


def test_written_rows_are_the_users_shape():
    document = Document("7", "Text.", mentions=(Mention("ZOL", "Chemical"),), tasks=("chemicals", "relations"))
    assert document_rows([document]) == [
        {"prompt": render_prompt("Text.", "chemicals") + "\n", "completion": "- ZOL", "document": "7", "task": "chemicals"},
        {"prompt": render_prompt("Text.", "relations") + "\n", "completion": "-", "document": "7", "task": "relations"},
    ]
    assert set(ASKED) == set(TASKS)


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path):
    path = write_text(tmp_path / "rows.jsonl", "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \ud800")
    assert path.read_text(encoding="utf-8") == "before"


def test_a_file_of_the_users_rows_is_read_whole(corpus):
    read = read_corpus(corpus.rows)
    documents = len({document.id for document in read.documents})
    empty = sum(not row.items for row in read.rows)
    assert (len(read.rows), len(read.documents), documents, empty) in [(24, 8, 8, 4), (3000, 1000, 1000, 6)]
    assert all(document.tasks == TASKS for document in read.documents)
    assert all(isinstance(row, Row) and row.where.endswith(f":{n}") for n, row in enumerate(read.rows, 1))
