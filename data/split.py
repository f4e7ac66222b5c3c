"""Split by article, near-duplicates together, the same on every machine and in any row order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from data.files import read_jsonl
from data.near_duplicates import group_articles, near_duplicates
from data.readers.rows import article_key
from data.schema import SPLITS, Document, InputError, document_from_json, quote

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split_documents(documents: Sequence[Document], seed: int) -> dict[str, list[Document]]:
    """Train, validation and test, 80/10/10 by article; within a split the documents keep their order.

    Groups are taken in the order of a hash of seed and article. One that would overfill test or validation goes to train.
    """
    keys = [article_key(document.article) for document in documents]
    groups = group_articles(len(documents), near_duplicates(document.article for document in documents))
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
    for where, row in read_jsonl(folder / "documents.jsonl"):
        name = row.pop("split", None)
        if name not in SPLITS:
            raise InputError(f'{where}: "split" is none of {"|".join(SPLITS)}: {quote(name)}')
        try:
            split[name].append(document_from_json(row))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return split
