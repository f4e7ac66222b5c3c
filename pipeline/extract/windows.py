"""Long texts, cut at sentence ends into windows that a model was trained to read, and their answers put together again."""

from __future__ import annotations

import re
from itertools import pairwise

SENTENCE_END = re.compile(r"(?<=[.!?])[\s]+(?=[\"'(\[]?[A-Z0-9])|\n+")
WINDOW = 3000  # characters; 99 of 100 PubMed abstracts are shorter
OVERLAP = 300  # characters of the window before, whole sentences: a relation may span a cut


def split_sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the white space around it.

    >>> split_sentences("Lithium was given. Tremor followed.")
    [(0, 18), (19, 35)]
    """
    edges = [0, *(edge for match in SENTENCE_END.finditer(text) for edge in match.span()), len(text)]
    return [(start, end) for start, end in pairwise(edges) if text[start:end].strip()]


def cut_windows(text: str, width: int = WINDOW, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """(start, end) of windows of at most `width` characters that cover the text, each of whole sentences.

    A window begins with as many of the last sentences before it as fit into `overlap`. A sentence longer than a window
    is cut at white space, or where there is none within reach, at a character.

    >>> cut_windows("Aaa bbb. Ccc ddd. Eee fff.", width=18, overlap=9)
    [(0, 17), (9, 26)]
    """
    if len(text) <= width:
        return [(0, len(text))]
    pieces = [piece for start, end in split_sentences(text) for piece in cut_sentence(text, start, end, width)]
    windows, first = [], 0
    while first < len(pieces):
        last = first
        while last + 1 < len(pieces) and pieces[last + 1][1] - pieces[first][0] <= width:
            last += 1
        windows.append((pieces[first][0], pieces[last][1]))
        if last + 1 == len(pieces):
            break
        following = last + 1
        while following - 1 > first and pieces[last][1] - pieces[following - 1][0] <= overlap:
            following -= 1
        # What is taken again must leave room for at least one new sentence.
        while following <= last and pieces[last + 1][1] - pieces[following][0] > width:
            following += 1
        first = following
    return windows


def cut_sentence(text: str, start: int, end: int, width: int) -> list[tuple[int, int]]:
    """A sentence as pieces of at most `width` characters."""
    pieces = []
    while end - start > width:
        cut = max(text.rfind(" ", start, start + width), text.rfind("\n", start, start + width))
        cut = cut if cut > start else start + width
        pieces.append((start, cut))
        start = cut + (1 if text[cut : cut + 1].isspace() else 0)
    return [*pieces, (start, end)]
