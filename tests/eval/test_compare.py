"""Comparing runs: the same test set or none, and a table that says what differs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from data.schema import Document, InputError, Mention
from eval.scoring.compare import check_same_test, compare, render_comparison
from eval.scoring.parse import Answer


def document(number: int, *names: str) -> Document:
    return Document(f"d{number}", "…", mentions=tuple(Mention(name, "Chemical") for name in names), tasks=("chemicals",))


def answers(documents, *, right: bool):
    return {(d.id, "chemicals"): Answer(d.gold("chemicals") if right else ("lead",), "ok") for d in documents}


DOCUMENTS = [document(i, "lithium", "zinc") for i in range(30)]


def test_compare_and_render():
    comparison = compare(DOCUMENTS, answers(DOCUMENTS, right=False), answers(DOCUMENTS, right=True))
    row = comparison["scores"]["chemicals"]
    assert (row["a"], row["b"], row["difference"]) == (0, 1, 1)
    assert row["p_randomisation"] < 0.001
    table = render_comparison(comparison, ("first", "second"))
    assert re.search(r"^chemicals +0\.0 +100\.0 +\+100\.0 \(\+100\.0 to \+100\.0\) +0\.0\d\d ", table, re.MULTILINE)
    assert table.splitlines()[2].endswith("differs")
    assert "|" not in table


def test_equal_runs_are_not_told_apart():
    same = answers(DOCUMENTS, right=True)
    assert "not told apart" in render_comparison(compare(DOCUMENTS, same, same))


def test_order_and_spelling_of_the_same_gold_are_no_difference():
    check_same_test(DOCUMENTS, DOCUMENTS[::-1])
    check_same_test([document(1, "Lithium", "zinc")], [document(1, "zinc", "lithium.")])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (DOCUMENTS[:-1], "1 documents are in one run only, such as 'd29' (in the first)"),
        ([*DOCUMENTS, document(99)], "'d99' (in the second)"),
        ([document(0, "lithium"), *DOCUMENTS[1:]], "document 'd0' has other gold chemicals"),
        ([replace(DOCUMENTS[0], tasks=("chemicals", "diseases")), *DOCUMENTS[1:]], "document 'd0' has tasks"),
    ],
)
def test_different_test_sets_are_refused(other, said):
    with pytest.raises(InputError) as error:
        check_same_test(DOCUMENTS, other)
    assert said in str(error.value)


def test_answers_of_other_documents_are_refused():
    with pytest.raises(InputError, match="no prediction for document 'd29'"):
        compare(DOCUMENTS, answers(DOCUMENTS, right=True), answers(DOCUMENTS[:-1], right=True))
    with pytest.raises(InputError, match="which the gold does not hold"):
        compare(DOCUMENTS[:-1], answers(DOCUMENTS, right=True), answers(DOCUMENTS[:-1], right=True))
