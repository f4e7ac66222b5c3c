"""What of a split's test is known from its train: articles and answers that leak, and names that were seen.

A leak is an article or near-duplicate in two splits, or an answer standing in a train completion of the same article. Shares
of seen and unseen names are reported and never fail.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from data.items import Item, names_of, normalise_item, share
from data.near_duplicates import group_articles
from data.readers.rows import Row
from data.schema import SPLITS, TASKS, Document, JsonObject
from data.split import row_level_split
from data.text import normalise

EXAMPLES = 5


def seen_names(split: Mapping[str, Sequence[Document]], task: str) -> JsonObject:
    """How many of the test split's items stand somewhere in train's gold, as scoring compares them."""
    train = {normalise_item(item) for document in split["train"] for item in document.gold(task)}
    test = [normalise_item(item) for document in split["test"] for item in document.gold(task)]
    seen = sum(item in train for item in test)
    return {"test_items": len(test), "seen": seen, "unseen": len(test) - seen, "seen_share": share(seen, len(test))}


def find_leaks(split: Mapping[str, Sequence[Document]], pairs: Sequence[tuple[int, int]]) -> JsonObject:
    """The articles, near-duplicates included, that stand in two splits, and the answers that leak.

    `pairs` are near-duplicates, as indices into the documents of train, validation and test, in that order.
    `articles` counts those that an earlier split has already; `answers` the test items of which every name stands in a
    train answer, to whatever task, of the same article or of one that it is near to; `answer_shares` of all test items.
    """
    placed = [(name, document) for name in SPLITS for document in split[name]]
    articles, answers = 0, Counter[str]()
    for group in group_articles(len(placed), pairs):
        first = placed[group[0]][0]
        articles += sum(placed[i][0] != first for i in group)
        known = {n for i in group if placed[i][0] == "train" for task in TASKS for n in answer_names(placed[i][1].gold(task))}
        for i in group:
            if placed[i][0] == "test":
                answers.update({task: count_known(placed[i][1].gold(task), known) for task in TASKS})
    items = {task: sum(len(document.gold(task)) for document in split["test"]) for task in TASKS}
    across = [(placed[i], placed[j]) for i, j in pairs if placed[i][0] != placed[j][0]]
    return {
        "leaking": bool(across),
        "articles": articles,
        "answers": {task: answers[task] for task in TASKS},
        "answer_shares": {task: share(answers[task], items[task]) for task in TASKS},
        "examples": [f"{a.id} ({one}) ~ {b.id} ({other})" for (one, a), (other, b) in across[:EXAMPLES]],
    }


def answer_names(items: Iterable[Item]) -> set[str]:
    """Every name in the items, those inside a relation too, as scoring compares them."""
    return {normalise(name) for item in items for name in names_of(item)}


def count_known(items: Iterable[Item], known: Collection[str]) -> int:
    """How many of the items have all their names among the known ones."""
    return sum(all(normalise(name) in known for name in names_of(item)) for item in items)


def row_level_leaks(rows: Sequence[Row], seed: int) -> JsonObject:
    """What a split of the same file by rows would leak: test rows whose article is in train, and answers known from it."""
    names = row_level_split(len(rows), seed)
    known: dict[str, set[str]] = defaultdict(set)
    for row, name in zip(rows, names, strict=True):
        if name == "train":
            known[row.key] |= answer_names(row.items)
    test = [row for row, name in zip(rows, names, strict=True) if name == "test"]
    answers = {}
    for task in TASKS:
        asked = [row for row in test if row.task == task]
        leaking = sum(count_known(row.items, known.get(row.key, ())) for row in asked)
        answers[task] = share(leaking, sum(len(row.items) for row in asked))
    leaked = sum(row.key in known for row in test)
    return {"test_rows": len(test), "article_in_train": leaked, "answer_in_train_completion": answers}
