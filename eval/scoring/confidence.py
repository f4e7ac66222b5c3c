"""What the scores of items (`eval.scoring.logprobs`) are worth, and the threshold for a wanted precision.

Scores become probabilities by Platt scaling per task, fitted on validation only; a threshold is chosen there too, and what it
costs in recall is read off test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.items import Item, normalise_item, share
from data.schema import TASKS, InputError, JsonObject
from eval.scoring.logprobs import Confidences
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import Scored
from eval.scoring.stats import lower_bound

BINS = 10
LEAST = 30  # items of validation that a threshold must leave


@dataclass(frozen=True)
class TaskItems:
    """The distinct items of one task: scores and whether each is gold, [items]; and how many gold items there are."""

    scores: np.ndarray
    correct: np.ndarray
    support: int


def collect_items(scored: Scored, confidences: Confidences) -> dict[str, TaskItems]:
    """By task, what calibration sees. An item said twice is one item, as sure as the surer."""
    collected = {}
    for task in TASKS:
        scores: list[float] = []
        correct: list[bool] = []
        support = 0
        for document in scored.documents:
            if task in document.tasks:
                gold = scored.gold[document.id, task]
                best = surest(scored.predictions[document.id, task].items, confidences[document.id, task])
                scores += best.values()
                correct += [item in gold for item in best]
                support += len(gold)
        collected[task] = TaskItems(np.array(scores, dtype=float), np.array(correct, dtype=bool), support)
    return collected


def surest(items: Sequence[Item], scores: Sequence[float]) -> dict[Item, float]:
    """By normalised item, the highest of its scores, since an item may be listed twice."""
    best: dict[Item, float] = {}
    for item, score in zip(map(normalise_item, items), scores, strict=True):
        best[item] = max(score, best.get(item, score))
    return best


def fit_platt(scores: np.ndarray, correct: np.ndarray, steps: int = 100) -> tuple[float, float]:
    """(slope, intercept) of P(correct) = 1 / (1 + exp(-(slope * score + intercept))), by Newton's method.

    Targets are Platt's smoothed ones (Platt 1999), which also keep a task that is all right or all wrong finite. The slope
    is never negative: a surer item is never less likely right, so a calibrated score keeps the order.
    """
    right, wrong = correct.sum(), (~correct).sum()
    target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
    features = np.stack([scores, np.ones_like(scores)], axis=1)
    weights = np.array([0.0, np.log((right + 1) / (wrong + 1))])
    for _ in range(steps):
        chance = logistic(features @ weights)
        slope = features.T @ (chance - target) + 1e-6 * weights
        curve = features.T @ (features * (chance * (1 - chance))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        weights = weights - step / max(1.0, float(np.abs(step).max()))  # no leap of more than 1: scores may be far apart
        if np.abs(step).max() < 1e-9:
            break
    if weights[0] < 0:
        return 0.0, float(np.log((right + 1) / (wrong + 1)))
    return float(weights[0]), float(weights[1])


def logistic(values: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x) of each value; values are limited to ±60, so that none overflows."""
    chances: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return chances


def calibrate(items: Mapping[str, TaskItems]) -> dict[str, tuple[float, float]]:
    """(slope, intercept) by task, from validation's items."""
    return {task: fit_platt(own.scores, own.correct) for task, own in items.items()}


def apply_calibration(confidences: Confidences, fitted: Mapping[str, tuple[float, float]]) -> Confidences:
    """Mean log-probabilities as probabilities that the item is right."""
    return {
        (document, task): tuple(map(float, logistic(fitted[task][0] * np.array(scores) + fitted[task][1])))
        for (document, task), scores in confidences.items()
    }


def reliability(items: TaskItems, bins: int = BINS) -> list[JsonObject]:
    """By tenth of stated probability: {"from", "to", "items", "stated", "right"}; empty tenths left out."""
    place = np.minimum((items.scores * bins).astype(int), bins - 1)
    return [
        {
            "from": b / bins,
            "to": (b + 1) / bins,
            "items": int((place == b).sum()),
            "stated": float(items.scores[place == b].mean()),
            "right": float(items.correct[place == b].mean()),
        }
        for b in np.unique(place)
    ]


def calibration_error(items: TaskItems) -> float | None:
    """Expected calibration error: stated less right, absolute, over the tenths, weighted by their items."""
    total = len(items.scores)
    return sum(b["items"] * abs(b["stated"] - b["right"]) for b in reliability(items)) / total if total else None


def risk_coverage(items: TaskItems) -> list[JsonObject]:
    """{"threshold", "coverage", "precision", "recall"} of the surest items, from one to all; equal scores go together."""
    order = np.argsort(-items.scores, kind="stable")
    scores, right = items.scores[order], np.cumsum(items.correct[order])
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    return [
        {
            "threshold": float(scores[i]),
            "coverage": (i + 1) / len(scores),
            "precision": float(right[i] / (i + 1)),
            "recall": share(int(right[i]), items.support),
        }
        for i in np.flatnonzero(last)
    ]


def choose_threshold(items: TaskItems, min_precision: float) -> float | None:
    """The lowest score above which validation shows the precision, so that most items are kept; None where none does.

    Shown: the one-sided 95 % lower bound of the share that is right reaches it, on `LEAST` items or more, so that a few lucky
    ones promise nothing. Raises InputError for a precision that is none.
    """
    if not 0 < min_precision <= 1:
        raise InputError(f"--min-precision {min_precision}: expected a fraction over 0 and up to 1, such as 0.9")
    shown = []
    for point in risk_coverage(items):
        kept = round(point["coverage"] * len(items.scores))
        if kept >= LEAST and lower_bound(round(point["precision"] * kept), kept) >= min_precision:
            shown.append(point["threshold"])
    return min(shown, default=None)


def keep_confident(predictions: Predictions, confidences: Confidences, thresholds: Mapping[str, float | None]) -> Predictions:
    """The predictions without the items under their task's threshold, and without any where it is None."""
    kept = {}
    for (document, task), answer in predictions.items():
        threshold = thresholds[task]
        limit = np.inf if threshold is None else threshold
        best = surest(answer.items, confidences[document, task])
        items = tuple(item for item in answer.items if best[normalise_item(item)] >= limit)
        kept[document, task] = Answer(items, "empty" if answer.status == "ok" and not items else answer.status)
    return kept


def figures_at(items: TaskItems, threshold: float | None) -> JsonObject:
    """{"items", "precision", "recall"} of the items at or over the threshold."""
    chosen = items.scores >= (np.inf if threshold is None else threshold)
    right = int(items.correct[chosen].sum())
    return {"items": int(chosen.sum()), "precision": share(right, int(chosen.sum())), "recall": share(right, items.support)}


def score_confidence(
    validation: Mapping[str, TaskItems], test: Mapping[str, TaskItems], min_precision: float = 0.9
) -> JsonObject:
    """By task: the calibration, its error before use on test, both curves, and the threshold with what it costs.

    `validation` and `test` are raw scores (`collect_items` of `score_items`); calibrated here, with validation's fit.
    """
    described = {}
    for task, (slope, intercept) in calibrate(validation).items():
        known, new = (
            TaskItems(logistic(slope * own.scores + intercept), own.correct, own.support)
            for own in (validation[task], test[task])
        )
        threshold = choose_threshold(known, min_precision)
        described[task] = {
            "slope": slope,
            "intercept": intercept,
            "items": {"validation": len(known.scores), "test": len(new.scores)},
            "calibration_error": calibration_error(new),
            "reliability": reliability(new),
            "risk_coverage": thin(risk_coverage(new)),
            "min_precision": min_precision,
            "threshold": threshold,
            "validation": figures_at(known, threshold),
            "test": {"all": figures_at(new, -np.inf), "kept": figures_at(new, threshold)},
        }
    return described


def thin(points: list[JsonObject], most: int = 100) -> list[JsonObject]:
    """At most so many points of a curve, both ends kept: what a plot can show."""
    return [points[i] for i in np.unique(np.linspace(0, len(points) - 1, most).astype(int))] if points else []
