"""Relations under four conventions, hand-counted on invented articles and shown on the development corpus."""

from __future__ import annotations

import random

import pytest

from data.corpus import read_corpus
from data.schema import Document, Mention, Relation
from eval.scoring.parse import Answer
from eval.scoring.relation_conventions import (
    CONVENTIONS,
    accepted_pairs,
    count_aliases,
    gold_names,
    match_most,
    score_conventions,
)
from eval.scoring.score import match_answers, score_answers


def mention(name: str, kind: str, *ids: str) -> Mention:
    return Mention(name, kind, ids=ids)


ARTICLE = Document(
    "a",
    "Lithium (Li) gave tremor, a shaking, and goitre. Lead gave tremor too.",
    mentions=(
        mention("Lithium", "Chemical", "C1"),
        mention("Li", "Chemical", "C1"),
        mention("Lead", "Chemical", "C2"),
        mention("tremor", "Disease", "D1"),
        mention("shaking", "Disease", "D1"),
        mention("goitre", "Disease", "D2"),
    ),
    relations=(Relation("Lithium", "tremor", "C1", "D1"), Relation("Lithium", "goitre", "C1", "D2")),
)


def score(predicted, document=ARTICLE, train=(ARTICLE,)):
    answers = {(document.id, task): Answer((), "empty") for task in document.tasks}
    answers[document.id, "relations"] = Answer(tuple(predicted), "ok")
    return score_conventions(train, match_answers([document], answers))


def counts(figures):
    return figures["tp"], figures["fp"], figures["fn"]


@pytest.mark.parametrize(
    ("predicted", "exact", "alias"),
    [
        ([("lithium", "tremor"), ("lithium", "goitre")], (2, 0, 0), (2, 0, 0)),
        ([("Li", "shaking")], (0, 1, 2), (1, 0, 1)),
        ([("Li", "shaking"), ("Lithium", "tremor")], (1, 1, 1), (1, 1, 1)),  # said twice: right once
        ([("Li", "shaking"), ("li.", "Shaking")], (0, 1, 2), (1, 0, 1)),  # the same words after normalisation: one item
        ([("Lead", "tremor")], (0, 1, 2), (0, 1, 2)),
        ([("tremor", "Lithium")], (0, 1, 2), (0, 1, 2)),
        ([], (0, 0, 2), (0, 0, 2)),
    ],
)
def test_an_alias_counts_once(predicted, exact, alias):
    scored = score(predicted)
    assert counts(scored["exact"]["figures"]) == exact
    assert counts(scored["alias"]["figures"]) == alias


def test_a_name_of_two_concepts_matches_one_gold_item():
    both = mention("tremor and goitre", "Disease", "D1", "D2")
    document = Document("b", "…", mentions=(*ARTICLE.mentions, both), relations=ARTICLE.relations)
    assert count_aliases(document, {("li", "tremor and goitre")}) == (1, 0, 1)
    # the ambiguous answer gives way to the one that fits nowhere else
    assert count_aliases(document, {("li", "tremor and goitre"), ("li", "tremor")}) == (2, 0, 0)


def test_the_matching_is_the_largest():
    assert match_most({"a": {1, 2}, "b": {1}, "c": set()}) == 2
    assert match_most({"a": {1}, "b": {1, 2}, "d": {2, 3}}) == 3


def test_ids_come_from_train_only():
    train = Document("t", "…", mentions=(mention("li", "Chemical", "C1"), mention("Tremor", "Disease", "D1")))
    scored = score([("Li", "tremor"), ("Lithium", "tremor"), ("Li", "goitre")], train=[train])["mesh"]
    assert counts(scored["figures"]) == (1, 2, 1)  # Lithium and goitre are not in train
    assert counts(scored["ceiling"]) == (0, 2, 2)  # gold writes Lithium
    assert scored["gold_in_dictionary"] == 0


def test_the_floor_pairs_all_names():
    scored = score([])["cooccurrence"]
    assert counts(scored["figures"]) == (2, 7, 0)  # 3 chemical names x 3 disease names
    assert counts(scored["concepts"]) == (2, 2, 0)  # 2 x 2 concepts


def test_rows_without_ids_get_a_reason():
    document = Document("a", "…", mentions=(Mention("Li", "Chemical"),), relations=(Relation("Li", "tremor"),))
    scored = score([("Li", "tremor")], document, train=())
    assert scored["exact"]["figures"]["f1"] == 1
    for name in ("alias", "mesh"):
        assert scored[name]["figures"] is None
        assert "no concept ids" in scored[name]["reason"]
    assert scored["cooccurrence"]["concepts"] is None
    assert all("\n" not in scored[name]["convention"] for name in CONVENTIONS)


def test_exact_is_the_headline_also_where_some_articles_are_not_asked_for_relations():
    asked, other = ARTICLE, Document("b", "…", tasks=("chemicals",))
    answers = {(d.id, task): Answer((), "empty") for d in (asked, other) for task in d.tasks}
    answers["a", "relations"] = Answer((("lithium", "tremor"), ("Lead", "tremor")), "ok")
    scored = match_answers([asked, other], answers)
    headline = score_answers(scored)["tasks"]["relations"]
    assert score_conventions([], scored)["exact"]["figures"] == {k: v for k, v in headline.items() if k != "exact_match"}


def test_train_without_ids_gets_a_reason():
    assert "train" in score([], train=())["mesh"]["reason"]


def test_no_relations_asked():
    document = Document("a", "…", tasks=("chemicals",))
    scored = score_conventions([], match_answers([document], {("a", "chemicals"): Answer((), "empty")}))
    assert scored["exact"]["figures"]["support"] == 0
    assert scored["alias"]["reason"]


def pick_aliases(document: Document, chance: random.Random) -> list[tuple[str, str]]:
    """For every gold relation one of its names at random, another one for each."""
    picked: list[tuple[str, str]] = []
    for names in sorted(accepted_pairs(document).values(), key=len):
        picked.append(chance.choice(sorted(names - set(picked))))
    return picked


def test_gold_aliases_picked_at_random_are_right(corpus):
    documents = read_corpus(corpus.pubtator).documents
    chance = random.Random(1)
    answers = {(d.id, task): Answer((), "empty") for d in documents for task in d.tasks}
    answers |= {(d.id, "relations"): Answer(tuple(pick_aliases(d, chance)), "ok") for d in documents}
    scored = score_conventions([], match_answers(documents, answers))
    assert scored["alias"]["figures"]["f1"] == 1
    assert scored["exact"]["figures"]["f1"] < 0.75
    assert scored["alias"]["figures"]["support"] == sum(len(gold_names(d)) for d in documents)
    if len(documents) == 500:
        assert scored["exact"]["figures"]["f1"] == pytest.approx(0.69, abs=0.04)
        assert scored["cooccurrence"]["concepts"]["f1"] == pytest.approx(0.32, abs=0.01)
