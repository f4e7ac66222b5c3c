"""score.py by hand, by property, against a naive second implementation, and against the faults seen in other scorers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.schema import TASKS, Document, InputError, Mention, Relation
from data.text import normalise
from eval.scoring.parse import Answer, parse_answer
from eval.scoring.score import count_documents, count_rates, match_answers, match_others, score_predictions

ALL = ("tp", "fp", "fn")


def chemicals(name: str, *gold: str, text: str = "…") -> Document:
    return Document(name, text, mentions=tuple(Mention(own, "Chemical") for own in gold), tasks=("chemicals",))


def say(*items, status="ok") -> Answer:
    return Answer(items, status)


def score(documents, answers) -> dict:
    return score_predictions(documents, {(d.id, "chemicals"): a for d, a in zip(documents, answers, strict=True)})


def counts(figures) -> tuple:
    return tuple(figures[key] for key in ALL)


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        (["lithium"], ["lithium"], (1, 0, 0)),
        (["lithium"], ["LITHIUM.", " lithium "], (1, 0, 0)),  # one item after normalisation
        (["Lithium", "lithium"], ["lithium"], (1, 0, 0)),
        (["lithium", "zinc", "iron"], ["zinc", "lead"], (1, 1, 2)),
        (["Na+"], ["Na"], (0, 1, 1)),
        (["(+)-catechin"], ["(-)-catechin"], (0, 1, 1)),
        (["5-HT(1A)"], ["5-ht(1a)"], (1, 0, 0)),
        (["heart attack"], ["heart-attack"], (0, 1, 1)),  # near is not right
        (["renal failure"], ["acute renal failure", "failure"], (0, 2, 1)),
        ([], [], (0, 0, 0)),
        ([], ["lithium"], (0, 1, 0)),
        (["lithium"], [], (0, 0, 1)),
        ([("Lithium", "tremor")], [("lithium", "Tremor")], (1, 0, 0)),
        ([("lithium", "tremor")], [("tremor", "lithium")], (0, 1, 1)),
        ([("a b", "c")], [("a", "b c")], (0, 1, 1)),
        ([("lithium", "tremor")], [("lithium", "goitre")], (0, 1, 1)),
    ],
)
def test_items_by_hand(gold, predicted, expected):
    assert count_items(gold, predicted) == expected


def count_items(gold, predicted) -> tuple:
    """Of one answer about one document."""
    pairs = bool([item for item in [*gold, *predicted] if isinstance(item, tuple)])
    task = "relations" if pairs else "chemicals"
    document = Document(
        "a",
        "…",
        mentions=() if pairs else tuple(Mention(name, "Chemical") for name in gold),
        relations=tuple(Relation(*pair) for pair in gold) if pairs else (),
        tasks=(task,),
    )
    return tuple(count_documents([document], {("a", task): say(*predicted)})[task][0])


def test_answers_are_compared_once_and_others_with_the_same_gold():
    documents = [chemicals("a", "Zinc", "lead"), chemicals("b")]
    scored = match_answers(documents, {("a", "chemicals"): say("tin", "zinc", "ZINC"), ("b", "chemicals"): say()})
    key = ("a", "chemicals")
    assert (scored.right(key), scored.wrong(key), scored.missed(key)) == (["zinc"], ["tin"], ["lead"])
    assert scored.gold[key] == {"zinc": "Zinc", "lead": "lead"} and scored.predicted[key] == {"tin": "tin", "zinc": "zinc"}
    others = match_others(scored, {key: say("lead"), ("b", "chemicals"): say("tin")})
    assert others.counts["chemicals"].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert others.gold is scored.gold and others.weights is scored.weights
    with pytest.raises(InputError, match="no prediction for document 'b'"):
        match_others(scored, {key: say("lead")})


def test_a_corpus_by_hand():
    """tp 3, fp 1, fn 2: precision 3/4, recall 3/5, F1 6/9; one of three answers is all right."""
    documents = [chemicals("a", "lithium", "zinc"), chemicals("b", "iron", "lead", "gold"), chemicals("c")]
    scored = score(documents, [say("zinc", "lithium"), say("iron", "tin"), say(status="empty")])
    figures = scored["tasks"]["chemicals"]
    assert counts(figures) == (3, 1, 2)
    assert (figures["precision"], figures["recall"], figures["support"]) == (0.75, 0.6, 5)
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["exact_match"] == pytest.approx(2 / 3)  # a, and c where nothing is right
    assert scored["documents"] == 3
    assert scored["micro"]["f1"] == figures["f1"] == scored["macro"]["f1"]
    low, high = figures["ci95"]
    assert 0 <= low <= figures["f1"] <= high <= 1


def test_micro_sums_and_macro_means():
    document = Document(
        "a", "…", mentions=(Mention("zinc", "Chemical"), Mention("gout", "Disease")), relations=(Relation("zinc", "gout"),)
    )
    answers = {
        ("a", "chemicals"): say("zinc"),
        ("a", "diseases"): say("acne"),
        ("a", "relations"): say(("zinc", "gout"), ("x", "y")),
    }
    scored = score_predictions([document], answers)
    assert counts(scored["micro"]) == (2, 2, 1)
    assert scored["micro"]["f1"] == pytest.approx(4 / 7)
    assert scored["macro"]["f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)


# Faults seen in others' scorers


def test_fault_predictions_absent_from_gold_are_false_positives():
    """Also where the document's gold is empty, and where nothing else was predicted."""
    assert counts(score([chemicals("a")], [say("lithium", "zinc")])["tasks"]["chemicals"]) == (0, 2, 0)


def test_fault_a_match_uses_its_gold_item_up():
    assert count_items(["lithium"], ["lithium", "Lithium", "lithium,"]) == (1, 0, 0)
    assert count_items(["renal failure"], ["renal failure", "renal"]) == (1, 1, 0)


def test_fault_both_sides_lose_their_repeats():
    assert count_items(["zinc", "zinc", "Zinc"], ["lead", "lead"]) == (0, 1, 1)
    assert count_items(["zinc", "Zinc"], ["zinc"]) == (1, 0, 0)


def test_fault_a_failure_of_the_program_is_no_score_of_zero():
    class Broken(tuple):
        def __iter__(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        score([chemicals("a", "zinc")], [Answer(Broken(), "ok")])


def test_fault_nothing_found_is_not_unreadable():
    documents = [chemicals("a"), chemicals("b"), chemicals("c"), chemicals("d", "zinc")]
    answers = [parse_answer("-", "chemicals"), parse_answer("", "chemicals"), parse_answer("None.", "chemicals"),
               parse_answer("- zinc\n- le", "chemicals", "length")]  # fmt: skip
    scored = score(documents, answers)
    rates = scored["rates"]
    assert (rates["empty"], rates["malformed"], rates["truncated"]) == (0.5, 0.25, 0.25)
    assert counts(scored["tasks"]["chemicals"]) == (1, 0, 0)


def test_fault_no_document_is_dropped():
    documents = [chemicals("a", "zinc"), chemicals("b", "iron")]
    with pytest.raises(InputError, match="no prediction for document 'b', task chemicals"):
        score_predictions(documents, {("a", "chemicals"): say("zinc")})
    with pytest.raises(InputError, match="a prediction for document 'c'"):
        score_predictions(documents[:1], {("a", "chemicals"): say("zinc"), ("c", "chemicals"): say("zinc")})
    # gold that the model missed altogether stays in the recall
    assert score(documents, [say("zinc"), say(status="malformed")])["tasks"]["chemicals"]["recall"] == 0.5


def test_a_task_that_is_not_asked_counts_nothing():
    document = Document("a", "…", mentions=(Mention("zinc", "Chemical"), Mention("gout", "Disease")), tasks=("chemicals",))
    scored = score([document], [say("zinc")])
    assert set(scored["tasks"]) == {"chemicals"}
    assert scored["macro"]["f1"] == 1


def test_rates_by_hand():
    document = chemicals("a", "zinc", text="Zinc and lead were given.")
    rates = count_rates(match_answers([document], {("a", "chemicals"): say("Zinc", "zinc", "iron", "le")}))
    assert rates["duplicate"] == 0.25
    assert rates["ungrounded"] == 0.5  # iron is not there, and le is no whole word
    assert rates["malformed"] == rates["truncated"] == rates["empty"] == 0


# Properties

NAMES = st.sampled_from(
    ["zinc", "Zinc", "zinc.", "Na+", "lead", "(lead)", "heart attack", "heart  attack", "β-carotene", "iron"]
)
PAIRS = st.tuples(NAMES, NAMES)
SIDES = st.fixed_dictionaries({
    "chemicals": st.lists(NAMES, max_size=6), "diseases": st.lists(NAMES, max_size=6), "relations": st.lists(PAIRS, max_size=5),
})  # fmt: skip
CORPORA = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4)


def build(corpus, swapped=False):
    """Documents with the left sides for gold and answers with the right ones; swapped, the other way round."""
    documents, answers = [], {}
    for number, sides in enumerate(corpus):
        gold, predicted = sides[::-1] if swapped else sides
        mentions = [Mention(name, "Chemical") for name in gold["chemicals"]] + [
            Mention(name, "Disease") for name in gold["diseases"]
        ]
        documents.append(
            Document(str(number), "…", mentions=tuple(mentions), relations=tuple(Relation(*p) for p in gold["relations"]))
        )
        answers |= {(str(number), task): Answer(tuple(predicted[task]), "ok") for task in TASKS}
    return documents, answers


def naive(corpus, task) -> tuple[int, int, int]:
    """Item by item, crossing out: no sets, no numpy."""
    tp = fp = fn = 0
    for gold, predicted in corpus:
        left: list = []
        for item in gold[task]:
            key = normalise(item) if isinstance(item, str) else [normalise(name) for name in item]
            if key not in left:
                left.append(key)
        said: list = []
        for item in predicted[task]:
            key = normalise(item) if isinstance(item, str) else [normalise(name) for name in item]
            if key in said:
                continue
            said.append(key)
            if key in left:
                left.remove(key)
                tp += 1
            else:
                fp += 1
        fn += len(left)
    return tp, fp, fn


@settings(max_examples=30)
@given(CORPORA)
def test_a_naive_scorer_agrees(corpus):
    scored = score_predictions(*build(corpus))
    for task in TASKS:
        tp, fp, fn = naive(corpus, task)
        figures = scored["tasks"][task]
        assert counts(figures) == (tp, fp, fn)
        assert figures["precision"] == (tp / (tp + fp) if tp + fp else 0)
        assert figures["recall"] == (tp / (tp + fn) if tp + fn else 0)
        assert figures["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    assert counts(scored["micro"]) == tuple(map(sum, zip(*(naive(corpus, task) for task in TASKS), strict=True)))


@settings(max_examples=30)
@given(CORPORA)
def test_perfect_is_one(corpus):
    scored = score_predictions(*build([(gold, gold) for gold, _ in corpus]))
    for task in TASKS:
        figures = scored["tasks"][task]
        assert figures["exact_match"] == 1
        assert figures["f1"] == (1 if figures["support"] else 0)


@settings(max_examples=30)
@given(CORPORA)
def test_swapping_sides_swaps_precision_and_recall(corpus):
    there, back = (score_predictions(*build(corpus, swapped)) for swapped in (False, True))
    for task in TASKS:
        one, other = there["tasks"][task], back["tasks"][task]
        assert (one["precision"], one["recall"], one["f1"]) == (other["recall"], other["precision"], other["f1"])


@settings(max_examples=30)
@given(CORPORA, st.randoms(use_true_random=False))
def test_order_is_irrelevant(corpus, chance):
    documents, answers = build(corpus)
    first = score_predictions(documents, answers)
    chance.shuffle(documents)
    keys = list(answers)
    chance.shuffle(keys)
    mixed = {key: Answer(tuple(chance.sample(answers[key].items, len(answers[key].items))), "ok") for key in keys}
    second = score_predictions(documents, mixed)
    for task in TASKS:
        assert counts(first["tasks"][task]) == counts(second["tasks"][task])
        assert first["tasks"][task]["exact_match"] == second["tasks"][task]["exact_match"]
    assert first["rates"] == second["rates"]
