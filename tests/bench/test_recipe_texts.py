"""The texts of recipes that no setting makes: in another order, in every spelling, behind lists with errors."""

from __future__ import annotations

from pathlib import Path

from bench.recipe_texts import Texts, encode_texts, noisy_chats
from data.corpus import read_corpus
from data.prompts import LAYOUTS, answer_of, conversations, render_answer, render_next_prompt, render_prompt
from data.schema import Document, Mention
from eval.chats import plan_chats
from pipeline.model import load_tokenizer, model_path
from pipeline.training.loss_mask import encode_documents

DOCUMENTS = read_corpus(Path(__file__).parents[2] / "data" / "sample.jsonl").documents[:12]
RELATIONS_FIRST = ("relations", "chemicals", "diseases")


def learnt(tokenizer, example) -> str:
    marked = zip(example["input_ids"], example["completion_mask"], strict=True)
    return tokenizer.decode([one for one, counts in marked if counts])


def test_nothing_asked_changes_nothing():
    tokenizer = load_tokenizer(model_path("tiny"), None)
    for layout in LAYOUTS:
        assert encode_texts(tokenizer, DOCUMENTS, layout, Texts()) == encode_documents(tokenizer, DOCUMENTS, layout)


def test_tasks_are_taught_and_asked_in_the_order_that_is_given():
    (chat,) = conversations(DOCUMENTS[0], "conversation", RELATIONS_FIRST)
    own = [one["content"] for one in chat[1:]]
    first = [render_prompt(DOCUMENTS[0].article, "relations"), *map(render_next_prompt, RELATIONS_FIRST[1:])]
    assert own[::2] == first and own[1::2] == [answer_of(DOCUMENTS[0], task) for task in RELATIONS_FIRST]
    (asked,) = plan_chats(DOCUMENTS[:1], layout="conversation", tasks=RELATIONS_FIRST, max_new_tokens=9)
    assert asked.tasks == RELATIONS_FIRST and list(asked.prompts) == first
    tokenizer = load_tokenizer(model_path("tiny"), None)
    example = encode_texts(tokenizer, DOCUMENTS[:1], "conversation", Texts(order=RELATIONS_FIRST))[0]
    places = [learnt(tokenizer, example).index(answer_of(DOCUMENTS[0], task)) for task in RELATIONS_FIRST]
    assert places == sorted(places)


def test_every_spelling_is_taught_where_it_is_asked_in_any_order():
    twice = Document("1", "Li or li gave gout.", mentions=(Mention("Li", "Chemical"), Mention("li", "Chemical")))
    tokenizer = load_tokenizer(model_path("tiny"), None)
    for order in (None, RELATIONS_FIRST):
        example = encode_texts(tokenizer, [twice], "conversation", Texts(order=order, every_spelling=True))[0]
        assert "- Li\n- li" in learnt(tokenizer, example)


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
