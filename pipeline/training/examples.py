"""Documents -> what TRL trains on: token ids and a mask that is 1 on the answers and their end token, 0 elsewhere.

Both are made by `eval.chat_template`, from the very ids that generation reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

from data.prompts import Layout, conversations, render_answer
from data.schema import TASKS, Document, InputError
from eval.chat_template import ChatTemplate, read_template
from pipeline.plan.estimate import Chats, Lengths, chat_budget

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = dict[str, list[int]]


def encode_documents(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], layout: Layout) -> list[Example]:
    """One example a document and task (`separate`) or one a document (`conversation`)."""
    template = read_template(tokenizer)
    return [
        encode_messages(template, messages, document.id)
        for document in documents
        for messages in conversations(document, layout)
    ]


def encode_messages(template: ChatTemplate, messages: list[dict[str, str]], where: str) -> Example:
    """{"input_ids", "completion_mask"} of a chat with its answers; both of the chat's length in tokens.

    Raises InputError naming the document `where` if the template or the tokenizer lets no loss mask be right.
    """
    prompts, answers = ([one["content"] for one in messages if one["role"] == role] for role in ("user", "assistant"))
    try:
        ids, mask = template.masked_ids(prompts, answers)
    except InputError as error:
        raise InputError(f"document {where}: {error}") from None
    return {"input_ids": ids, "completion_mask": mask}


def owners_of(documents: Sequence[Document], layout: Layout) -> tuple[str, ...]:
    """The document id of each example that `encode_documents` gives."""
    return tuple(document.id for document in documents for _ in conversations(document, layout))


def measure_lengths(
    encoded: Mapping[str, Sequence[Example]],
    split: Mapping[str, Sequence[Document]],
    budgets: Mapping[str, int],
    layout: Layout,
) -> Lengths:
    """What the plan needs to know of the data, in tokens; `encoded` is what `encode_documents` makes of each split."""
    chats = {}
    for name, examples in encoded.items():
        answered = tuple(sum(example["completion_mask"]) for example in examples)
        read = tuple(len(example["input_ids"]) - count for example, count in zip(examples, answered, strict=True))
        chats[name] = Chats(read, answered, owners_of(split[name], layout))
    return Lengths(**chats, budgets=dict(budgets), budget=chat_budget(budgets, layout))


def answer_budgets(tokenizer: PreTrainedTokenizerBase, train: Sequence[Document]) -> dict[str, int]:
    """By task, tokens enough for the longest answer of train and a quarter more, its end token included."""
    encode, budgets = read_template(tokenizer).encode, {}
    for task in TASKS:
        answers = [render_answer(document.gold(task)) for document in train if task in document.tasks]
        if answers:
            budgets[task] = ceil(1.25 * max(len(encode(answer)) for answer in answers)) + 8
    return budgets
