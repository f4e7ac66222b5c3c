"""Slices hand-counted on invented articles: every item in one slice, counts adding up."""

from __future__ import annotations

import pytest

from data.schema import TASKS, Document, Mention, Relation
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers, score_predictions
from eval.scoring.slices import SLICES, score_slices


def chemical(name: str, *ids: str) -> Mention:
    return Mention(name, "Chemical", ids=ids)


TRAIN = [Document("t", "…", mentions=(chemical("lithium", "C1"), Mention("tremor", "Disease")))]
DOCUMENTS = [
    Document(
        "a",
        "short one",
        mentions=(
            chemical("Li", "C1"),
            chemical("Lithium", "C1"),
            chemical("MPTP", "C2"),
            Mention("severe hand tremor", "Disease"),
        ),
        relations=(Relation("Li", "severe hand tremor"),),
    ),
    Document("b", "a longer one of " + "many " * 20, mentions=(chemical("zinc", "C3"),), tasks=("chemicals",)),
    Document("c", "of middle length it is", mentions=(), tasks=("chemicals",)),
]
PREDICTIONS = {
    ("a", "chemicals"): Answer(("lithium", "mptp", "zinc oxide"), "ok"),
    ("a", "diseases"): Answer(("tremor",), "ok"),
    ("a", "relations"): Answer((("Li", "severe hand tremor"),), "ok"),
    ("b", "chemicals"): Answer(("ABC",), "ok"),
    ("c", "chemicals"): Answer(("lithium",), "ok"),
}


@pytest.fixture(scope="module")
def slices():
    return score_slices(TRAIN, match_answers(DOCUMENTS, PREDICTIONS))


def counts(figures):
    return figures["tp"], figures["fp"], figures["fn"]


@pytest.mark.parametrize(
    ("task", "by", "label", "expected"),
    [
        ("chemicals", "string", "seen", (1, 1, 0)),  # lithium right in a, wrong in c
        ("chemicals", "string", "unseen", (1, 2, 2)),
        ("chemicals", "words", "1", (2, 2, 2)),
        ("chemicals", "words", "2", (0, 1, 0)),
        ("chemicals", "abbreviation", "abbreviation", (1, 1, 0)),  # mptp is gold's MPTP; ABC is wrong
        ("chemicals", "abbreviation", "full name", (1, 2, 2)),
        ("chemicals", "concept", "seen", (1, None, 1)),  # lithium found, Li missed: one concept
        ("chemicals", "concept", "unseen", (1, None, 1)),
        ("chemicals", "items", "0", (0, 1, 0)),
        ("chemicals", "items", "1-2", (0, 1, 1)),
        ("chemicals", "items", "3-5", (2, 1, 1)),
        ("chemicals", "length", "over 11", (0, 1, 1)),
        ("diseases", "string", "seen", (0, 1, 0)),
        ("diseases", "words", "3+", (0, 0, 1)),
        ("relations", "words", "3+", (1, 0, 0)),
        ("relations", "string", "unseen", (1, 0, 0)),
    ],
)
def test_slices_by_hand(slices, task, by, label, expected):
    assert counts(slices[task][by][label]) == expected


def test_slices_add_up_to_the_whole(slices):
    whole = score_predictions(DOCUMENTS, PREDICTIONS)["tasks"]
    for task in TASKS:
        for by in set(SLICES) - {"concept"}:
            added = [sum(part) for part in zip(*map(counts, slices[task][by].values()), strict=True)]
            assert tuple(added) == counts(whole[task]), (task, by)


def test_no_ids_no_concepts(slices):
    assert slices["diseases"]["concept"] is None
    assert slices["relations"]["concept"] is None
    assert slices["chemicals"]["concept"]["seen"]["f1"] is None
    assert slices["chemicals"]["concept"]["seen"]["recall"] == 0.5


def test_articles_are_counted(slices):
    assert sum(own["documents"] for own in slices["chemicals"]["length"].values()) == 3
    assert slices["chemicals"]["items"]["0"]["documents"] == 1


def test_a_task_that_nobody_asked_has_no_slices():
    documents = [DOCUMENTS[2]]
    sliced = score_slices([], match_answers(documents, {("c", "chemicals"): Answer((), "empty")}))
    assert sliced["relations"]["length"] == {}
