"""Text as scoring, splitting and grounding see it: one normalisation, whole words, names found in an article.

Offsets always count characters of the original text, whatever folding was needed to find them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence

OPEN, CLOSE = "([{", ")]}"
QUOTES = "\"'`´“”‘’„«»‹›"
STRIPPED = QUOTES + ".,;: "
LONGEST_SYLLABLE = 4  # characters that may stand before one that composes with them
MOST_MARKS = 30  # on one letter, as in Unicode's stream-safe text
RUN = re.compile(r"[^\W_]+")
# The hyphen comes first, and what stands before it after: a search for what begins with a word's character tries every one.
HYPHENATION = re.compile(r"\u00ad(?:[ \t]*\r?\n[ \t]*)?|[-\u2010](?<=\w.)[ \t]*\r?\n[ \t]*(?=\w)")
LONG_RUN = re.compile(rf"[^\x00-\x7f]{{{MOST_MARKS + 1},}}")


def fold(text: str) -> str:
    """Letter case and compatibility forms taken away (NFKC, case folding), until nothing changes.

    Of more than 30 marks on one letter, which no language writes, the first 30 are kept: ordering them takes time that
    grows with the square of their number.
    """
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", LONG_RUN.sub(_drop_marks, text))
    while True:
        again = unicodedata.normalize("NFKC", LONG_RUN.sub(_drop_marks, folded.casefold()))
        if again == folded:
            return folded
        folded = again


def _drop_marks(run: re.Match[str]) -> str:
    kept, marks = [], 0
    for character in run[0]:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def _is_mark(character: str) -> bool:
    """Whether the character, or the first of those that it stands for, is written onto the letter before it."""
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def join_hyphenated(text: str) -> str:
    """The text without soft hyphens, and with the words joined that a hyphen breaks at a line's end.

    >>> join_hyphenated("neph-\\nropathy after beta-blockers")
    'nephropathy after beta-blockers'
    """
    return HYPHENATION.sub("", text)


def normalise(name: str) -> str:
    """A name as scoring compares it.

    NFKC and case folding, white space collapsed, surrounding quotes, `. , ; :` and unmatched brackets removed;
    nothing else, so names keep what belongs to them.

    >>> normalise(' "Naloxone," '), normalise("(+)-catechin"), normalise("5-HT(1A)"), normalise("Na+"), normalise("(renal")
    ('naloxone', '(+)-catechin', '5-ht(1a)', 'na+', 'renal')
    """
    name = " ".join(fold(name).split())
    if not name or name[0].isalnum() and name[-1].isalnum():
        return name
    partners = _match_brackets(name)
    start, end = 0, len(name)
    while start < end:
        first, last = name[start], name[end - 1]
        if first in STRIPPED or first in OPEN + CLOSE and not start < partners.get(start, -1) < end:
            start += 1
        elif last in STRIPPED or last in OPEN + CLOSE and not start <= partners.get(end - 1, -1) < end - 1:
            end -= 1
        else:
            break
    return name[start:end]


def _match_brackets(name: str) -> dict[int, int]:
    """By place of a bracket the place of the one that it matches, each kind of bracket by itself."""
    opened: dict[str, list[int]] = {bracket: [] for bracket in CLOSE}
    partners = {}
    for place, character in enumerate(name):
        if character in OPEN:
            opened[CLOSE[OPEN.index(character)]].append(place)
        elif character in CLOSE and opened[character]:
            partners[place] = opened[character].pop()
            partners[partners[place]] = place
    return partners


def is_word_edge(text: str, position: int) -> bool:
    """Whether a word may start or end at `position`: it does not stand between two letters or digits."""
    return not (0 < position < len(text) and text[position - 1].isalnum() and text[position].isalnum())


def _fold_letters(text: str) -> Iterator[tuple[int, str]]:
    """(start, folded) of each letter of `text`: a character with the marks that follow and join it ("o\u0308" is "ö")."""
    start = 0
    for i, character in enumerate(text):
        if i and not _joins(text, i, character):
            yield start, fold(text[start:i])
            start = i
    yield start, fold(text[start:])


def _joins(text: str, place: int, character: str) -> bool:
    """Whether the character at `place` is one letter with those before it: a mark, or the next part of a Hangul syllable."""
    if character.isascii():
        return False
    before = text[max(0, place - LONGEST_SYLLABLE) : place]
    return _is_mark(character) or fold(before + character) != fold(before) + fold(character)


class FoldedText:
    """A text folded for search, every folded character remembering which original one it came from."""

    def __init__(self, text: str):
        self.text = text
        if text.isascii():
            self.folded = text.lower()
            self.origin: Sequence[int] = range(len(text) + 1)
            return
        pieces = list(_fold_letters(text))
        self.folded = "".join(piece for _, piece in pieces)
        self.origin = [start for start, piece in pieces for _ in piece] + [len(text)]

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Every whole-word occurrence of `name`, in any letter case, as (start, end) of the original text.

        >>> FoldedText("Ca2+ or CA2+, not xCa2+").spans("ca2+")
        [(0, 4), (8, 12)]
        """
        name, found, at = fold(name), [], 0
        while name and (at := self.folded.find(name, at)) >= 0:
            end = at + len(name)
            start, stop = self.origin[at], self.origin[end]
            whole = (at == 0 or self.origin[at - 1] != start) and (stop == len(self.text) or self.origin[end - 1] != stop)
            if whole and is_word_edge(self.text, start) and is_word_edge(self.text, stop):
                found.append((start, stop))
            at += 1
        return found

    def runs(self, lengths: Collection[int]) -> Iterator[str]:
        """Every run of letters and digits with which a whole word of these lengths may begin.

        A run of the folded text may contain word edges of the original one: "Aspirin™" folds to "aspirintm".
        """
        for run in RUN.finditer(self.folded):
            inner = [] if self.text.isascii() else [i for i in range(run.start() + 1, run.end()) if self._parts(i)]
            if not inner:
                yield run[0]
                continue
            edges = {run.start(), *inner, run.end()}
            yield from (self.folded[edge : edge + n] for edge in edges for n in lengths if edge + n in edges)

    def _parts(self, at: int) -> bool:
        """Whether a word edge of the text stands before folded character `at`."""
        return self.origin[at - 1] != self.origin[at] and is_word_edge(self.text, self.origin[at])

    def places(self, name: str) -> list[tuple[int, int]]:
        """Where `name` stands, as it is written or else as scoring compares it: "zinc." where the text has "zinc"."""
        return self.spans(name.strip()) or self.spans(normalise(name))

    def contains(self, name: str) -> bool:
        """Whether `name` has a place in the text."""
        return bool(self.places(name))


class NameIndex:
    """Names to look for in many articles. A name can only stand where its first run of letters and digits does."""

    def __init__(self, names: Iterable[str]):
        self.by_first_run: dict[str, list[str]] = {}
        for name in set(names):
            run = RUN.search(fold(name))
            self.by_first_run.setdefault(run[0] if run else "", []).append(name)

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """Occurrences of the names as (start, end, name), longest first, none overlapping, in the order of the text."""
        folded = FoldedText(text)
        runs = {"", *folded.runs({len(run) for run in self.by_first_run})}
        candidates = [name for run in runs for name in self.by_first_run.get(run, ())]
        taken = bytearray(len(text))
        found = []
        for name in sorted(candidates, key=lambda name: (-len(name), name)):
            for start, end in folded.spans(name):
                if not any(taken[start:end]):
                    taken[start:end] = b"\x01" * (end - start)
                    found.append((start, end, name))
        return sorted(found)


def find_names(names: Iterable[str], text: str) -> list[tuple[int, int, str]]:
    """`NameIndex.find` of names that are looked for in one article only."""
    return NameIndex(names).find(text)
