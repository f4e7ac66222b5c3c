"""Text as scoring, splitting and grounding see it: one normalisation, whole words, names found in an article.

Offsets always count characters of the original text, whatever folding was needed to find them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

OPEN, CLOSE = "([{", ")]}"
QUOTES = "\"'`´“”‘’„«»‹›"
PUNCTUATION = ".,;:"
RUN = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """Letter case and compatibility forms taken away (NFKC, case folding), until nothing changes."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    again = unicodedata.normalize("NFKC", folded)
    return folded if again == folded else fold(again)


def normalise(name: str) -> str:
    """A name as scoring compares it.

    NFKC and case folding, white space collapsed, surrounding quotes, `. , ; :` and unmatched brackets removed;
    nothing else, so names keep what belongs to them.

    >>> normalise(' "Naloxone," '), normalise("(+)-catechin"), normalise("5-HT(1A)"), normalise("Na+"), normalise("(renal")
    ('naloxone', '(+)-catechin', '5-ht(1a)', 'na+', 'renal')
    """
    name = " ".join(fold(name).split())
    while name:
        if name[0] in QUOTES + PUNCTUATION + CLOSE or name[0] in OPEN and not _closes(name):
            name = name[1:].lstrip()
        elif name[-1] in QUOTES + PUNCTUATION + OPEN or name[-1] in CLOSE and not _closes(_mirror(name)):
            name = name[:-1].rstrip()
        else:
            break
    return name


def _closes(name: str) -> bool:
    """Whether the bracket that opens `name` is closed somewhere in it."""
    opening, closing = name[0], CLOSE[OPEN.index(name[0])]
    depth = 0
    for character in name:
        depth += (character == opening) - (character == closing)
        if depth == 0:
            return True
    return False


def _mirror(name: str) -> str:
    return name[::-1].translate(str.maketrans(OPEN + CLOSE, CLOSE + OPEN))


def is_word_edge(text: str, position: int) -> bool:
    """Whether a word may start or end at `position`: it does not stand between two letters or digits."""
    return not (0 < position < len(text) and text[position - 1].isalnum() and text[position].isalnum())


def _fold_letters(text: str) -> Iterator[tuple[int, str]]:
    """(start, folded) of each letter of `text`: a character with the marks that follow and join it ("o\u0308" is "ö")."""
    start, piece = 0, ""
    for i, character in enumerate(text):
        own = fold(character)
        joins = not character.isascii() and (
            unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) or fold(text[start : i + 1]) != piece + own
        )
        if i and not joins:
            yield start, piece
        start, piece = (start, fold(text[start : i + 1])) if joins else (i, own)
    yield start, piece


class FoldedText:
    """A text folded for search, every folded character remembering which original one it came from."""

    def __init__(self, text: str):
        self.text = text
        if text.isascii():
            self.folded, self.origin = text.lower(), range(len(text) + 1)
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

    def runs(self) -> Iterator[str]:
        """Every run of letters and digits with which a whole word may begin.

        A run of the folded text may hold word edges of the original one: "Aspirin™" folds to "aspirintm".
        """
        for run in RUN.finditer(self.folded):
            inner = [] if self.text.isascii() else [i for i in range(run.start() + 1, run.end()) if self._parts(i)]
            edges = [run.start(), *inner, run.end()]
            yield from (self.folded[start:end] for i, start in enumerate(edges) for end in edges[i + 1 :])

    def _parts(self, at: int) -> bool:
        """Whether a word edge of the text stands before folded character `at`."""
        return self.origin[at - 1] != self.origin[at] and is_word_edge(self.text, self.origin[at])

    def holds(self, name: str) -> bool:
        """Whether `name` stands in the text, as it is written or as scoring compares it: "zinc." where the text has "zinc"."""
        return bool(self.spans(name) or self.spans(normalise(name)))


def find_whole_words(name: str, text: str) -> list[tuple[int, int]]:
    """Every whole-word occurrence of `name` in `text`, in any letter case, as (start, end)."""
    return FoldedText(text).spans(name)


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
        runs = {"", *folded.runs()}
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
    """As `NameIndex.find`, for names that are looked for in one article only."""
    return NameIndex(names).find(text)
