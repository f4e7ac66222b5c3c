"""The texts of recipes that no setting makes: in every spelling, behind lists with errors, without titles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.recipe_texts import Texts, as_shown, encode_texts, noisy_chats
from data.corpus import read_corpus
from data.prompts import LAYOUTS, answer_of, render_answer
from data.schema import Document, Mention, Relation
from pipeline.model import load_tokenizer, model_path
from pipeline.training.loss_mask import encode_documents

DOCUMENTS = read_corpus(Path(__file__).parents[2] / "data" / "sample.jsonl").documents[:12]


def learnt(tokenizer, example) -> str:
    marked = zip(example["input_ids"], example["completion_mask"], strict=True)
    return tokenizer.decode([one for one, counts in marked if counts])


def test_nothing_asked_changes_nothing():
    tokenizer = load_tokenizer(model_path("tiny"), None)
    for layout in LAYOUTS:
        assert encode_texts(tokenizer, DOCUMENTS, layout, Texts()) == encode_documents(tokenizer, DOCUMENTS, layout)


def test_every_spelling_is_taught_where_it_is_asked_in_any_layout():
    twice = Document("1", "Li or li gave gout.", mentions=(Mention("Li", "Chemical"), Mention("li", "Chemical")))
    tokenizer = load_tokenizer(model_path("tiny"), None)
    for layout in LAYOUTS:
        examples = encode_texts(tokenizer, [twice], layout, Texts(every_spelling=True))
        assert "- Li\n- li" in "".join(learnt(tokenizer, example) for example in examples)


def test_without_titles_the_text_and_its_names_are_left_and_every_relation():
    mentions = (Mention("dopa", "Chemical", 3, 7), Mention("gout", "Disease", 19, 23))
    one = Document("1", "It helped, gout.", "On dopa", mentions, (Relation("dopa", "gout"),))
    (shown,) = as_shown([one], Texts(titles=False))
    (mention,) = shown.mentions
    assert shown.article == one.text and shown.article[mention.start : mention.end] == mention.text == "gout"
    assert shown.names("chemicals") == () and shown.pairs() == (("dopa", "gout"),)
    assert as_shown([one], Texts()) == [one] and as_shown([shown], Texts(titles=False)) == [shown]
    bare = [replace(one, start=None, end=None) for one in mentions]  # as rows have them
    (shown,) = as_shown([Document("1", one.text, one.title, tuple(bare))], Texts(titles=False))
    assert shown.mentions == (bare[1],)
    tokenizer = load_tokenizer(model_path("tiny"), None)
    (example,) = encode_texts(tokenizer, [one], "conversation", Texts(titles=False))
    assert "On dopa" not in tokenizer.decode(example["input_ids"]) and "dopa | gout" in learnt(tokenizer, example)


def test_behind_lists_with_errors_only_the_right_relations_are_learnt():
    tokenizer = load_tokenizer(model_path("tiny"), None)
    plain = encode_documents(tokenizer, DOCUMENTS, "conversation")
    examples = encode_texts(tokenizer, DOCUMENTS, "conversation", Texts(noisy_lists=2))
    assert examples[: len(plain)] == plain and len(examples) == len(plain) + 6
    again = list(noisy_chats(DOCUMENTS, 2))
    assert again == list(noisy_chats(DOCUMENTS, 2)) and [document for document, _ in again] == list(DOCUMENTS[::2])
    changed = 0
    for (document, chat), example in zip(again, examples[len(plain) :], strict=True):
        assert learnt(tokenizer, example).startswith(render_answer(document.gold("relations")))
        assert len(learnt(tokenizer, example)) < len(render_answer(document.gold("relations"))) + 20
        changed += [one["content"] for one in chat[2:5:2]] != [answer_of(document, task) for task in ("chemicals", "diseases")]
    assert changed >= 3
