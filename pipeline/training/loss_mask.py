"""The loss mask: documents -> token ids and a mask, 1 on what is trained (the answers and their end tokens), 0 elsewhere.

The ids are those that generation reads: `eval.chat_template` makes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.prompts import Layout, conversations
from data.schema import Document, InputError
from eval.chat_template import ChatTemplate, read_template
from pipeline.config import Train
from pipeline.training.negatives import add_negatives

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = dict[str, list[int]]


def encode_documents(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], layout: Layout) -> list[Example]:
    """One example a document and task (`separate`), or one a document."""
    template = read_template(tokenizer)
    return [
        encode_messages(template, messages, document.id)
        for document in documents
        for messages in conversations(document, layout)
    ]


def encode_split(
    tokenizer: PreTrainedTokenizerBase, split: Mapping[str, Sequence[Document]], train: Train
) -> tuple[list[Example], list[Example], tuple[str, ...]]:
    """What a job trains on and validates on, the same in each of its processes: train's examples, with the texts without names
    that the settings ask for, validation's, and the document id of each of train's.
    """
    learnt = add_negatives(split["train"], train.negatives)
    examples, validation = (encode_documents(tokenizer, some, train.layout) for some in (learnt, split["validation"]))
    return examples, validation, owners_of(learnt, train.layout)


def encode_messages(template: ChatTemplate, messages: list[dict[str, str]], where: str) -> Example:
    """{"input_ids", "completion_mask"} of a chat with its answers; both of the chat's length in tokens.

    Raises InputError naming the document `where` if the template or the tokenizer lets no loss mask be right.
    """
    prompts, answers = ([one["content"] for one in messages if one["role"] == role] for role in ("user", "assistant"))
    try:
        ids, mask = masked_ids(template, prompts, answers)
    except InputError as error:
        raise InputError(f"document {where}: {error}") from None
    return {"input_ids": ids, "completion_mask": mask}


def owners_of(documents: Sequence[Document], layout: Layout) -> tuple[str, ...]:
    """The document id of each example that `encode_documents` gives."""
    return tuple(document.id for document in documents for _ in conversations(document, layout))


def masked_ids(template: ChatTemplate, prompts: Sequence[str], answers: Sequence[str]) -> tuple[list[int], list[int]]:
    """The ids of a whole chat, up to its last end token, and its mask: 1 on answers and their end tokens, 0 elsewhere.

    Raises InputError where a prompt's tokens change once an answer follows: generation would read others than training.
    """
    if len(template.turns) < 2:
        raise InputError("its prompt's tokens change once an answer follows; no loss mask is right")
    ids: list[int] = []
    mask: list[int] = []
    for number, (turn, answer) in enumerate(zip(template.prompt_ids(prompts), answers, strict=True)):
        own = template.answer_ids(number, prompts, answer)
        ids += [*turn, *own]
        mask += [int(number > 0), *[0] * (len(turn) - 1), *[1] * len(own)]  # a later turn opens with the end token
    return [*ids, template.end], [*mask, 1]
