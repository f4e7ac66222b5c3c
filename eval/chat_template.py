"""A chat as token ids: its prompts and answers as the model's chat template writes them, and the loss mask of a chat.

    <|im_start|>user\\n{prompt}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>

The template is rendered with placeholders where contents go, and cut at the special tokens that it writes itself. What lies
between two of those, contents included, is encoded as ordinary text: an article that holds `<|im_end|>` is read as these ten
characters, and no text can end its turn. Training and every engine that sends ids take them from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.prompts import SYSTEM
from data.schema import TASKS, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
Ids = tuple[int, ...]
PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")  # stands for a content while the template is rendered


@dataclass(frozen=True)
class Turn:
    """What the template writes from one answer's end (or the chat's start) to where the next answer goes.

    `pieces`: ids of what is the same in every chat, and texts with placeholders. `opening`: its text after its last special
    token, which an answer goes on from.
    """

    pieces: tuple[Ids | str, ...]
    opening: str


@dataclass(frozen=True)
class ChatTemplate:
    """`encode` reads text as ordinary characters, special tokens never; `end` is the token that ends an answer."""

    turns: tuple[Turn, ...]
    encode: Callable[[str], list[int]]
    end: int

    def prompt_ids(self, prompts: Sequence[str], given: Sequence[str] = ()) -> tuple[Ids, ...]:
        """For each prompt, all ids that the model reads between the answer before it and its own answer.

        From the second on they begin with the end token. `given`: answers to the first prompts, which are read with the prompt
        after them. Raises InputError where the template rewrites earlier turns.
        """
        if len(prompts) > len(self.turns):
            raise InputError("the chat template changes earlier turns when later ones come: use train.layout=separate")
        contents = [text.strip() for text in (SYSTEM, *prompts)]  # as templates trim them
        turns = tuple(tuple(self._encode_turn(turn, contents)) for turn in self.turns[: len(prompts)])
        read: list[int] = []
        for turn, ids, answer in zip(self.turns, turns, given, strict=False):
            read += [*ids, *self._answer_ids(fill(turn.opening, contents), answer)]
        return ((*read, *turns[len(given)]), *turns[len(given) + 1 :])

    def _encode_turn(self, turn: Turn, contents: Sequence[str]) -> Iterator[int]:
        for piece in turn.pieces:
            yield from self.encode(fill(piece, contents)) if isinstance(piece, str) else piece

    def _answer_ids(self, opening: str, answer: str) -> list[int]:
        """An answer's ids without the end token, `opening` being the text that it goes on from."""
        prompt, both = self.encode(opening), self.encode(opening + answer.strip())
        if both[: len(prompt)] != prompt:
            raise InputError("its prompt's tokens change once an answer follows; no loss mask is right")
        return both[len(prompt) :]

    def masked_ids(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[list[int], list[int]]:
        """The ids of a whole chat, up to its last end token, and a mask: 1 on answers and their end tokens, 0 elsewhere.

        Raises InputError where a prompt's tokens change once an answer follows: generation would read others than training.
        """
        if len(self.turns) < 2:
            raise InputError("its prompt's tokens change once an answer follows; no loss mask is right")
        ids: list[int] = []
        mask: list[int] = []
        contents = [text.strip() for text in (SYSTEM, *prompts)]
        for number, (turn, answer) in enumerate(zip(self.prompt_ids(prompts), answers, strict=True)):
            own = self._answer_ids(fill(self.turns[number].opening, contents), answer)
            ids += [*turn, *own]
            mask += [int(number > 0), *[0] * (len(turn) - 1), *[1] * len(own)]  # a later turn opens with the end token
        return [*ids, self.end], [*mask, 1]


def read_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The chat template of a tokenizer. Raises InputError where it writes no begin-of-text token first, or two of them."""
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}

    def render(messages: Sequence[Message]) -> str:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    template = build_template(render, encode, special)
    first = template.prompt_ids(["a"])[0]
    if tokenizer.bos_token_id is not None and (first[0] != tokenizer.bos_token_id or first[1] == tokenizer.bos_token_id):
        raise InputError("the chat template must write exactly one begin-of-text token, and first")
    text = render([{"role": "system", "content": SYSTEM}, {"role": "user", "content": "a"}])
    if list(first) != tokenizer(text, add_special_tokens=False)["input_ids"]:
        raise InputError("the tokenizer reads text beside its special tokens otherwise than alone; its prompts cannot be cut")
    return template


def build_template(
    render: Callable[[Sequence[Message]], str], encode: Callable[[str], list[int]], special: Mapping[str, int]
) -> ChatTemplate:
    """`render` writes messages up to where the next answer goes; `special`: the text of each special token -> its id.

    Raises InputError where no special token of its own ends an answer.
    """
    after = render(placeholder_messages(2)).partition(placeholder(answer_number(0)))[2]
    end = next((number for text, number in special.items() if text and after.startswith(text)), None)
    if end is None:
        raise InputError("the chat template does not end an answer with a token of its own; generation could not stop")
    turns, read = [], ""
    for count in range(1, len(TASKS) + 1):
        text = render(placeholder_messages(count))
        if not text.startswith(read):
            break
        turns.append(cut_turn(text[len(read) :], encode, special))
        read = text + placeholder(answer_number(count - 1))
    return ChatTemplate(tuple(turns), encode, end)


def cut_turn(text: str, encode: Callable[[str], list[int]], special: Mapping[str, int]) -> Turn:
    """Special tokens, and what the template writes around contents, become ids; texts with placeholders stay."""
    marks = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    parts = re.split(f"({marks})", text)
    pieces: list[Ids | str] = []
    for part in filter(None, parts):
        if part in special:
            pieces.append((special[part],))
        else:
            pieces.append(part if PLACEHOLDER.search(part) else tuple(encode(part)))
    return Turn(tuple(pieces), parts[-1])


def placeholder_messages(count: int) -> list[Message]:
    """The system's turn and `count` of the user's, answered but for the last; contents are placeholders."""
    messages = [{"role": "system", "content": placeholder(0)}]
    for number in range(count):
        messages.append({"role": "user", "content": placeholder(number + 1)})
        messages.append({"role": "assistant", "content": placeholder(answer_number(number))})
    return messages[:-1]


def placeholder(number: int) -> str:
    return f"\ue000{number}\ue001"


def answer_number(turn: int) -> int:
    """The placeholder of an answer: after those of the system and of all prompts."""
    return 1 + len(TASKS) + turn


def fill(text: str, contents: Sequence[str]) -> str:
    return PLACEHOLDER.sub(lambda found: contents[int(found[1])], text)
