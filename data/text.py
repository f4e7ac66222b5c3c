"""Text as scoring, splitting and grounding see it: one normalisation, whole words, names found in an article.

Offsets always count characters of the original text, whatever folding was needed to find them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

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


class FoldedText:
    """A text folded for search, every folded character remembering which original one it came from."""

    def __init__(self, text: str):
        self.text = text
        if text.isascii():
            self.folded, self.origin = text.lower(), range(len(text) + 1)
            return
        pieces = [fold(character) for character in text]
        self.folded = "".join(pieces)
        self.origin = [i for i, piece in enumerate(pieces) for _ in piece] + [len(text)]

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
        runs = {"", *RUN.findall(folded.folded)}
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
