"""Precision, recall and F1 of predictions against gold: the figures of metrics.json.

Per document and task, sets of items are compared after the same normalisation on both sides (`data.text.normalise`). Every
predicted item that is not gold is a false positive, every gold item not predicted a false negative; a malformed answer predicts
nothing. Figures are fractions; 0/0 is 0, with the support shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from data.items import names_of, normalise_item, share
from data.prompts import Item
from data.schema import TASKS, Document, InputError
from data.text import FoldedText
from eval.scoring.parse import Answer, Predictions
from eval.scoring.stats import bootstrap_f1, f1_of, interval, resample_weights


def count_items(gold: Sequence[Item], predicted: Sequence[Item]) -> tuple[int, int, int]:
    """(tp, fp, fn) of one answer.

    >>> count_items(["Lithium", "lithium", "Li"], ["lithium.", "lead"])
    (1, 1, 1)
    """
    gold_set, predicted_set = set(map(normalise_item, gold)), set(map(normalise_item, predicted))
    tp = len(gold_set & predicted_set)
    return tp, len(predicted_set) - tp, len(gold_set) - tp


def count_documents(documents: Sequence[Document], predictions: Predictions) -> dict[str, np.ndarray]:
    """(tp, fp, fn) by task and document, [documents, 3]; zeros where the document's gold for that task is unknown.

    Raises InputError for an answer that is missing or belongs to no document: nothing is dropped silently.
    """
    check_complete(documents, predictions)
    counts = {task: np.zeros((len(documents), 3), dtype=np.int64) for task in TASKS}
    for i, document in enumerate(documents):
        for task in document.tasks:
            counts[task][i] = count_items(document.gold(task), predictions[document.id, task].items)
    return counts


def check_complete(documents: Sequence[Document], predictions: Predictions) -> None:
    known = {document.id for document in documents}
    for document, task in predictions:
        if document not in known:
            raise InputError(f"a prediction for document {document!r} ({task}), which the gold does not hold")
    for document in documents:
        for task in document.tasks:
            if (document.id, task) not in predictions:
                raise InputError(f"no prediction for document {document.id!r}, task {task}")


def score_predictions(documents: Sequence[Document], predictions: Predictions) -> dict:
    """metrics.json without its baselines."""
    counts = count_documents(documents, predictions)
    weights = resample_weights(len(documents))
    tasks = {task: score_counts(counts[task], weights) for task in TASKS}
    for task in TASKS:
        tasks[task]["exact_match"] = exact_match(documents, counts[task], task)
    return {
        "tasks": tasks,
        "micro": score_counts(sum(counts.values()), weights),
        "macro": score_macro(counts, weights),
        "rates": count_rates(documents, predictions),
        "documents": len(documents),
    }


def score_counts(counts: np.ndarray, weights: np.ndarray) -> dict:
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


def score_macro(counts: Mapping[str, np.ndarray], weights: np.ndarray) -> dict:
    """The mean over the tasks that have gold or predictions."""
    used = [c for c in counts.values() if c.any()] or list(counts.values())
    figures = [score_counts(c, weights) for c in used]
    resampled = np.mean([f1_of(weights @ c) for c in used], axis=0)
    means = {key: float(np.mean([f[key] for f in figures])) for key in ("precision", "recall", "f1")}
    return means | {"ci95": interval(resampled)}


def exact_match(documents: Sequence[Document], counts: np.ndarray, task: str) -> float:
    """Share of answers that hold every gold item and nothing else."""
    asked = [i for i, document in enumerate(documents) if task in document.tasks]
    return share(sum(not counts[i, 1:].any() for i in asked), len(asked))


def count_rates(documents: Sequence[Document], predictions: Predictions) -> dict[str, float]:
    """How answers failed: malformed, truncated and empty as shares of answers; duplicate and ungrounded as shares of items."""
    answers = [predictions[d.id, task] for d in documents for task in d.tasks]
    status = Counter(answer.status for answer in answers)
    rates = {name: share(status[name], len(answers)) for name in ("malformed", "truncated", "empty")}
    items = sum(len(answer.items) for answer in answers)
    repeated = sum(len(a.items) - len(set(map(normalise_item, a.items))) for a in answers)
    ungrounded = sum(count_ungrounded(d, [predictions[d.id, task] for task in d.tasks]) for d in documents)
    return rates | {"duplicate": share(repeated, items), "ungrounded": share(ungrounded, items)}


def count_ungrounded(document: Document, answers: Sequence[Answer]) -> int:
    """Items of which a name is no whole word of the article."""
    text = FoldedText(document.article)
    return sum(not all(map(text.holds, names_of(item))) for answer in answers for item in answer.items)
