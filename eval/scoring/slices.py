"""Scores by what makes an item or an article hard: unseen in train, a long name, an abbreviation, a long article.

Reads train documents and scored answers. Every figure stands beside its counts, since slices are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data.items import Item, names_of, normalise_item, share
from data.schema import MENTION_TYPE, TASKS, Document, JsonObject
from data.text import normalise
from eval.scoring.likeness import is_abbreviation
from eval.scoring.score import Scored, score_counts
from eval.scoring.stats import figures_of, interval

Label = Callable[[Document, Item], str | None]
Concept = str | tuple[str, str]  # an id, or a relation's two

SLICES = {
    "string": "seen: the item stands in train's gold for the task, as scoring compares it",
    "concept": "seen: a concept id of the item stands in train's gold; recall only, as predictions have no ids",
    "words": "words of the name; for a relation, of the longer of its two",
    "abbreviation": "one short word of mostly capitals; for a relation, either of its names",
    "items": "gold items of the task in the article",
    "length": "words of the article, in thirds of the test articles",
}


def score_slices(train: Sequence[Document], scored: Scored) -> dict[str, JsonObject]:
    """{task: {slice's name as in SLICES: {label: figures as in metrics.json, and "documents" for slices of articles}}}.

    "concept" is None where gold has no ids; its "precision" and "f1" are None and its "ci95" is the recall's.
    """
    return {task: slice_task(train, scored, task) for task in TASKS}


def slice_task(train: Sequence[Document], scored: Scored, task: str) -> dict[str, JsonObject | None]:
    """By slice and label, a task's figures; None where the corpus cannot tell, such as concepts without ids."""
    documents, weights = scored.documents, scored.weights
    by_item: dict[str, Label] = {
        "string": label_seen(train, task),
        "words": label_word_count,
        "abbreviation": label_abbreviation(scored, task),
    }
    items = {name: slice_items(scored, task, label) for name, label in by_item.items()}
    sliced: dict[str, JsonObject | None] = {
        name: {k: score_counts(v, weights) for k, v in sorted(own.items())} for name, own in items.items()
    }
    sliced["concept"] = score_concepts(train, scored, task)
    for name, labels in (("items", label_item_count(scored, task)), ("length", label_length(documents, task))):
        sliced[name] = score_documents(documents, scored.counts[task], labels, weights)
    return {name: sliced[name] for name in SLICES}


def slice_items(scored: Scored, task: str, label: Label) -> dict[str, np.ndarray]:
    """(tp, fp, fn) per document, [documents, 3], by the label of the item; items without one are left out."""
    counts: dict[str, np.ndarray] = {}
    for i, document in enumerate(scored.documents):
        key = (document.id, task)
        if key not in scored.gold:
            continue
        for column, items in enumerate((scored.right(key), scored.wrong(key), scored.missed(key))):
            for item in items:
                name = label(document, item)
                if name is not None:
                    counts.setdefault(name, np.zeros((len(scored.documents), 3), dtype=np.int64))[i, column] += 1
    return counts


def label_seen(train: Sequence[Document], task: str) -> Label:
    """Labels an item "seen" where train's gold for the task has it, else "unseen"."""
    known = {normalise_item(item) for document in train for item in document.gold(task)}
    return lambda _, item: "seen" if item in known else "unseen"


def label_word_count(_: Document, item: Item) -> str:
    """The number of words of an item's longer name: "1", "2" or "3+"."""
    words = max(len(name.split()) for name in names_of(item))
    return str(words) if words < 3 else "3+"


def label_abbreviation(scored: Scored, task: str) -> Label:
    """Letter case tells an abbreviation, so names are looked at as gold or the model wrote them."""
    short: set[tuple[str, str]] = set()
    for document in scored.documents:
        if task in document.tasks:
            as_written = [*document.gold(task), *scored.predictions[document.id, task].items]
            names = {name for item in as_written for name in names_of(item)}
            short |= {(document.id, normalise(name)) for name in names if is_abbreviation(name)}
    return lambda d, item: "abbreviation" if any((d.id, name) in short for name in names_of(item)) else "full name"


def concept_ids(document: Document, task: str) -> dict[Item, set[Concept]]:
    """By normalised gold item, its concepts: ids, or pairs of ids for a relation."""
    ids: dict[Item, set[Concept]] = {}
    if task == "relations":
        for r in document.relations:
            if r.chemical_id and r.disease_id:
                ids.setdefault(normalise_item((r.chemical, r.disease)), set()).add((r.chemical_id, r.disease_id))
    else:
        for mention in document.mentions:
            if mention.type == MENTION_TYPE[task] and mention.ids:
                ids.setdefault(normalise(mention.text), set()).update(mention.ids)
    return ids


def score_concepts(train: Sequence[Document], scored: Scored, task: str) -> dict[str, JsonObject] | None:
    """Recall of gold items by whether train has one of their concepts; None where gold has no ids."""
    ids = {document.id: concept_ids(document, task) for document in scored.documents}
    known = {concept for document in train for own in concept_ids(document, task).values() for concept in own}
    if not any(ids.values()) or not known:
        return None

    def label(document: Document, item: Item) -> str | None:
        own = ids[document.id].get(item)
        return None if own is None else "seen" if own & known else "unseen"

    counts = slice_items(scored, task, label)
    return {name: recall_only(own, scored.weights) for name, own in sorted(counts.items())}


def recall_only(counts: np.ndarray, weights: np.ndarray) -> JsonObject:
    """Figures of counts whose false positives cannot be told: recall alone, precision and F1 None."""
    tp, _, fn = (int(total) for total in counts.sum(axis=0))
    figures = {"precision": None, "recall": share(tp, tp + fn), "f1": None, "tp": tp, "fp": None, "fn": fn, "support": tp + fn}
    return figures | {"ci95": interval(figures_of(weights @ counts)["recall"])}


def score_documents(
    documents: Sequence[Document], counts: np.ndarray, labels: dict[str, str], weights: np.ndarray
) -> dict[str, JsonObject]:
    """Figures of the articles of each label; `labels` by document id, in the order in which they are to stand."""
    scored = {}
    for name in dict.fromkeys(labels.values()):
        chosen = np.array([labels.get(document.id) == name for document in documents])
        scored[name] = score_counts(counts * chosen[:, None], weights) | {"documents": int(chosen.sum())}
    return scored


def label_item_count(scored: Scored, task: str) -> dict[str, str]:
    """By document, how many gold items the task has there: "0", "1-2", "3-5" or "6+"."""
    numbers = {document: len(items) for (document, asked), items in scored.gold.items() if asked == task}
    names = {0: "0", 1: "1-2", 3: "3-5", 6: "6+"}
    return {d: names[max(low for low in names if low <= n)] for d, n in sorted(numbers.items(), key=lambda pair: pair[1])}


def label_length(documents: Sequence[Document], task: str) -> dict[str, str]:
    """By document, which third of the articles its number of words falls in."""
    lengths = {document.id: len(document.article.split()) for document in documents if task in document.tasks}
    if not lengths:
        return {}
    low, high = (int(bound) for bound in np.percentile(list(lengths.values()), [100 / 3, 200 / 3]))
    names = (f"up to {low}", f"{low + 1} to {high}", f"over {high}")
    return {d: names[(n > low) + (n > high)] for d, n in sorted(lengths.items(), key=lambda pair: pair[1])}
