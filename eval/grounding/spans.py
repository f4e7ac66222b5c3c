"""The items that grounded decoding allows, found in an article, in the bytes that tokens are made of.

An item is a span of one line, from a word's start to a word's end (`data.text.is_word_edge`), that contains a letter or
digit, no `|` and at most 20 words, whose brackets match, and that `is_name`. All positions are byte positions.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from data.prompts import is_name
from data.text import CLOSE, OPEN

MOST_WORDS = 20
FAR = 1 << 30  # longer than any answer: no item, no way to end
# A word, a line break or `|` (no item crosses it), white space, or a character of any other kind: between any two of these
# is a word edge.
CHUNK = re.compile(r"([^\W_]+)|([|\n\r\v\f\x1c-\x1e\x85\u2028\u2029])|(\s)|([\W_])")
NAME, BREAK, SPACE, OTHER = 1, 2, 3, 4


class Spans:
    """Where items start in `text`, and lazily where each of them may end."""

    def __init__(self, text: bytes, ends: dict[int, Iterator[int]]):
        """`ends`: for each start, its ends in ascending order."""
        self.text = text
        self.starts = list(ends)
        self._ends: dict[int, tuple[list[int], Iterator[int]]] = {start: ([], more) for start, more in ends.items()}

    def next_end(self, start: int, at: int) -> int | None:
        """The first end at or after `at` of an item from `start`; None where there is none."""
        ends, more = self._ends[start]
        number = bisect_left(ends, at)
        while number == len(ends):
            end = next(more, None)
            if end is None:
                return None
            ends.append(end)
            number += end < at
        return ends[number]

    @cached_property
    def shortest(self) -> int:
        """Bytes of the shortest item; FAR where there is none."""
        ends = ((start, self.next_end(start, start)) for start in self.starts)
        return min((end - start for start, end in ends if end is not None), default=FAR)


def article_spans(article: str, missing: Collection[int] = ()) -> Spans:
    """The items of an article (title, text and all that the model read of it) that contain none of the bytes `missing`."""
    text = article.encode()
    offsets = None if article.isascii() else list(accumulate((len(c.encode()) for c in article), initial=0))
    marks: list[tuple[int, str, int]] = []  # kind, character where it matters, end
    starts = {}
    for chunk in CHUNK.finditer(article):
        start, end = chunk.span()
        if offsets:
            start, end = offsets[start], offsets[end]
        kind = BREAK if any(byte in missing for byte in text[start:end]) else chunk.lastindex
        mark = chunk[0] if kind == OTHER else ""
        if kind == NAME or (kind == OTHER and mark not in CLOSE):
            starts[start] = len(marks)
        marks.append((kind, mark, end))
    marks.append((BREAK, "", len(text)))
    return Spans(text, {start: _ends_of_names(text, start, _ends(marks, number)) for start, number in starts.items()})


def _ends_of_names(text: bytes, start: int, ends: Iterator[int]) -> Iterator[int]:
    """Without those whose span an answer could not give back as a name, such as "None" or "1. lithium"."""
    return (end for end in ends if is_name(text[start:end].decode()))


def listed_spans(names: Sequence[str], missing: Collection[int] = ()) -> Spans:
    """Whole names only: those listed before that contain none of the bytes `missing`."""
    starts, text = {}, b""
    for name in dict.fromkeys(names):
        if any(byte in missing for byte in name.encode()):
            continue
        starts[len(text)] = iter([len(text) + len(name.encode())])
        text += name.encode() + b"\n"
    return Spans(text, starts)


def _ends(marks: Sequence[tuple[int, str, int]], number: int) -> Iterator[int]:
    """Ends of the items that start with chunk `number`: matched brackets, a letter or digit, few enough words."""
    opened: list[str] = []
    words, named, spaced = 1, False, False
    for later in range(number, len(marks)):
        kind, mark, end = marks[later]
        if kind == BREAK:
            return
        if kind == SPACE:
            spaced = True
            continue
        words += spaced
        spaced = False
        if words > MOST_WORDS:
            return
        if kind == NAME:
            named = True
        elif mark in OPEN:
            opened.append(CLOSE[OPEN.index(mark)])
        elif mark in CLOSE and (not opened or opened.pop() != mark):
            return
        if named and not opened:
            yield end
