"""The trained baseline: it tags names by how they look, and the same articles give the same answers."""

from __future__ import annotations

import pytest

from data.sample.build import sample_documents
from data.schema import Document, Mention, Relation
from eval.scoring.crf import find_gold_names, label_words, open_crf, predict_with_crf, score_crf, train_crf, words_by_sentence
from eval.scoring.score import match_answers, score_predictions

ARTICLE = Document(
    "a", "Lithium caused renal failure. No tremor, said they.", None,
    (Mention("lithium", "Chemical"), Mention("renal failure", "Disease"), Mention("tremor", "Disease")),
    (Relation("lithium", "renal failure"),),
)  # fmt: skip


def test_words_are_labelled_by_the_longest_name():
    names = find_gold_names(ARTICLE)
    sentences = list(words_by_sentence(ARTICLE.article))
    labelled = [[(word.text, label) for word, label in zip(s, label_words(s, names), strict=True)] for s in sentences]
    assert [label for _, label in labelled[0]] == ["B-chemicals", "O", "B-diseases", "I-diseases", "O"]
    assert [text for text, label in labelled[1] if label == "B-diseases"] == ["tremor"]


@pytest.fixture(scope="module")
def articles():
    return sample_documents()[:160]


@pytest.mark.slow
def test_it_finds_names_that_it_never_saw(articles, tmp_path):
    """The sample's names are of one article each, so a dictionary of them finds none; their look tells a CRF much."""
    tagger = open_crf(train_crf(articles[:120], tmp_path / "crf"))
    predictions = predict_with_crf(tagger, articles[120:])
    figures = score_predictions(articles[120:], predictions)["tasks"]
    assert figures["chemicals"]["f1"] > 0.3 and figures["diseases"]["f1"] > 0.3 and figures["relations"]["f1"] > 0.1
    text = {document.id: document.article for document in articles}
    names = {(document, name) for (document, task), one in predictions.items() if task != "relations" for name in one.items}
    assert all(name in text[document] for document, name in names)


def test_the_same_articles_give_the_same_tagger_and_it_is_taught_once(articles, tmp_path):
    first, second = (train_crf(articles[:20], tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    scored = match_answers(articles[20:25], predict_with_crf(open_crf(first), articles[20:25]))
    before = first.stat().st_mtime_ns
    assert score_crf([], scored, first)["crf"]["chemicals"]["support"] > 0
    assert first.stat().st_mtime_ns == before


def test_relations_join_what_stands_in_one_sentence(tmp_path):
    documents = [Document(f"{ARTICLE.id}{n}", ARTICLE.text, None, ARTICLE.mentions, ARTICLE.relations) for n in range(8)]
    answers = predict_with_crf(open_crf(train_crf(documents, tmp_path / "crf")), documents[:1])
    assert answers["a0", "relations"].items == (("Lithium", "renal failure"),)
    assert answers["a0", "diseases"].items == ("renal failure", "tremor")
