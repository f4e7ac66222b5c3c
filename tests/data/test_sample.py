"""The invented sample: its gold stands in its text, its names are its own, and any split by article leaves names unseen."""

from __future__ import annotations

import json
import re
from itertools import islice
from random import Random

import pytest

from data.near_duplicates import near_duplicates
from data.prompts import render_prompt
from data.readers.rows import join_rows, read_rows
from data.sample import sentences as sample_words
from data.sample.build import PATH, new_document, render_sample, sample_documents
from data.sample.names import FORMS, Source, new_abbreviation, new_name, side_of
from data.schema import MENTION_TYPE, TASKS
from data.split import split_documents
from data.text import FoldedText, fold
from eval.scoring.baselines import score_baselines
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers
from tools.tiny_base.text import LINKS, new_article

DOCUMENTS = sample_documents()


def test_the_file_is_what_the_generator_writes():
    assert PATH.read_text(encoding="utf-8") == render_sample()


def test_the_file_is_in_the_users_shape_and_reads_back_to_the_same_gold():
    first = json.loads(PATH.read_text(encoding="utf-8").splitlines()[0])
    assert first["prompt"] == render_prompt(DOCUMENTS[0].article, "chemicals") + "\n"
    read = join_rows(read_rows(PATH))
    assert [document.article for document in read] == [document.article for document in DOCUMENTS]
    for task in TASKS:
        assert [document.gold(task) for document in read] == [document.gold(task) for document in DOCUMENTS]


def test_another_seed_gives_other_articles():
    assert sample_documents(5, seed=1) == sample_documents(5, seed=1) != sample_documents(5, seed=2)


def test_mentions_stand_where_they_say_as_whole_words_and_none_is_missed():
    for document in DOCUMENTS:
        places = {(m.start, m.end) for m in document.mentions}
        for mention in document.mentions:
            assert document.article[mention.start : mention.end] == mention.text
            for place in FoldedText(document.article).spans(mention.text):
                assert any(start <= place[0] and place[1] <= end for start, end in places), (mention.text, document.article)


def test_a_relation_names_the_first_mention_of_each_side():
    for document in DOCUMENTS:
        first = {}
        for mention in sorted(document.mentions, key=lambda mention: mention.start):
            first.setdefault(fold(mention.text), mention.text)
        for relation in document.relations:
            assert first[fold(relation.chemical)] == relation.chemical
            assert first[fold(relation.disease)] == relation.disease


@pytest.mark.parametrize("task", MENTION_TYPE)
def test_no_two_articles_share_a_name(task):
    owner = {}
    for document in DOCUMENTS:
        for name in document.gold(task):
            assert owner.setdefault(fold(name), document.id) == document.id


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_article_leaves_the_dictionary_nothing(seed):
    split = split_documents(DOCUMENTS, seed)
    assert [len(split[name]) for name in ("train", "validation", "test")] == [832, 104, 104]
    nothing = {(document.id, task): Answer((), "empty") for document in split["test"] for task in TASKS}
    baselines = score_baselines(split["train"], match_answers(split["test"], nothing))
    assert max(baselines["dictionary"][task]["f1"] for task in TASKS) <= 0.02
    assert baselines["cooccurrence"]["relations"]["f1"] <= 0.02


def test_no_two_articles_are_near_duplicates():
    assert near_duplicates([document.article for document in DOCUMENTS]) == []


def test_what_makes_it_hard_is_there():
    def share(has):
        return sum(bool(has(document)) for document in DOCUMENTS) / len(DOCUMENTS)

    assert share(lambda d: not d.gold("chemicals")) > 0.05
    assert share(lambda d: not d.gold("diseases")) > 0.05
    assert share(lambda d: d.gold("chemicals") and d.gold("diseases") and not d.relations) > 0.1
    assert share(lambda d: len(d.relations) > 1) > 0.2
    assert share(lambda d: any(len({fold(n) for n in d.gold(t)}) < len(d.gold(t)) for t in MENTION_TYPE)) > 0.2
    assert share(lambda d: any(f"({n})" in d.article for t in MENTION_TYPE for n in d.gold(t))) > 0.3
    assert share(lambda d: any(re.search(r"\d|-", n) for n in d.gold("chemicals"))) > 0.2


def test_forms_that_several_kinds_share_need_their_context():
    forms = {kind: {form.upper() for form in forms} for kind, forms in FORMS.items()}
    for kind in ("disease", "gene"):
        assert forms["chemical"] & forms[kind]


def test_pairs_that_are_treated_or_denied_are_not_related():
    for document in DOCUMENTS:
        for sentence in re.split(r"(?<=[a-z)])\. |\n", document.article):
            denied = re.search(r"did not (cause|induce|provoke) (.+)", sentence)
            if denied and sentence.split(" did not")[0].split(", ")[-1]:
                pairs = {(fold(c), fold(d)) for c, d in document.gold("relations")}
                assert (fold(sentence.split(" did not")[0].split(", ")[-1]), fold(denied[2].rstrip("."))) not in pairs


def test_pretraining_and_sample_share_no_stem_and_no_name():
    sample = Source(Random(0), "sample", set())
    names = {fold(m.text) for document in islice((new_document(sample, i) for i in range(300)), 300) for m in document.mentions}
    pretraining = Source(Random(0), "pretraining", set())
    for _ in range(300):
        draft, _, _ = new_article(pretraining)
        for _, start, end in draft.mentions:
            assert fold(draft.text[start:end]) not in names
    assert sample.used.isdisjoint(pretraining.used) and len(sample.used) > 1000 and len(pretraining.used) > 1000
    assert {side_of(stem) for stem in sample.used} == {"sample"}
    assert {side_of(stem) for stem in pretraining.used} == {"pretraining"}


def test_the_shipped_sample_keeps_to_its_side():
    form = re.compile(r"(?:acute |chronic |juvenile |sodium |chlor|hyper)([a-z]+)(?:itis|osis|asthenia|ate|ine|emia)")
    stems = [found[1] for document in DOCUMENTS for m in document.mentions if (found := form.fullmatch(fold(m.text)))]
    assert len(stems) > 300 and {side_of(stem) for stem in stems} == {"sample"}


def test_no_causing_verb_of_the_sample_is_a_link_of_pretraining():
    causes = " ".join((*sample_words.CAUSES, *sample_words.CAUSES_TWO_CHEMICALS, *sample_words.CAUSES_TWO_DISEASES))
    said = set(re.findall(r"[a-z]+", causes))
    verbs = {form for _, _, verbs in LINKS.values() for verb in verbs for form in verb.split()}
    assert said.isdisjoint(verbs)


@pytest.mark.parametrize("kind", FORMS)
def test_names_are_fresh(kind):
    source = Source(Random(3), "sample", set())
    names = [new_name(source, kind) for _ in range(200)]
    assert kind == "dose" or len(set(map(fold, names))) == 200


def test_an_abbreviation_is_made_of_the_names_letters_in_order():
    short = new_abbreviation(Source(Random(1), "sample", set()), "melkinazole hydrochloride")
    letters = iter("melkinazole hydrochloride")
    assert short.isupper() and short[0] == "M" and all(letter in letters for letter in short.lower())


def test_a_name_too_short_has_no_abbreviation():
    assert new_abbreviation(Source(Random(1), "sample", set()), "5-X") is None
