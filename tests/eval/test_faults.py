"""Faults named one by one on invented articles; their counts are the score's; filtering mends what it can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.schema import TASKS, Document, Mention, Relation
from eval.scoring.faults import CATEGORIES, count_faults, filter_predictions, find_faults, score_faults
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers, score_answers

TEXT = (
    "Torsade de pointes (TdP) and acute renal failure under lithium carbonate. Heart-attacks, renal and hepatic failure, "
    "chest wall pain and tremor were seen with zinc; tremors faded. The NSAID was aspirin, a salicylate."
)


def find(task, gold, predicted, *, other_gold=(), other_predicted=(), status="ok", text=TEXT):
    """{(kind, item): category} where gold and the model list the given items."""
    kind, other = ("Chemical", "Disease") if task == "chemicals" else ("Disease", "Chemical")
    other_task = "diseases" if task == "chemicals" else "chemicals"
    mentions = [Mention(name, kind) for name in gold] + [Mention(name, other) for name in other_gold]
    document = Document("a", text, mentions=tuple(mentions), tasks=("chemicals", "diseases"))
    answers = {
        ("a", task): Answer(tuple(predicted), status),
        ("a", other_task): Answer(tuple(other_predicted), "ok"),
    }
    return {(f.kind, f.item): f.category for f in find_faults(match_answers([document], answers)) if f.task == task}


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        (["tremor"], ["Tremor."], {}),
        (["tremor"], ["tremors"], {("fp", "tremors"): "variant", ("fn", "tremor"): "variant"}),
        (["Heart-attacks"], ["heart attack"], {("fp", "heart attack"): "variant", ("fn", "Heart-attacks"): "variant"}),
        (["acute renal failure"], ["renal failure"],
         {("fp", "renal failure"): "shorter", ("fn", "acute renal failure"): "longer"}),
        (["pain"], ["chest wall pain"], {("fp", "chest wall pain"): "longer", ("fn", "pain"): "shorter"}),
        (["chest wall"], ["wall pain"], {("fp", "wall pain"): "boundary", ("fn", "chest wall"): "boundary"}),
        (["renal and hepatic failure"], ["renal failure"],
         {("fp", "renal failure"): "composite", ("fn", "renal and hepatic failure"): "composite"}),
        (["Torsade de pointes"], ["TdP"], {("fp", "TdP"): "abbreviation", ("fn", "Torsade de pointes"): "abbreviation"}),
        (["TdP"], [], {("fn", "TdP"): "abbreviation"}),
        (["tremor"], ["nausea"], {("fp", "nausea"): "not_in_text", ("fn", "tremor"): "missed"}),
        (["Heart-attacks"], ["Heart\u2011attacks"],
         {("fp", "Heart\u2011attacks"): "look_alike", ("fn", "Heart-attacks"): "look_alike"}),
        ([], ["seen"], {("fp", "seen"): "spurious"}),
        (["diarrhoea"], [], {("fn", "diarrhoea"): "no_verbatim"}),
        (["."], ["-", "?"], {("fp", "-"): "spurious", ("fp", "?"): "not_in_text", ("fn", "."): "no_verbatim"}),
    ],
)  # fmt: skip
def test_names_by_hand(gold, predicted, expected):
    assert find("diseases", gold, predicted) == expected


def test_right_name_wrong_type():
    assert find("diseases", [], ["zinc"], other_gold=["Zinc"]) == {("fp", "zinc"): "other_type"}
    assert find("chemicals", ["zinc"], [], other_predicted=["Zinc"]) == {("fn", "zinc"): "other_type"}


def test_unreadable_and_truncated_answers():
    assert find("chemicals", ["zinc"], [], status="malformed") == {("fn", "zinc"): "unreadable"}
    assert find("chemicals", ["zinc"], [], status="truncated") == {("fn", "zinc"): "truncated"}


RELATED = Document(
    "r",
    TEXT,
    mentions=(
        Mention("lithium carbonate", "Chemical", ids=("C1",)),
        Mention("zinc", "Chemical", ids=("C2",)),
        Mention("aspirin", "Chemical", ids=("C3",)),
        Mention("salicylate", "Chemical", ids=("C3",)),
        Mention("tremor", "Disease", ids=("D1",)),
        Mention("acute renal failure", "Disease", ids=("D2",)),
    ),
    relations=(Relation("zinc", "tremor", "C2", "D1"), Relation("aspirin", "acute renal failure", "C3", "D2")),
)


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (("tremor", "zinc"), "reversed"),
        (("salicylate", "acute renal failure"), "alias"),
        (("zinc", "tremors"), "variant"),
        (("aspirin", "renal failure"), "shorter"),
        (("zinc", "acute renal failure"), "unrelated"),
        (("under", "tremor"), "wrong_chemical"),
        (("zinc", "seen"), "wrong_disease"),
        (("under", "seen"), "spurious"),
        (("iron", "tremor"), "not_in_text"),
    ],
)
def test_false_relations_by_hand(predicted, expected):
    answers = {("r", task): Answer((), "empty") for task in TASKS} | {("r", "relations"): Answer((predicted,), "ok")}
    found = [f for f in find_faults(match_answers([RELATED], answers)) if f.kind == "fp" and f.task == "relations"]
    assert [fault.category for fault in found] == [expected]


@pytest.mark.parametrize(
    ("predicted", "names", "expected"),
    [
        ([], [], ["name_missed", "name_missed"]),
        ([], ["zinc", "Tremor"], ["missed", "name_missed"]),
        ([("salicylate", "acute renal failure")], [], ["name_missed", "alias"]),
        ([("under", "tremor")], [], ["wrong_chemical", "name_missed"]),
        ([("tremor", "zinc")], [], ["reversed", "name_missed"]),
    ],
)
def test_missed_relations_by_hand(predicted, names, expected):
    answers = {("r", task): Answer(tuple(names), "ok") for task in ("chemicals", "diseases")}
    answers["r", "relations"] = Answer(tuple(predicted), "ok")
    found = [f for f in find_faults(match_answers([RELATED], answers)) if f.kind == "fn" and f.task == "relations"]
    assert [fault.category for fault in found] == expected


WORDS = ["tremor", "tremors", "renal failure", "renal and hepatic failure", "TdP", "zinc", "absent", ""]
NAMES = st.lists(st.sampled_from(WORDS), max_size=5)
PAIRS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), max_size=4)


@given(
    gold=st.tuples(NAMES, NAMES, PAIRS), predicted=st.tuples(NAMES, NAMES, PAIRS), status=st.sampled_from(["ok", "truncated"])
)
def test_every_fault_is_in_one_category(gold, predicted, status):
    mentions = [Mention(name, kind) for kind, own in zip(("Chemical", "Disease"), gold[:2], strict=True) for name in own]
    document = Document("a", TEXT, mentions=tuple(mentions), relations=tuple(Relation(*pair) for pair in gold[2]))
    answers = {("a", task): Answer(tuple(own), status) for task, own in zip(TASKS, predicted, strict=True)}
    scored = match_answers([document], answers)
    figures, counted = score_answers(scored)["tasks"], count_faults(find_faults(scored))
    for task in TASKS:
        for kind in ("fp", "fn"):
            assert set(counted[task][kind]) <= set(CATEGORIES)
            assert sum(own["count"] for own in counted[task][kind].values()) == figures[task][kind]


def test_filtering_drops_what_is_not_there_or_there_twice():
    document = Document("a", TEXT, mentions=(Mention("zinc", "Chemical"),), tasks=("chemicals", "diseases"))
    answers = {
        ("a", "chemicals"): Answer(("iron", "Zinc", "zinc.", "Zinc"), "ok"),
        ("a", "diseases"): Answer(("gout",), "ok"),
    }
    scored = match_answers([document], answers)
    filtered = filter_predictions(scored)
    assert filtered["a", "chemicals"] == Answer(("Zinc",), "ok")
    assert filtered["a", "diseases"] == Answer((), "empty")
    section = score_faults(scored, score_answers(scored), find_faults(scored))
    assert section["raw"]["tasks"]["chemicals"]["precision"] == 0.5
    assert section["filtered"]["tasks"]["chemicals"]["precision"] == 1
    assert section["raw"]["rates"]["duplicate"] == pytest.approx(2 / 5)
    assert section["filtered"]["rates"]["duplicate"] == section["filtered"]["rates"]["ungrounded"] == 0


def test_truncated_stays_truncated():
    document = Document("a", TEXT, tasks=("diseases",))
    scored = match_answers([document], {("a", "diseases"): Answer(("gout",), "truncated")})
    assert filter_predictions(scored)["a", "diseases"].status == "truncated"


def test_examples_name_document_item_and_neighbour():
    document = Document("a", TEXT, mentions=(Mention("tremor", "Disease"),), tasks=("diseases",))
    counted = count_faults(find_faults(match_answers([document], {("a", "diseases"): Answer(("Tremors",), "ok")})))
    assert counted["diseases"]["fp"]["variant"] == {
        "count": 1,
        "examples": [{"document": "a", "item": "Tremors", "near": "tremor"}],
    }
