"""The baselines: a dictionary of train's names, and co-occurrence of those it finds."""

from __future__ import annotations

import numpy as np
import pytest

from data.corpus import read_corpus
from data.schema import TASKS, Document, Mention, Relation
from eval.scoring.baselines import baseline_predictions, learn_dictionary, look_up, score_baselines
from eval.scoring.parse import Answer
from eval.scoring.score import count_documents, match_answers
from eval.scoring.stats import f1_of


def document(name: str, text: str, chemicals=(), diseases=(), relations=()) -> Document:
    mentions = [Mention(c, "Chemical") for c in chemicals] + [Mention(d, "Disease") for d in diseases]
    return Document(name, text, None, tuple(mentions), tuple(Relation(*pair) for pair in relations))


TRAIN = [
    document("1", "Lithium caused tremor.", ["Lithium"], ["tremor"], [("Lithium", "tremor")]),
    document("2", "No one had a fit after NO was given.", ["NO"], ["fit"]),
    document("3", "They were fit, and no harm was seen.", [], []),
    document("4", "All were fit; no drug was given.", [], []),
]


def test_names_are_looked_up_as_whole_words_in_any_letter_case():
    found = look_up(learn_dictionary(TRAIN), document("5", "LITHIUM and tremor, not lithiums or tremors."))
    assert found == {"chemicals": ("LITHIUM",), "diseases": ("tremor",)}


def test_a_name_that_is_mostly_an_ordinary_word_is_left_out():
    names = learn_dictionary(TRAIN).task_of
    assert "lithium" in names
    assert "fit" not in names and "no" not in names


def test_relations_are_those_of_train_or_all_that_stand_together():
    new = [document("5", "Lithium, tremor."), document("6", "Lithium here.")]
    dictionary = learn_dictionary([*TRAIN, document("7", "Goitre.", [], ["Goitre"])])
    known = baseline_predictions(dictionary, new, "dictionary")
    every = baseline_predictions(dictionary, [document("8", "Lithium, tremor, goitre.")], "cooccurrence")
    assert known["5", "relations"].items == (("Lithium", "tremor"),)
    assert known["6", "relations"].status == "empty"
    assert set(every["8", "relations"].items) == {("Lithium", "tremor"), ("Lithium", "goitre")}


def test_every_task_of_every_document_is_answered_and_scored():
    answers = {(d.id, task): Answer((), "empty") for d in TRAIN for task in d.tasks}
    scores = score_baselines(TRAIN, match_answers(TRAIN, answers))
    assert scores["dictionary"].keys() == set(TASKS) and scores["cooccurrence"].keys() == {"relations"}
    assert scores["dictionary"]["relations"]["f1"] == 1.0


@pytest.mark.slow
def test_by_five_folds_of_articles_it_is_as_hard_to_beat_as_published(shared_data):
    """76.4 and 69.6 were measured for a dictionary of train names without leaks; the original project scored 49.5 and 57.5."""
    documents = read_corpus(shared_data / "both_rel_instruct_all.jsonl").documents
    counts = {task: np.zeros(3, dtype=int) for task in ("chemicals", "diseases")}
    for fold in range(5):
        train = [one for i, one in enumerate(documents) if i % 5 != fold]
        test = documents[fold::5]
        found = count_documents(test, baseline_predictions(learn_dictionary(train), test, "dictionary"))
        for task in counts:
            counts[task] += found[task].sum(axis=0)
    assert f1_of(counts["chemicals"]) == pytest.approx(0.764, abs=0.02)
    assert f1_of(counts["diseases"]) == pytest.approx(0.70, abs=0.02)
