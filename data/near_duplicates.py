"""Articles of which one contains half or more of the other's text: found in any number, in memory that grows with the text.

The unit is the shingle, a run of five words in any letter case and hyphenation. Two articles are near-duplicates where the
smaller one's shingles stand to half or more in the other.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.text import fold, join_hyphenated

SHINGLE_WORDS = 5
CONTAINMENT = 0.5
WORD = re.compile(r"\w+")
CHUNK = 1 << 20
Integers = npt.NDArray[np.int64]


def shingles(article: str) -> set[int]:
    """The article's runs of five words, as hashes of this process; a shorter article is one run."""
    words = WORD.findall(fold(join_hyphenated(article)))
    width = min(SHINGLE_WORDS, len(words))
    return set(map(hash, zip(*(words[i:] for i in range(width)), strict=False))) if words else set()


@dataclass(frozen=True)
class SharedShingles:
    """The shingles that two or more articles contain, numbered from 0. An article's others are counted only.

    `numbers[starts[i] : starts[i + 1]]` are those of article i, which has `sizes[i]` in all; `holders[places[n] :
    places[n + 1]]` are the articles that contain shingle n.
    """

    sizes: Integers
    starts: Integers
    numbers: npt.NDArray[np.int32]
    places: Integers
    holders: npt.NDArray[np.int32]

    def of(self, article: int) -> list[int]:
        numbers: list[int] = self.numbers[self.starts[article] : self.starts[article + 1]].tolist()
        return numbers

    def held_by(self, shingle: int) -> list[int]:
        holders: list[int] = self.holders[self.places[shingle] : self.places[shingle + 1]].tolist()
        return holders

    def frequency(self, shingle: int) -> int:
        return int(self.places[shingle + 1] - self.places[shingle])


def index_shingles(articles: Iterable[str]) -> SharedShingles:
    """Eight bytes a word while it is made, and eight for each shingle that is shared afterwards."""
    hashes, counts = array("q"), array("q")
    for article in articles:
        own = shingles(article)
        hashes.extend(own)
        counts.append(len(own))
    every, sizes = np.array(hashes, dtype=np.int64, copy=False), np.array(counts, dtype=np.int64)
    ordered = np.sort(every)
    shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    parts = [_number(every[at : at + CHUNK], shared) for at in range(0, len(every), CHUNK)]
    kept = np.concatenate([kept for kept, _ in parts]) if parts else np.zeros(0, bool)
    numbers = np.concatenate([numbers for _, numbers in parts]) if parts else np.zeros(0, np.int32)
    owners = owners[kept]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(sizes)))])
    places = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=len(shared)))])
    return SharedShingles(sizes, starts, numbers, places, owners[np.argsort(numbers, kind="stable")])


def _number(hashes: Integers, shared: Integers) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    """Which of the hashes are shared, and the numbers of those that are."""
    at = np.searchsorted(shared, hashes)
    kept = at < len(shared)
    kept[kept] = shared[at[kept]] == hashes[kept]
    return kept, at[kept].astype(np.int32)


class Groups:
    """Articles in groups that grow as two of them are joined."""

    def __init__(self, count: int):
        self.parent = list(range(count))

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        self.parent[self.root(j)] = self.root(i)

    def members(self) -> list[list[int]]:
        groups = defaultdict(list)
        for i in range(len(self.parent)):
            groups[self.root(i)].append(i)
        return list(groups.values())


def near_duplicates(articles: Iterable[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near-duplicates, as few as link every article to all that it is near to, by way of others.

    Of the smaller article's shingles the rarer half, and one more, must contain a shared one, so only those are looked up:
    exact, and linear in the text as long as most shingles are rare, or contained in articles that are linked already.
    """
    index = index_shingles(articles)
    groups, pairs = Groups(len(index.sizes)), []
    linked: dict[int, list[list[int]]] = {}  # by shingle its holders, those known to be linked in one list
    for i in range(len(index.sizes)):
        own, compared = set(index.of(i)), {i}
        for shingle in _rarer_half(i, index):
            mine, others = [], []
            for holders in linked.get(shingle) or [[j] for j in index.held_by(shingle)]:
                if groups.root(holders[0]) != groups.root(i):
                    near = _first_near(holders, own, int(index.sizes[i]), index, compared)
                    if near is None:
                        others.append(holders)
                        continue
                    groups.join(i, near)
                    pairs.append((min(i, near), max(i, near)))
                mine.append(holders)
            mine.sort(key=len, reverse=True)
            for holders in mine[1:]:
                mine[0] += holders
            linked[shingle] = [mine[0], *others]
    return sorted(pairs)


def _rarer_half(article: int, index: SharedShingles) -> list[int]:
    """The shared ones among the rarer half, and one more, of the article's shingles."""
    shared, size = index.of(article), int(index.sizes[article])
    alone = size - len(shared)  # the rarest of all, found nowhere else
    count = max(0, int(size * (1 - CONTAINMENT)) + 1 - alone)
    return sorted(shared, key=lambda shingle: (index.frequency(shingle), shingle))[:count] if count else []


def _first_near(holders: list[int], own: set[int], size: int, index: SharedShingles, compared: set[int]) -> int | None:
    """The first of `holders`, none smaller, that contains half of an article's shingles; `compared` gains the others."""
    for j in holders:
        if j not in compared and index.sizes[j] >= size:
            compared.add(j)
            if len(own.intersection(index.of(j))) >= CONTAINMENT * size:
                return j
    return None


def group_articles(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The indices 0 to `count` in the groups that the pairs link; most groups are of one."""
    groups = Groups(count)
    for i, j in pairs:
        groups.join(i, j)
    return groups.members()
