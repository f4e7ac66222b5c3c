"""Answers compared with gold, once; and precision, recall and F1 of them: the main figures of metrics.json.

Per document and task, sets of items are compared after the same normalisation on both sides (`data.text.normalise`). Every
predicted item that is not gold is a false positive, every gold item not predicted a false negative; a malformed answer predicts
what stands before its first foreign line. Figures are fractions; 0/0 is 0, with the support shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.items import Item, index_items, names_of, share
from data.schema import TASKS, Document, InputError, JsonObject
from data.text import FoldedText
from eval.scoring.parse import Answer, Predictions
from eval.scoring.stats import bootstrap_f1, f1_of, interval, remark_on, resample_weights

Key = tuple[str, str]  # (document id, task)
Items = Mapping[Item, Item]  # by normalised item, the item as it was first written


@dataclass(frozen=True)
class Scored:
    """Predictions compared with gold: made once by `match_answers`, and read by every section of metrics.json.

    `counts`: (tp, fp, fn) by task and document, [documents, 3], zeros where a document's gold for a task is unknown.
    `weights`: how often each document is drawn in each resample, [resamples, documents]. `texts`: the articles, for search.
    """

    documents: tuple[Document, ...]
    predictions: Predictions
    gold: Mapping[Key, Items]
    predicted: Mapping[Key, Items]
    counts: Mapping[str, np.ndarray]
    weights: np.ndarray
    texts: tuple[FoldedText, ...]

    def right(self, key: Key) -> list[Item]:
        """The normalised items that are gold and predicted."""
        return [item for item in self.predicted[key] if item in self.gold[key]]

    def wrong(self, key: Key) -> list[Item]:
        """The normalised items that are predicted and not gold."""
        return [item for item in self.predicted[key] if item not in self.gold[key]]

    def missed(self, key: Key) -> list[Item]:
        """The normalised items that are gold and not predicted."""
        return [item for item in self.gold[key] if item not in self.predicted[key]]


def match_answers(documents: Sequence[Document], predictions: Predictions) -> Scored:
    """The predictions beside gold, compared once.

    Raises InputError for an answer that is missing or belongs to no document: nothing is dropped silently.
    """
    check_complete(documents, predictions)
    gold = {(document.id, task): index_items(document.gold(task)) for document in documents for task in document.tasks}
    predicted = {key: index_items(predictions[key].items) for key in gold}
    return Scored(
        documents=tuple(documents),
        predictions=predictions,
        gold=gold,
        predicted=predicted,
        counts=count_matches(documents, gold, predicted),
        weights=resample_weights(len(documents)),
        texts=tuple(FoldedText(document.article) for document in documents),
    )


def match_others(scored: Scored, predictions: Predictions) -> Scored:
    """Other predictions for the same documents, with the same gold and the same resamples."""
    check_complete(scored.documents, predictions)
    predicted = {key: index_items(predictions[key].items) for key in scored.gold}
    counts = count_matches(scored.documents, scored.gold, predicted)
    return replace(scored, predictions=predictions, predicted=predicted, counts=counts)


def count_matches(
    documents: Sequence[Document], gold: Mapping[Key, Items], predicted: Mapping[Key, Items]
) -> dict[str, np.ndarray]:
    """(tp, fp, fn) by task and document, [documents, 3]."""
    counts = {task: np.zeros((len(documents), 3), dtype=np.int64) for task in TASKS}
    for i, document in enumerate(documents):
        for task in document.tasks:
            counts[task][i] = count_sets(gold[document.id, task].keys(), predicted[document.id, task].keys())
    return counts


def count_sets(gold: AbstractSet[Any], predicted: AbstractSet[Any]) -> tuple[int, int, int]:
    """(tp, fp, fn) of two sets.

    >>> count_sets({"lithium", "li"}, {"lithium", "lead"})
    (1, 1, 1)
    """
    tp = len(gold & predicted)
    return tp, len(predicted) - tp, len(gold) - tp


def count_documents(documents: Sequence[Document], predictions: Predictions) -> Mapping[str, np.ndarray]:
    """`Scored.counts` alone: (tp, fp, fn) by task, [documents, 3]."""
    return match_answers(documents, predictions).counts


def check_complete(documents: Sequence[Document], predictions: Predictions) -> None:
    """Raises InputError for a prediction of an unknown document, or a document and task without a prediction."""
    known = {document.id for document in documents}
    for answered, task in predictions:
        if answered not in known:
            raise InputError(f"a prediction for document {answered!r} ({task}), which the gold does not have")
    for document in documents:
        for task in document.tasks:
            if (document.id, task) not in predictions:
                raise InputError(f"no prediction for document {document.id!r}, task {task}")


def score_predictions(documents: Sequence[Document], predictions: Predictions) -> JsonObject:
    """`score_answers` of predictions that are compared with gold here."""
    return score_answers(match_answers(documents, predictions))


def score_answers(scored: Scored) -> JsonObject:
    """{"tasks", "micro", "macro", "rates", "documents", "interval_remark"} of metrics.json."""
    return {
        "tasks": score_tasks(scored),
        "micro": score_counts(np.sum(list(scored.counts.values()), axis=0), scored.weights),
        "macro": score_macro(scored.counts, scored.weights),
        "rates": count_rates(scored),
        "documents": len(scored.documents),
        "interval_remark": remark_on(len(scored.documents)),
    }


def score_tasks(scored: Scored) -> dict[str, JsonObject]:
    """The figures of each task that a document has, and the share of its answers that are exactly gold."""
    asked = {task for document in scored.documents for task in document.tasks}
    return {
        task: score_counts(counts, scored.weights) | {"exact_match": exact_match(scored.documents, counts, task)}
        for task, counts in scored.counts.items()
        if task in asked
    }


def score_counts(counts: np.ndarray, weights: np.ndarray) -> JsonObject:
    """Figures of (tp, fp, fn) per document, [documents, 3], summed over documents (micro)."""
    tp, fp, fn = (int(total) for total in counts.sum(axis=0))
    precision, recall = share(tp, tp + fp), share(tp, tp + fn)
    return {
        "precision": precision,
        "recall": recall,
        "f1": float(f1_of(np.array([tp, fp, fn]))),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "support": tp + fn,
        "ci95": bootstrap_f1(counts, weights),
    }


def score_macro(counts: Mapping[str, np.ndarray], weights: np.ndarray) -> JsonObject:
    """The mean over the tasks that have gold or predictions."""
    used = [c for c in counts.values() if c.any()] or list(counts.values())
    figures = [score_counts(c, weights) for c in used]
    resampled = np.mean([f1_of(weights @ c) for c in used], axis=0)
    means = {key: float(np.mean([f[key] for f in figures])) for key in ("precision", "recall", "f1")}
    return means | {"ci95": interval(resampled)}


def exact_match(documents: Sequence[Document], counts: np.ndarray, task: str) -> float:
    """Share of answers that are exactly gold."""
    asked = [i for i, document in enumerate(documents) if task in document.tasks]
    return share(sum(not counts[i, 1:].any() for i in asked), len(asked))


def count_rates(scored: Scored) -> dict[str, float]:
    """How answers failed: malformed, truncated, empty, wrongly_empty (where gold is not) and missing, where there are such, as
    shares of answers; duplicate and ungrounded as shares of items.
    """
    answers = [scored.predictions[key] for key in scored.gold]
    status = Counter[str](answer.status for answer in answers)
    status["wrongly_empty"] = sum(scored.predictions[key].status == "empty" for key, gold in scored.gold.items() if gold)
    kinds = ("malformed", "truncated", "empty", "wrongly_empty", *["missing"] * bool(status["missing"]))
    rates = {name: share(status[name], len(answers)) for name in kinds}
    items = sum(len(answer.items) for answer in answers)
    distinct = sum(len(scored.predicted[key]) for key in scored.gold)
    ungrounded = sum(
        count_ungrounded(text, scored.predictions[document.id, task])
        for document, text in zip(scored.documents, scored.texts, strict=True)
        for task in document.tasks
    )
    return rates | {"duplicate": share(items - distinct, items), "ungrounded": share(ungrounded, items)}


def count_ungrounded(article: FoldedText, answer: Answer) -> int:
    """Items of which a name is no whole word of the article."""
    return sum(not all(map(article.contains, names_of(item))) for item in answer.items)
