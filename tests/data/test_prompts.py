"""What is asked and how answers are written: every answer that is written is read back the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts import (
    ASKED,
    LAYOUTS,
    SYSTEM,
    answer_of,
    conversations,
    read_answer,
    read_line,
    render_answer,
    render_next_prompt,
    render_prompt,
)
from data.prompts import is_name as is_readable_name
from data.readers.rows import join_rows, parse_prompt, read_rows
from data.schema import TASKS, Document, Mention, Relation
from data.text import fold, normalise

DOCUMENT = Document(
    "1",
    "Clonidine lowered the pressure of rats.",
    "On hypertension",
    (Mention("Clonidine", "Chemical"), Mention("hypertension", "Disease"), Mention("Clonidine", "Chemical")),
    (Relation("Clonidine", "hypertension"),),
)


@pytest.fixture(scope="module")
def users_rows(corpus):
    return read_rows(corpus.rows)


def is_name(text):
    return bool(text) and text == text.strip() and is_readable_name(text)


any_names = st.text(max_size=12).map(str.strip).filter(is_name)
names = st.one_of(any_names, st.sampled_from(["-", "*", "- a", "(+)-catechin", "Na+", "Chemical a influences disease b"]))


@given(st.lists(names, max_size=5))
def test_names_that_are_written_are_read(items):
    assert all(read_answer(render_answer(items), task) == (items, []) for task in ("chemicals", "diseases"))


@given(st.lists(st.tuples(names, names), max_size=4))
def test_relations_that_are_written_are_read(items):
    assert read_answer(render_answer(items), "relations") == (items, [])


@given(st.lists(names, max_size=5))
def test_answers_are_written_as_a_chat_template_leaves_them(items):
    assert render_answer(items) == render_answer(items).strip()


def test_every_answer_of_the_users_rows_is_read_back(users_rows):
    for row in users_rows:
        assert read_answer(render_answer(row.items), row.task) == (list(row.items), [])


def test_every_document_of_the_users_rows_is_read_back(users_rows):
    for document in join_rows(users_rows):
        for task in TASKS:
            gold = document.gold(task)
            assert tuple(read_answer(render_answer(gold), task)[0]) == gold
            taught = read_answer(answer_of(document, task), task)[0]
            assert len(taught) == len({fold(str(item)) for item in taught}) and set(taught) <= set(gold)
            assert {normalise(str(item)) for item in taught} == {normalise(str(item)) for item in gold}
            assert parse_prompt(render_prompt(document.article, task), "") == (document.article, task)


def test_the_users_relations_are_counted(users_rows):
    rows = [row for row in users_rows if row.task == "relations"]
    items, distinct = sum(len(row.items) for row in rows), len({(row.key, item) for row in rows for item in row.items})
    assert (len(users_rows), len(rows), items, distinct) in [(24, 8, 12, 12), (3000, 1000, 2050, 2049)]


@pytest.mark.parametrize(
    ("answer", "task", "items", "unread"),
    [
        ("- a\n- b", "chemicals", ["a", "b"], []),
        ("- a\n\n  - b  \n", "chemicals", ["a", "b"], []),
        ("* a\n• b", "diseases", ["a", "b"], []),
        ("- a\n- a\n- A", "diseases", ["a", "a", "A"], []),
        ("", "chemicals", [], []),
        ("-", "chemicals", [], []),
        ("- ", "relations", [], []),
        ("- \n", "relations", [], []),
        ("-\n-", "chemicals", [], ["-", "-"]),
        ("- a\n-", "chemicals", ["a"], ["-"]),
        ("- a | b", "chemicals", [], ["- a | b"]),
        ("a", "chemicals", [], ["a"]),
        ("-a", "chemicals", [], ["-a"]),
        ("1. a", "chemicals", [], ["1. a"]),
        ("None.", "relations", [], ["None."]),
        ("- a | b\n- c|d", "relations", [("a", "b"), ("c", "d")], []),
        ("- Chemical a influences disease b", "relations", [("a", "b")], []),
        ("- CHEMICAL A Influences  DISEASE b c", "relations", [("A", "b c")], []),
        ("- chemical   influences disease b", "relations", [], ["- chemical   influences disease b"]),
        ("- chemical" + " " * 3000 + "x", "relations", [], ["- chemical" + " " * 3000 + "x"]),  # once took minutes
        ("- chemical influences disease b", "relations", [], ["- chemical influences disease b"]),
        ("- a influences b", "relations", [], ["- a influences b"]),
        ("- a |", "relations", [], ["- a |"]),
        ("- | b", "relations", [], ["- | b"]),
        ("- a | b | c", "relations", [], ["- a | b | c"]),
        ("- a", "relations", [], ["- a"]),
    ],
)
def test_answers_as_models_and_people_write_them(answer, task, items, unread):
    assert read_answer(answer, task) == (items, unread)


@given(st.text(max_size=60), st.sampled_from(TASKS))
def test_whatever_an_answer_holds_its_lines_are_items_or_unread(answer, task):
    items, unread = read_answer(answer, task)
    lines = [line for line in answer.strip().split("\n") if line.strip()]
    assert len(items) + len(unread) == (0 if [line.strip() for line in lines] == ["-"] else len(lines))
    assert all(read_line(line, task) is None for line in unread)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_trimmed_and_say_what_is_asked(task):
    for prompt in (render_prompt(" \n Text of an article.\n", task), render_next_prompt(task)):
        assert prompt == prompt.strip()
        assert prompt.endswith(f"\n\nList of extracted {ASKED[task]}:")
    assert "\n\nText of an article.\n\n" in render_prompt(" \n Text of an article.\n", task)
    assert "Text" not in render_next_prompt(task)


def test_prompts_are_those_of_the_users_rows(corpus):
    with corpus.rows.open(encoding="utf-8") as file:
        some = [json.loads(line) for n, line in enumerate(file) if n % 7 == 0]
    assert {parse_prompt(row["prompt"], "")[1] for row in some} == set(TASKS)
    for row in some:
        article, task = parse_prompt(row["prompt"], "")
        assert render_prompt(article, task).casefold() + "\n" == row["prompt"].casefold()


@pytest.mark.parametrize(
    ("layout", "tasks", "turns"),
    [
        ("separate", None, [["chemicals"], ["diseases"], ["relations"]]),
        ("conversation", None, [["chemicals", "diseases", "relations"]]),
        ("conversation", ["relations", "diseases"], [["diseases", "relations"]]),
        ("relations-first", None, [["relations", "chemicals", "diseases"]]),
        ("relations-first", ["diseases", "chemicals"], [["chemicals", "diseases"]]),
        ("separate", ["relations"], [["relations"]]),
    ],
)
def test_conversations_ask_each_task_once_and_give_the_article_first(layout, tasks, turns):
    chats = conversations(replace(DOCUMENT, tasks=tasks) if tasks else DOCUMENT, layout)
    assert len(chats) == len(turns)
    for chat, asked in zip(chats, turns, strict=True):
        assert chat[0] == {"role": "system", "content": SYSTEM}
        assert [m["role"] for m in chat[1:]] == ["user", "assistant"] * len(asked)
        assert chat[1]["content"] == render_prompt(DOCUMENT.article, asked[0])
        assert [m["content"] for m in chat[3::2]] == [render_next_prompt(task) for task in asked[1:]]
        assert [m["content"] for m in chat[2::2]] == [answer_of(DOCUMENT, task) for task in asked]
        assert all(message["content"] == message["content"].strip() for message in chat)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_tasks_whose_answer_is_known_are_asked(layout):
    known = Document("1", "Text.", tasks=("diseases",))
    assert [chat[2]["content"] for chat in conversations(known, layout)] == ["-"]
    assert conversations(Document("1", "Text.", tasks=()), layout) == []
