"""Invented articles for tests, and the definitions that a test holds an answer to, written out the plain way."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from hypothesis import strategies as st

from data.near_duplicates import WORD
from data.prompts import is_name
from data.schema import Document
from data.text import CLOSE, OPEN, FoldedText, fold, is_word_edge

SYLLABLES = ["zol", "ta", "mi", "ne", "gou", "tre", "mor", "ren", "al", "fai", "lu", "re", "car", "dia", "cy", "to", "xin"]


def invent(count: int, seed: int = 0) -> list[Document]:
    random = Random(seed)
    words = ["".join(random.choices(SYLLABLES, k=3)) for _ in range(400)]
    return [Document(f"d{n}", " ".join(random.choices(words, k=30)) + ".") for n in range(count)]


BREAKS = "|\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def is_matched(text):
    opened = []
    for character in text:
        if character in OPEN:
            opened.append(CLOSE[OPEN.index(character)])
        elif character in CLOSE and (not opened or opened.pop() != character):
            return False
    return not opened


def is_item(article, start, end):
    """DESIGN's definition, word for word."""
    text = article[start:end]
    return (
        text == text.strip()
        and is_word_edge(article, start)
        and is_word_edge(article, end)
        and any(character.isalnum() for character in text)
        and not set(text) & set(BREAKS)
        and len(text.split()) <= 20
        and is_matched(text)
        and is_name(text)
    )


def is_in(item, article):
    return all(FoldedText(article).spans(side) and side in article for side in ([item] if isinstance(item, str) else item))


def rows_by_task(path: Path) -> dict:
    return {(row["document"], row["task"]): row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def near_duplicates_plainly(articles: list[str]) -> list[tuple[int, int]]:
    """Every pair compared: of the smaller set of runs of five words, half or more stand in the other."""
    runs = []
    for article in articles:
        words = WORD.findall(fold(article))
        width = min(5, len(words))
        runs.append({tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set())
    return [
        (i, j)
        for j in range(len(articles))
        for i in range(j)
        if runs[i] and runs[j] and len(runs[i] & runs[j]) >= 0.5 * min(len(runs[i]), len(runs[j]))
    ]


# Texts cut from few sources share much; a few letters as words share runs by chance.
sources = [" ".join(Random(n).choices(SYLLABLES, k=40)).split() for n in range(3)]
cuts = st.builds(
    lambda source, start, length, more: " ".join([*sources[source][start : start + length], *more]),
    st.integers(0, 2), st.integers(0, 30), st.integers(0, 20), st.lists(st.sampled_from("abc"), max_size=12),
)  # fmt: skip
