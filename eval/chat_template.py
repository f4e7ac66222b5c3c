"""A chat as token ids: its prompts and answers as the model's chat template writes them.

    <|im_start|>user\\n{prompt}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>

The template is rendered with placeholders where contents go, and cut at the special tokens that it writes itself. What lies
between two of those, contents included, is encoded as ordinary text: an article that contains `<|im_end|>` is read as these ten
characters, and no text can end its turn. Training's loss mask (`pipeline.training.loss_mask`) and
every engine that sends ids are made from these.
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
    """A tokenizer's chat template, cut into turns.

    `encode` reads text as ordinary characters, special tokens never; `end` is the token that ends an answer.
    """

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
        contents = _trimmed(prompts)
        turns = tuple(tuple(self._encode_turn(turn, contents)) for turn in self.turns[: len(prompts)])
        read: list[int] = []
        for number, (ids, answer) in enumerate(zip(turns, given, strict=False)):
            read += [*ids, *self.answer_ids(number, prompts, answer)]
        return ((*read, *turns[len(given)]), *turns[len(given) + 1 :])

    def _encode_turn(self, turn: Turn, contents: Sequence[str]) -> Iterator[int]:
        for piece in turn.pieces:
            yield from self.encode(fill(piece, contents)) if isinstance(piece, str) else piece

    def answer_ids(self, number: int, prompts: Sequence[str], answer: str) -> list[int]:
        """The ids of the answer to `prompts[number]`, without the end token.

        Raises InputError where the ids before it change once it follows: generation would read others than training.
        """
        opening = fill(self.turns[number].opening, _trimmed(prompts))
        prompt, both = self.encode(opening), self.encode(opening + answer.strip())
        if both[: len(prompt)] != prompt:
            raise InputError("its prompt's tokens change once an answer follows; no loss mask is right")
        return both[len(prompt) :]


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
    """The template as `render` shows it.

    `render` writes messages up to where the next answer goes; `special`: the text of each special token -> its id.

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
    """Two characters of Unicode's private area around a number: no article contains them."""
    return f"\ue000{number}\ue001"


def answer_number(turn: int) -> int:
    """The placeholder of an answer: after those of the system and of all prompts."""
    return 1 + len(TASKS) + turn


def fill(text: str, contents: Sequence[str]) -> str:
    """`text` with each placeholder replaced by the content of its number."""
    return PLACEHOLDER.sub(lambda found: contents[int(found[1])], text)


def _trimmed(prompts: Sequence[str]) -> list[str]:
    """The contents that are filled in, the system's first, as templates trim them."""
    return [text.strip() for text in (SYSTEM, *prompts)]
