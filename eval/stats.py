"""Uncertainty of F1: bootstrap over documents, because rows of one document are not independent."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
SEED = 20


def resample_weights(documents: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each document is drawn in each resample, [resamples, documents]."""
    return np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of (tp, fp, fn) along the last axis; 0/0 is 0."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    whole = 2 * tp + fp + fn
    return np.divide(2 * tp, whole, out=np.zeros_like(whole), where=whole > 0)


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of the resampled values."""
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])]


def bootstrap_f1(counts: np.ndarray, weights: np.ndarray | None = None) -> list[float]:
    """95 % interval of micro F1 for (tp, fp, fn) per document, [documents, 3]."""
    weights = resample_weights(len(counts)) if weights is None else weights
    return interval(f1_of(weights @ counts))
