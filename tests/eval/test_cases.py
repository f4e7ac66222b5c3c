"""The smoke check: gold passes, anything else fails and says why."""

from __future__ import annotations

import pytest

from data.text import FoldedText
from eval.scoring.cases import CASES, check_cases, render_cases
from eval.scoring.parse import Answer


def test_gold_passes_every_case():
    rows = check_cases(lambda document, task: Answer(document.gold(task), "ok"))
    assert [row["case"] for row in rows] == [
        "chemicals",
        "diseases",
        "one relation",
        "several relations",
        *["all together"] * 3,
    ]
    assert all(row["passed"] for row in rows)
    assert render_cases(rows).startswith("7 of 7 passed")


def test_every_name_stands_in_its_text():
    for case in CASES:
        for mention in case.document.mentions:
            assert FoldedText(case.document.article).spans(mention.text), mention


def test_failures_say_why():
    def answer(document, task):
        if task == "chemicals":
            return Answer(("Metformin", "water"), "ok")
        return Answer((), "malformed")

    rows = check_cases(answer)
    assert not any(row["passed"] for row in rows)
    assert (rows[0]["missed"], rows[0]["wrong"]) == (["insulin glargine", "glibenclamide"], ["water"])
    rendered = render_cases(rows)
    assert "FAIL  chemicals          chemicals  missed insulin glargine, glibenclamide; wrong water" in rendered
    assert "answer malformed; missed Lithium | tremor, " in rendered


def test_a_failure_of_the_program_is_not_a_failed_case():
    def answer(document, task):
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        check_cases(answer)
