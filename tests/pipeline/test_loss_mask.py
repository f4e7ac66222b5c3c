"""Documents as token ids and masks: what is trained on is each answer and its end, and every prompt is generation's own."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from articles import invent
from tiny_llama import tiny_tokenizer

from data.prompts import LAYOUTS, answer_of, conversations, group_tasks, order_tasks
from data.schema import SPLITS, TASKS, Document, InputError, Mention, Relation
from eval.chat_template import read_template
from eval.chats import Request, plan_chats
from pipeline.base_model import TINY
from pipeline.config import apply_settings
from pipeline.model import load_tokenizer
from pipeline.plan.lengths import answer_budgets, count_lengths, refuse_long
from pipeline.training.loss_mask import encode_documents, encode_messages

DOCUMENTS = [
    Document(
        "one",
        "Zoltamine (ZOL-5) was followed by gout  and\ttremor, 3.5 mg/kg.",
        "β-Zoltamine™",
        (Mention("Zoltamine", "Chemical"), Mention("ZOL-5", "Chemical"), Mention("gout", "Disease")),
        (Relation("Zoltamine", "gout"), Relation("ZOL-5", "tremor")),
    ),
    Document("two", "Nothing happened."),
    Document("three", "Lead.", mentions=(Mention("Lead", "Chemical"),), tasks=("chemicals", "relations")),
]


@pytest.fixture(scope="module", params=["random", "shipped"])
def tokenizer(request):
    return tiny_tokenizer() if request.param == "random" else load_tokenizer(TINY)


def trained_on(tokenizer, example):
    """The text of each run of supervised tokens."""
    runs, before = [], 0
    for token, supervised in zip(example["input_ids"], example["completion_mask"], strict=True):
        if supervised and not before:
            runs.append([])
        if supervised:
            runs[-1].append(token)
        before = supervised
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_trained_on_is_the_answers_and_their_ends(tokenizer, layout):
    examples = encode_documents(tokenizer, DOCUMENTS, layout)
    expected = [
        [f"{answer_of(document, task)}<|eot_id|>" for task in group]
        for document in DOCUMENTS
        for group in group_tasks(document.tasks, layout)
    ]
    assert [trained_on(tokenizer, example) for example in examples] == expected
    for example in examples:
        assert example["input_ids"].count(tokenizer.bos_token_id) == 1 and example["input_ids"][0] == tokenizer.bos_token_id
        assert example["input_ids"][-1] == read_template(tokenizer).end and example["completion_mask"][-1] == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_prompt_is_generations_own(tokenizer, layout):
    examples = encode_documents(tokenizer, DOCUMENTS, layout)
    chats, template = plan_chats(DOCUMENTS, layout=layout, max_new_tokens=5), read_template(tokenizer)
    for chat, example in zip(chats, examples, strict=True):
        ids, mask = [], []
        for task, turn in zip(chat.tasks, template.prompt_ids(chat.prompts), strict=True):
            answer = tokenizer(answer_of(chat.document, task), add_special_tokens=False)["input_ids"]
            ids += [*turn, *answer]
            # the end token of an answer opens the ids that generation reads before the next one
            mask += [int(bool(mask)), *[0] * (len(turn) - 1), *[1] * len(answer)]
        assert example == {"input_ids": [*ids, template.end], "completion_mask": [*mask, 1]}


def with_template(tokenizer, change):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = tokenizer.chat_template.replace(*change)
    assert changed.chat_template != tokenizer.chat_template
    return changed


def test_a_prompt_that_changes_once_an_answer_follows_is_refused():
    """With another split, a prompt's last line breaks become one token with what follows: no mask by length is right."""
    changed = with_template(tiny_tokenizer(), ("'<|start_header_id|>assistant<|end_header_id|>\\n\\n'", "'assistant: '"))
    with pytest.raises(InputError, match="document one: its prompt's tokens change once an answer follows"):
        encode_documents(changed, DOCUMENTS[:1], "separate")


def test_what_a_template_writes_after_the_last_end_is_not_trained_on():
    changed = with_template(tiny_tokenizer(), ("{%- endfor %}", "{%- endfor %}{{- 'bye' }}"))
    chat = conversations(DOCUMENTS[0], "separate")[0]
    example = encode_messages(read_template(tiny_tokenizer()), chat, "one")
    assert example == encode_messages(read_template(with_tail_only_after_answers(changed)), chat, "one")


def with_tail_only_after_answers(tokenizer):
    return with_template(tokenizer, ("{{- 'bye' }}", "{%- if not add_generation_prompt %}{{- 'bye' }}{%- endif %}"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "document",
    [
        Document("one", "An <|eot_id|> in the text."),
        Document("one", "A text.", "A <|start_header_id|> in the title"),
        Document("one", "A text.", mentions=(Mention("an <|eot_id|> name", "Chemical"),)),
        Document("one", "A text.", relations=(Relation("a", "<|end_of_text|>"),)),
    ],
)
def test_special_tokens_in_a_document_are_trained_on_as_text(document, layout):
    """The ids of the same document without them hold each special token as often, so none comes from the document."""
    tokenizer = tiny_tokenizer()
    plain = replace(
        document,
        text=document.text.replace("<|", "( "),
        title=document.title and document.title.replace("<|", "( "),
        mentions=tuple(replace(mention, text="name") for mention in document.mentions),
        relations=tuple(Relation("a", "b") for _ in document.relations),
    )
    special = set(tokenizer.all_special_ids)
    for one, other in zip(*(encode_documents(tokenizer, [each], layout) for each in (document, plain)), strict=True):
        assert [i for i in one["input_ids"] if i in special] == [i for i in other["input_ids"] if i in special]
    answers = [f"{answer_of(document, task)}<|eot_id|>" for task in order_tasks(TASKS, layout)]
    examples = encode_documents(tokenizer, [document], layout)
    assert [answer for example in examples for answer in trained_on(tokenizer, example)] == answers


def test_lengths_are_counted_and_long_examples_refused_with_their_documents():
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    split = {"train": DOCUMENTS, "validation": DOCUMENTS[:1], "test": DOCUMENTS[:1]}
    train = count_lengths(tiny_tokenizer(), split, apply_settings({"train.layout": "conversation"})).train
    owners = count_lengths(tiny_tokenizer(), split, apply_settings({"train.layout": "separate"})).train.owners
    assert owners == ("one",) * 3 + ("two",) * 3 + ("three",) * 2
    lengths = [len(example["input_ids"]) for example in examples]
    assert list(train.whole) == lengths and train.owners == ("one", "two", "three")
    refuse_long(train.whole, train.owners, max(lengths), 4096)
    with pytest.raises(InputError) as refused:
        refuse_long(train.whole, train.owners, min(lengths), 4096)
    assert f"one ({lengths[0]})" in str(refused.value) and f"two ({lengths[1]})" in str(refused.value)
    assert "three" not in str(refused.value) and f"--set model.max_length={max(lengths)}" in str(refused.value)
    with pytest.raises(InputError, match="7 examples are longer .* and 2 more"):
        refuse_long([9] * 7, ["one"] * 7, 1, 4096)


def test_budgets_hold_the_longest_answer_of_train_with_its_end():
    tokenizer = tiny_tokenizer()
    budgets = answer_budgets(tokenizer, DOCUMENTS)
    assert list(budgets) == list(TASKS)
    for task, budget in budgets.items():
        for document in DOCUMENTS:
            assert len(tokenizer(answer_of(document, task))["input_ids"]) + 1 < budget
    assert answer_budgets(tokenizer, [DOCUMENTS[2]]).keys() == {"chemicals", "relations"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_longest_chat_that_the_plan_counts_is_the_longest_that_an_engine_is_asked(layout):
    """Else a model loaded for the planned length refuses, after training, what the plan has allowed."""
    documents, tokenizer = invent(12), load_tokenizer(TINY)
    budgets = answer_budgets(tokenizer, documents)
    lengths = count_lengths(tokenizer, dict.fromkeys(SPLITS, documents), apply_settings({"train.layout": layout}))
    chats = plan_chats(documents, layout=layout, max_new_tokens=budgets)
    requests = [Request(chat, read_template(tokenizer).prompt_ids(chat.prompts)) for chat in chats]
    longest = max(request.positions for request in requests)
    assert lengths.longest_answering == longest if layout != "separate" else lengths.longest_answering >= longest
