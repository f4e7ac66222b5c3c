"""Grounded decoding: which tokens may come next so that every item is the article's own words and the answer ends well.

An answer is `-`, or lines `- item` (`- item | item` for relations), then the end token; items are those of `spans`. A token
is allowed only if the answer can still be ended within the token budget after it. Tokens may contain several characters,
parts of one, and the border between an item and what follows it.

A line that was listed before may be written, and `repeats.drop_repeats` takes it out of the answer: a model that may not end
such a line lengthens it instead ("name, which") and lists what it never meant. After MOST_REPEATS in a row the answer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy

from data.prompts import read_answer
from data.schema import InputError
from data.text import normalise
from eval.grounding.repeats import MOST_REPEATS
from eval.grounding.spans import article_spans, listed_spans
from eval.grounding.states import Language, Node, Vocabulary

if TYPE_CHECKING:
    from eval.chats import Chat

BULLET, NEXT_SIDE, NEXT_LINE = b"- ", b" | ", b"\n- "


@dataclass(frozen=True)
class Place:
    """One way to read what is written: `rest` still to come before an item of a side, or at a node of one."""

    side: int
    first: bytes  # the relation's first side, once it is written
    rest: bytes = b""
    node: Node | None = None


class GroundedAnswer:
    """An answer being written: `allowed` says which tokens may come, `take` writes one.

    `languages`: one for a list of names, or one for each side of a relation. `budget` counts tokens, the end token included.
    """

    def __init__(self, languages: Sequence[Language], budget: int):
        if budget < 2:
            raise InputError(f"max_new_tokens is {budget}: a grounded answer needs 2 tokens at least")
        self.languages, self.left = languages, budget
        self.vocabulary = languages[0].vocabulary
        self.places = [Place(0, b"", rest=BULLET)]
        self.fresh, self.bare = True, False  # nothing is written yet; a lone bullet is
        self.listed: set[tuple[str, str]] = set()  # lines that are written, as scoring compares them
        self.repeats = 0  # lines in a row that were listed before

    def allowed(self) -> numpy.ndarray:
        """The ids of the tokens that may come next, in no order; one at least."""
        if self.repeats >= MOST_REPEATS:
            return numpy.array([self.vocabulary.stop])
        found = [ids for place in self.places for ids in (self._at_rest(place) if place.rest else self._at_node(place))]
        if self.bare:
            found.append([self.vocabulary.stop])
        return numpy.concatenate(found).astype(numpy.int64)

    def take(self, token: int) -> None:
        """Writes a token that `allowed` named."""
        self.left -= 1
        if token == self.vocabulary.stop:
            self.places = []
            return
        text = self.vocabulary.texts[token]
        self.places = [later for place in self.places for later in self._after(place, token, text)]
        self.fresh, self.bare = False, self.fresh and text == BULLET[:1]

    def _after(self, place: Place, token: int, text: bytes) -> list[Place]:
        if place.node is None:
            return [self._before_item(place.side, place.first, place.rest[len(text) :])] if place.rest.startswith(text) else []
        places = []
        if token in place.node.place:
            places.append(Place(place.side, place.first, node=self.languages[place.side].after(place.node, token)))
        item, count = place.node.closing.get(token, (b"", 0))
        if count and self._is_last(place):
            self._list(place.first, item)
            places.append(self._before_item(0, b"", NEXT_LINE[count:]))
        elif count:
            places.append(self._before_item(1, item, NEXT_SIDE[count:]))
        return places

    def _before_item(self, side: int, first: bytes, rest: bytes) -> Place:
        if rest in (b"", b" "):  # most tokens that start an item contain the space before it
            return Place(side, first, node=self.languages[side].root(rest))
        return Place(side, first, rest=rest)

    def _at_rest(self, place: Place) -> list[list[int]]:
        pieces, room = self.vocabulary.pieces, self.left - 1
        cost = self._item_cost(place.side)
        tokens = [(pieces.get(place.rest[:end], -1), len(place.rest) - end + cost) for end in range(1, len(place.rest) + 1)]
        if self.fresh:
            tokens[0] = (tokens[0][0], 1)  # the empty list can end at once
        return [[token for token, cost in tokens if token >= 0 and cost <= room]]

    def _at_node(self, place: Place) -> list:
        node, room, last = place.node, self.left - 1, self._is_last(place)
        found = [node.ids[node.need <= room - self._end_cost(place.side)]]
        follow, cost = (NEXT_LINE, self._item_cost(0)) if last else (NEXT_SIDE, self._item_cost(1))
        found += [[token] for token, (_, count) in node.closing.items() if len(follow) - count + cost <= room]
        if last and node.complete:
            found.append([self.vocabulary.stop])
        return found

    def _is_last(self, place: Place) -> bool:
        return place.side == len(self.languages) - 1

    def _list(self, first: bytes, item: bytes) -> None:
        line = normalise(first.decode()), normalise(item.decode())
        self.repeats = self.repeats + 1 if line in self.listed else 0
        self.listed.add(line)

    def _item_cost(self, side: int) -> int:
        """Tokens that suffice from the start of a side's item to the end of the answer."""
        return self.languages[side].spans.shortest + self._end_cost(side)

    def _end_cost(self, side: int) -> int:
        """Tokens that suffice from the end of a side's item to the end of the answer."""
        return 1 if side == len(self.languages) - 1 else len(NEXT_SIDE) + self._item_cost(side + 1)


Ground = Callable[["Chat", int, Sequence[str]], GroundedAnswer]


def grounding(vocabulary: Vocabulary, listed_sides: bool = False) -> Ground:
    """A function from (chat, turn, the chat's earlier answers) to the answer to be written.

    `listed_sides`: relations only between the names just listed, which loses those that the lists lack.
    """

    @lru_cache(maxsize=256)
    def languages(article: str) -> tuple[Language, Language]:
        spans = article_spans(article, vocabulary.missing)
        return Language(spans, vocabulary, NEXT_SIDE), Language(spans, vocabulary, NEXT_LINE)

    def start(chat: Chat, turn: int, earlier: Sequence[str]) -> GroundedAnswer:
        first, last = languages(chat.document.article)
        if chat.tasks[turn] != "relations":
            return GroundedAnswer([last], chat.budgets[turn])
        if listed_sides:
            answered = (*chat.given, *zip(chat.tasks, earlier, strict=False))
            listed = {task: read_answer(answer, task)[0] for task, answer in answered}
            if not {"chemicals", "diseases"} <= set(listed):
                raise InputError("relations between listed names only: that needs the conversation layout and all three tasks")
            first = Language(listed_spans(listed["chemicals"], vocabulary.missing), vocabulary, NEXT_SIDE)
            last = Language(listed_spans(listed["diseases"], vocabulary.missing), vocabulary, NEXT_LINE)
        return GroundedAnswer([first, last], chat.budgets[turn])

    return start
