"""One table, written for a terminal and as Markdown: aligned, and no cell that is more than text."""

from __future__ import annotations

import json

import pytest

from data.table import Table, as_markdown, as_text, columns_of, escape_markdown, printable
from pipeline.cli import main

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m\u2028\ud800"
TABLE = Table(
    ("task", "F1", "example"), (("chemicals", "9.5", "lithium"), ("x", "100.0", "–")), "Scores", "A note.", ("example",)
)


def test_text_is_aligned_figures_right_and_words_left():
    assert as_text(TABLE).splitlines() == [
        "Scores",
        "task          F1  example",
        "chemicals    9.5  lithium",
        "x          100.0  –",
        "",
        "A note.",
    ]


def test_markdown_has_the_same_cells():
    assert as_markdown(TABLE).splitlines() == [
        "### Scores",
        "",
        "| task | F1 | example |",
        "|---|--:|---|",
        "| chemicals | 9.5 | lithium |",
        "| x | 100.0 | – |",
        "",
        "A note.",
    ]


def test_a_long_note_is_wrapped_and_an_empty_header_left_out():
    text = as_text(Table(("", ""), (("a", "1"),), note="word " * 60))
    assert text.splitlines()[0] == "a  1"
    assert max(map(len, text.splitlines())) <= 100


def test_wide_and_combining_characters_keep_the_columns():
    lines = as_text(Table(("name", "n"), (("リチウム", "1"), ("e\u0301rbium", "22"), ("zinc", "3")))).splitlines()
    assert {columns_of(line) for line in lines} == {12}


def test_columns_can_be_picked_and_empty_ones_go():
    table = Table(("task", "a", "b", "c"), (("x", "1", "–", ""), ("y", "–", "–", "")))
    assert table.without_empty().header == ("task", "a")
    assert table.only("c", "a", "nothing").rows == (("x", "1", ""), ("y", "–", ""))


@pytest.mark.parametrize("write", [as_text, as_markdown])
def test_no_cell_steers_a_terminal(write):
    written = write(Table(("task", HOSTILE), ((HOSTILE, HOSTILE),), HOSTILE, HOSTILE))
    assert all(character == "\n" or character.isprintable() for character in written)
    assert "owned" in written and "\\x1b" in written and "\\u202e" in written


def test_no_cell_becomes_markdown():
    written = escape_markdown("a|b <img src=x> `code` [x](y) **b** &amp; ~~s~~\n# c")
    assert written == r"a\|b \<img src=x\> \`code\` \[x\](y) \*\*b\*\* \&amp; \~\~s\~\~ # c"


def test_what_is_printable_stays_as_it_is():
    for text in ("plain\nlines", "α-méthyl – 5-HT\n日本", "emoji 🧪"):
        assert printable(text) == text


def test_a_command_prints_no_escape_from_a_file(tmp_path, capsys):
    gold = {"prompt": "Create a list only of the chemicals mentioned.\n\nZinc.\n\nList of extracted chemicals:\n"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold | {"completion": "- zinc"}) + "\n", encoding="utf-8")
    path = tmp_path / "x\x1b]0;owned\x07.jsonl"
    assert main(["score", str(tmp_path / "gold.jsonl"), str(path)]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\\x1b]0;owned" in said
