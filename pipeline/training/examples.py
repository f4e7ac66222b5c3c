"""Documents -> what TRL trains on: token ids and a mask that is 1 on the answers and their end token, 0 elsewhere.

The mask is right by construction: every prompt's tokens must be a prefix of the chat's tokens, or the chat is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

from data.prompts import Layout, conversations, render_answer
from data.schema import TASKS, Document, InputError
from eval.turns import end_id, refuse_markers
from pipeline.plan.estimate import Lengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Example = dict[str, list[int]]


def encode_documents(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], layout: Layout) -> list[Example]:
    """One example a document and task (`separate`) or one a document (`conversation`)."""
    end, examples = end_id(tokenizer), []
    for document in documents:
        refuse_markers(tokenizer, document)
        refuse_markers_in_answers(tokenizer, document)
        examples += [encode_chat(tokenizer, chat, end, document.id) for chat in conversations(document, layout)]
    return examples


def refuse_markers_in_answers(tokenizer: PreTrainedTokenizerBase, document: Document) -> None:
    """Raises InputError where a gold name holds the text of a special token: an end token there would end the mask."""
    answers = "\n".join(render_answer(document.gold(task)) for task in document.tasks)
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in answers:
            raise InputError(f"document {document.id}: an answer holds the tokenizer's marker {token.content!r}; take it out")


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], end: int, where: str) -> Example:
    """{"input_ids", "completion_mask"} of a chat with its answers; both of the chat's length in tokens.

    Raises InputError naming the document `where` if a prompt's tokens are no prefix of the chat's: its mask would be wrong.
    """
    ids = _ids(tokenizer, messages, prompt=False)
    mask = [0] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _ids(tokenizer, messages[:turn], prompt=True)
        if ids[: len(prompt)] != prompt:
            raise InputError(f"document {where}: its prompt's tokens change once an answer follows; no loss mask is right")
        stop = ids.index(end, len(prompt))
        mask[len(prompt) : stop + 1] = [1] * (stop + 1 - len(prompt))
    last = len(mask) - mask[::-1].index(1)  # what a template writes after the last end token teaches nothing
    return {"input_ids": ids[:last], "completion_mask": mask[:last]}


def _ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def refuse_long(examples: Sequence[Example], owners: Sequence[str], max_length: int) -> None:
    """Raises InputError naming the documents longer than `max_length` tokens; TRL would cut their answers off."""
    long = [(len(e["input_ids"]), owner) for e, owner in zip(examples, owners, strict=True) if len(e["input_ids"]) > max_length]
    if long:
        named = ", ".join(f"{owner} ({length})" for length, owner in sorted(long, reverse=True)[:5])
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        raise InputError(
            f"{len(long)} examples are longer than model.max_length={max_length} tokens: {named}{more}\n"
            f"raise it (--set model.max_length={max(long)[0]}) or take these documents out"
        )


def owners_of(documents: Sequence[Document], layout: Layout) -> list[str]:
    """The document id of each example that `encode_documents` gives."""
    return [document.id for document in documents for _ in conversations(document, layout)]


def measure_lengths(encoded: Mapping[str, Sequence[Example]], budgets: Mapping[str, int], layout: Layout) -> Lengths:
    """What the plan needs to know of the data, by split: lengths in tokens, and positions when answering."""
    lengths = {name: tuple(len(example["input_ids"]) for example in examples) for name, examples in encoded.items()}
    answers = sum(budgets.values()) if layout == "conversation" else max(budgets.values(), default=0)
    return Lengths(
        train=lengths["train"],
        supervised=tuple(sum(example["completion_mask"]) for example in encoded["train"]),
        validation=lengths["validation"],
        answering=tuple(length + answers for length in lengths["test"]),
    )


def answer_budgets(tokenizer: PreTrainedTokenizerBase, train: Sequence[Document]) -> dict[str, int]:
    """By task, tokens enough for the longest answer of train and a quarter more, its end token included."""
    budgets = {}
    for task in TASKS:
        answers = [render_answer(document.gold(task)) for document in train if task in document.tasks]
        if answers:
            longest = max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"]))
            budgets[task] = ceil(1.25 * longest) + 8
    return budgets
