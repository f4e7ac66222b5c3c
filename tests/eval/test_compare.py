"""Comparing runs: the same test set or none, and a table that says what differs."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from data.schema import TASKS, Document, InputError, Mention, Relation
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
    assert re.search(r"^chemicals +0\.0 +100\.0 +\+100\.0 +0\.0\d\d +0\.0\d\d ", table, re.MULTILINE)
    assert "corrected: by Holm's method, since 5 rows are tested" in " ".join(table.split()) and "too narrow" not in table
    assert table.splitlines()[2].endswith("differs")
    assert "|" not in table


@pytest.mark.slow
def test_five_rows_of_equal_systems_seldom_differ_anywhere():
    """Uncorrected, one in six such comparisons shows a difference in some row."""
    chance, documents = np.random.default_rng(7), [Document(f"d{n}", "…", None, NAMED, PAIRED) for n in range(40)]
    found, families = [], 60
    for _ in range(families):
        a, b = ({(d.id, t): Answer(tuple(i for i in d.gold(t) if chance.random() < 0.7), "ok") for d in documents
                 for t in TASKS} for _ in range(2))  # fmt: skip
        found.append(list(compare(documents, a, b)["scores"].values()))
    anywhere = {p: sum(any(row[p] < 0.05 for row in rows) for rows in found) for p in ("p", "p_corrected")}
    assert anywhere["p_corrected"] <= 0.1 * families and anywhere["p_corrected"] < anywhere["p"]


NAMED = tuple(Mention(name, kind) for kind in ("Chemical", "Disease") for name in (f"{kind} {letter}" for letter in "abcd"))
PAIRED = tuple(Relation(f"Chemical {letter}", f"Disease {letter}") for letter in "abcd")


def test_few_articles_are_said_to_be_few():
    few = DOCUMENTS[:5]
    comparison = compare(few, answers(few, right=True), answers(few, right=False))
    assert "5 articles: under 30, these intervals are too narrow" in render_comparison(comparison)


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
    with pytest.raises(InputError, match="which the gold does not have"):
        compare(DOCUMENTS[:-1], answers(DOCUMENTS, right=True), answers(DOCUMENTS[:-1], right=True))
