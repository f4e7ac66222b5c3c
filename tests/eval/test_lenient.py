"""Two readings of an answer: the strict one never takes mark-up or "None" for an item, the lenient one repairs and says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts import is_name, read_line, render_answer
from data.schema import TASKS
from eval.scoring.lenient import parse_leniently
from eval.scoring.parse import parse_answer

FOREIGN = ["- **lithium**", "- None", "- N/A", "- []", "- No chemicals mentioned.", "- 1. lithium", "- `Li`", "- a\rb",
           "- a\u2028b", "- a\x85b", '- ["a", "b"]', "- none found."]  # fmt: skip


@pytest.mark.parametrize("line", FOREIGN)
def test_strictly_this_is_no_item(line):
    assert read_line(line, "chemicals") is None
    assert (parse_answer(line, "chemicals").items, parse_answer(line, "chemicals").status) == ((), "malformed")


def test_none_beside_a_name_is_a_side_and_two_are_not():
    assert read_line("- pemoline | None", "relations") == ("pemoline", "None")
    assert read_line("- None | None", "relations") is None


@pytest.mark.parametrize(
    ("completion", "items"),
    [
        ("- a\n- b\nThat is all.", ("a", "b")),
        ("- a\n-", ("a",)),
        ("- a\n\n- None\n- b", ("a",)),
        ("Here:\n- a", ()),
    ],
)
def test_strictly_what_stands_before_the_first_foreign_line_stays(completion, items):
    answer = parse_answer(completion, "chemicals")
    assert (answer.items, answer.status) == (items, "malformed")


@pytest.mark.parametrize(
    ("completion", "task", "items", "status"),
    [
        ("1. lithium\n2) zinc", "chemicals", ("lithium", "zinc"), "ok"),
        ("• **lithium**\n– `zinc`", "chemicals", ("lithium", "zinc"), "ok"),
        ("Here are the chemicals:\n\n* lithium", "chemicals", ("lithium",), "ok"),
        ("**Chemicals:**\n- lithium", "chemicals", ("lithium",), "ok"),
        ("```text\n- lithium\n```", "chemicals", ("lithium",), "ok"),
        ("<think>\nhm: - no\n</think>\n- lithium", "chemicals", ("lithium",), "ok"),
        ("- lithium<|eot_id|>", "chemicals", ("lithium",), "ok"),
        ("<|start_header_id|>1. lithium</s>more", "chemicals", ("lithium",), "ok"),
        ("None", "chemicals", (), "empty"),
        ("- None.", "diseases", (), "empty"),
        ("N/A", "diseases", (), "empty"),
        ("[]", "diseases", (), "empty"),
        ("No chemicals mentioned.", "chemicals", (), "empty"),
        ("There are no diseases mentioned in the article.", "diseases", (), "empty"),
        ("The influences are:\nNone | None", "relations", (), "empty"),
        ("- lithium -> tremor\n- zinc → gout", "relations", (("lithium", "tremor"), ("zinc", "gout")), "ok"),
        ("1. lithium | tremor\n2. zinc |", "relations", (("lithium", "tremor"),), "truncated"),
        ("1. lithium\n2.", "chemicals", ("lithium",), "truncated"),
    ],
)
def test_leniently_repaired(completion, task, items, status):
    answer = parse_leniently(completion, task)
    assert (answer.items, answer.status, answer.repaired) == (items, status, True)


@pytest.mark.parametrize(
    ("completion", "items"),
    [
        ('["lithium", "zinc"]', ()),
        ('{"chemicals": ["lithium"]}', ()),
        ("lithium, zinc", ()),
        ("The chemical is lithium.", ()),
        ("| chemical |\n|---|\n| lithium |", ()),
        ("Here:\nHere too:\n- lithium", ()),
        ("<think> unfinished", ()),
        ("- 1. lithium", ()),
        ("1. lithium\nI hope this helps!", ("lithium",)),
    ],
)
def test_leniently_still_malformed(completion, items):
    answer = parse_leniently(completion, "chemicals")
    assert (answer.items, answer.status) == (items, "malformed")


def test_a_cut_answer_loses_its_last_line_in_both_readings():
    assert parse_leniently("1. lithium\n2. zin", "chemicals", "length").items == ("lithium",)
    assert parse_leniently("- lithium\n- zin", "chemicals", "length") == parse_answer("- lithium\n- zin", "chemicals", "length")


NAMES = st.text(max_size=12).map(str.strip).filter(lambda name: name and is_name(name))


@given(st.lists(NAMES, max_size=4), st.lists(st.tuples(NAMES, NAMES), max_size=4))
def test_what_is_written_is_read_the_same_by_both(names, pairs):
    for task, items in (("chemicals", names), ("relations", pairs)):
        for parse in (parse_answer, parse_leniently):
            answer = parse(render_answer(items), task)
            assert (list(answer.items), answer.repaired) == (items, False)


@given(st.text(alphabet="-*1. |`\nab:→<>Noe", max_size=40), st.sampled_from(TASKS), st.sampled_from(["stop", "length"]))
def test_whatever_it_holds_the_lenient_reading_loses_nothing_that_the_strict_one_has(completion, task, finish):
    strict, lenient = parse_answer(completion, task, finish), parse_leniently(completion, task, finish)
    assert strict.items == lenient.items[: len(strict.items)]
    assert all(len(name.splitlines()) == 1 for item in lenient.items for name in ([item] if isinstance(item, str) else item))
