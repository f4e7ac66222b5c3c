"""Split by article, near-duplicates together, the same on every machine and in any row order.

Two articles are near-duplicates where the smaller one's word shingles stand to half or more in the other.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from data.files import read_jsonl
from data.readers.rows import article_key
from data.schema import SPLITS, Document, document_from_json
from data.text import fold

SHINGLE_WORDS = 5
CONTAINMENT = 0.5
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
WORD = re.compile(r"\w+")


def shingles(article: str) -> set[int]:
    """The article's runs of five words, as hashes of this process; a shorter article is one run."""
    words = WORD.findall(fold(article))
    width = min(SHINGLE_WORDS, len(words))
    return set(map(hash, zip(*(words[i:] for i in range(width)), strict=False))) if words else set()


def near_duplicates(articles: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of articles of which one holds at least half of the other's shingles.

    Of the smaller article's shingles the rarer half, and one more, must hold a shared one, so only those are looked up:
    exact, and linear in the text as long as most shingles are rare.
    """
    sets = [shingles(article) for article in articles]
    holders: dict[int, list[int]] = defaultdict(list)
    for i, own in enumerate(sets):
        for shingle in own:
            holders[shingle].append(i)
    pairs = set()
    for i, own in enumerate(sets):
        shared = sorted((len(holders[shingle]), shingle) for shingle in own if len(holders[shingle]) > 1)
        alone = len(own) - len(shared)  # the rarest of all, found nowhere else
        looked_up = shared[: max(0, int(len(own) * (1 - CONTAINMENT)) + 1 - alone)]
        for j in {j for _, shingle in looked_up for j in holders[shingle] if j != i and len(sets[j]) >= len(own)}:
            if len(own & sets[j]) >= CONTAINMENT * len(own):
                pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


def group_near_duplicates(articles: Sequence[str]) -> list[list[int]]:
    """The articles' indices in groups that must stay in one split; most groups are of one."""
    parent = list(range(len(articles)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j in near_duplicates(articles):
        parent[root(j)] = root(i)
    groups = defaultdict(list)
    for i in range(len(articles)):
        groups[root(i)].append(i)
    return list(groups.values())


def split_documents(documents: Sequence[Document], seed: int) -> dict[str, list[Document]]:
    """Train, validation and test, 80/10/10 by article; within a split the documents keep their order.

    Groups are taken in the order of a hash of seed and article. One that would overfill test or validation goes to train.
    """
    keys = [article_key(document.article) for document in documents]
    groups = group_near_duplicates([document.article for document in documents])
    groups.sort(key=lambda group: hashlib.sha256(f"{seed}:{min(keys[i] for i in group)}".encode()).digest())
    room = {name: round(SHARES[name] * len(documents)) for name in ("test", "validation")}
    chosen: dict[str, set[int]] = {name: set() for name in SPLITS}
    for group in groups:
        name = next((name for name in room if len(group) <= room[name]), "train")
        chosen[name].update(group)
        if name in room:
            room[name] -= len(group)
    return {name: [documents[i] for i in sorted(chosen[name])] for name in SPLITS}


def row_level_split(count: int, seed: int) -> list[str]:
    """The split each row would get if rows, not articles, were split: the usual mistake, for the audit to show."""
    order = sorted(range(count), key=lambda row: hashlib.sha256(f"{seed}:row:{row}".encode()).digest())
    tenth = round(count * SHARES["test"])
    names = ["train"] * count
    for place, row in enumerate(order[: 2 * tenth]):
        names[row] = "test" if place < tenth else "validation"
    return names


def read_split_folder(folder: Path) -> dict[str, list[Document]]:
    """The documents of a run's `data/` folder by split, with the offsets and ids that documents.jsonl keeps."""
    split: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for _, row in read_jsonl(folder / "documents.jsonl"):
        split[row.pop("split")].append(document_from_json(row))
    return split
