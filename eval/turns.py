"""A chat in token ids: what the chat template makes of its prompts, cut where the answers go.

The ids are what training saw: each turn's are exactly those that the template renders after the answer before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.prompts import SYSTEM
from data.schema import Document, InputError
from eval.chats import Chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "- sentinel"  # stands for an answer where the template is asked what follows one


@dataclass(frozen=True)
class Turns:
    """A chat in token ids: `ids[i]` is all that the model reads between its answers i-1 and i, the end token first."""

    chat: Chat
    ids: tuple[tuple[int, ...], ...]

    @property
    def positions(self) -> int:
        """The most positions that prompts and answers can take."""
        return sum(map(len, self.ids)) + sum(self.chat.budgets)


def turn_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[tuple[int, ...], ...]:
    """What the tokenizer's chat template makes of the chat's prompts, cut where the answers go.

    Raises InputError where the article holds one of the tokenizer's markers, or the template does not keep what it
    rendered before an answer once the answer is there.
    """
    refuse_markers(tokenizer, chat.document)
    texts = turn_texts(
        lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), chat
    )
    turns = tuple(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    if tokenizer.bos_token_id is not None and [i for i in turns[0] if i == tokenizer.bos_token_id] != [turns[0][0]]:
        raise InputError("the chat template must write exactly one begin-of-text token, and first")
    return turns


def turn_texts(render: Callable[[list[dict[str, str]]], str], chat: Chat) -> list[str]:
    """The chat's turns as `render` writes messages, up to where the next answer goes; each begins where the last one ended."""
    messages, read, texts = [{"role": "system", "content": SYSTEM}], "", []
    for prompt in chat.prompts:
        messages.append({"role": "user", "content": prompt})
        text = render(messages)
        if not text.startswith(read):
            raise InputError("the chat template changes earlier turns when later ones come; conversations cannot be generated")
        texts.append(text[len(read) :])
        read = text + SENTINEL
        messages.append({"role": "assistant", "content": SENTINEL})
    return texts


def refuse_markers(tokenizer: PreTrainedTokenizerBase, document: Document) -> None:
    """Raises InputError where the article holds the text of one of the tokenizer's special tokens."""
    marker = _markers(tokenizer).search(document.article)
    if marker:
        raise InputError(f"document {document.id}: its article holds the tokenizer's marker {marker[0]!r}; take it out")


def _markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    """Matches the text of any special token: read from an article, it would end the user's turn."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the chat template ends an answer: `<|eot_id|>` for Llama 3."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": SENTINEL}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).partition(SENTINEL)[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in tokenizer.added_tokens_decoder:
        raise InputError("the chat template does not end an answer with a token of its own; generation could not stop")
    return ids[0]


def refuse_too_long(turns: Sequence[Turns], limit: int) -> None:
    """Raises InputError naming the documents whose prompts and answers may take more positions than the model has."""
    long = [one for one in turns if one.positions > limit]
    if long:
        worst = max(long, key=lambda one: one.positions)
        raise InputError(
            f"document {worst.chat.document.id} needs {worst.positions} positions, {sum(worst.chat.budgets)} of them for "
            f"answers; the model has {limit}, too few for {len(long)} of {len(turns)} chats: shorten or lower max_new_tokens"
        )
