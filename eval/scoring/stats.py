"""Uncertainty of every figure, and whether two systems differ: resampled over documents, whose rows are not independent.

Counts are (tp, fp, fn) per document, [documents, 3]. One set of resamples serves all tasks, so micro and macro figures keep
the tasks of a document together. Pure numpy: 500 documents x 1,000 resamples take well under a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data.schema import JsonObject

RESAMPLES = 1000
SHUFFLES = 10_000
SEED = 20
FIGURES = ("precision", "recall", "f1")
FEW = 30
"""Documents, below which resampling them understates how far figures spread."""
ONE_SIDED = 1.644854
REACH_80 = 1.959964 + 0.841621
"""Standard errors that a difference must measure to be found at a level of 0.05 in 80 of 100 tests: z(0.975) + z(0.8)."""


def resample_weights(documents: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each document is drawn in each resample, [resamples, documents]."""
    return np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, element by element; 0/0 is 0."""
    quotient: np.ndarray = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return quotient


def figures_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of (tp, fp, fn) along the last axis."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    return {"precision": ratio(tp, tp + fp), "recall": ratio(tp, tp + fn), "f1": ratio(2 * tp, 2 * tp + fp + fn)}


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of (tp, fp, fn) along the last axis; 0/0 is 0."""
    return figures_of(counts)["f1"]


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of the resampled values; None where all are one, as of all right or all wrong.

    That the documents here are so is no proof that the next one will be: no interval is better than one of no width.
    """
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])] if np.ptp(values) > 1e-12 else None


def remark_on(documents: int) -> str | None:
    """What must be said beside the intervals of so few documents; None where they are enough."""
    return f"{documents} articles: under {FEW}, these intervals are too narrow" if documents < FEW else None


def lower_bound(right: int, total: int) -> float:
    """The share of `total` that is right at least, in 95 of 100 such samples: Wilson's one-sided bound of independent items.

    >>> round(lower_bound(30, 30), 3), round(lower_bound(27, 30), 3)
    (0.917, 0.774)
    """
    if not total:
        return 0.0
    share, z = right / total, ONE_SIDED
    reach = z * ((share * (1 - share) + z * z / (4 * total)) / total) ** 0.5
    return float((share + z * z / (2 * total) - reach) / (1 + z * z / total))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests at once, corrected so that one in twenty of such families errs anywhere (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, most = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = most
    return corrected


def bootstrap_f1(counts: np.ndarray, weights: np.ndarray | None = None) -> list[float] | None:
    """95 % interval of micro F1 for (tp, fp, fn) per document, [documents, 3]."""
    weights = resample_weights(len(counts)) if weights is None else weights
    return interval(f1_of(weights @ counts))


def used_tasks(*systems: Mapping[str, np.ndarray]) -> list[str]:
    """The tasks that have gold or predictions in any of the systems: those that a macro mean is over."""
    return [task for task in systems[0] if any(counts[task].any() for counts in systems)] or list(systems[0])


def resample_figures(totals: Mapping[str, np.ndarray], tasks: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """By task, "micro" and "macro" (over `tasks`), each figure of each resample; `totals` are [resamples, 3] by task."""
    by_task = {task: figures_of(total) for task, total in totals.items()}
    macro = {figure: np.mean([by_task[task][figure] for task in tasks], axis=0) for figure in FIGURES}
    return by_task | {"micro": figures_of(np.sum(list(totals.values()), axis=0)), "macro": macro}


def draw(counts: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """(tp, fp, fn) of each resample, [resamples, 3] by task."""
    weights = weights.astype(float)  # integers would miss the fast matrix product
    return {task: weights @ own for task, own in counts.items()}


def bootstrap_intervals(
    counts: Mapping[str, np.ndarray], weights: np.ndarray | None = None
) -> dict[str, dict[str, list[float] | None]]:
    """By task, "micro" and "macro", the 95 % interval of precision, recall and F1."""
    weights = resample_weights(_documents(counts)) if weights is None else weights
    resampled = resample_figures(draw(counts, weights), used_tasks(counts))
    return {name: {figure: interval(values) for figure, values in own.items()} for name, own in resampled.items()}


def compare_counts(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], shuffles: int = SHUFFLES) -> dict[str, JsonObject]:
    """By task, "micro" and "macro": F1 of two systems on the same documents, and what their difference, b - a, is worth.

    {"a", "b", "difference", "ci95", "p_bootstrap", "p_randomisation", "p", "p_corrected", "resolvable"}. "p": the larger of
    the two; "p_corrected": by Holm's method for the rows tested at once, of which one in six otherwise "differs" by chance.
    """
    tasks, weights = used_tasks(a, b), resample_weights(_documents(a))
    observed = {name: _f1s({task: c.sum(axis=0) for task, c in counts.items()}, tasks) for name, counts in (("a", a), ("b", b))}
    resampled_a, resampled_b = (_f1s(draw(counts, weights), tasks) for counts in (a, b))
    shuffled = randomise(a, b, tasks, shuffles)
    compared: dict[str, JsonObject] = {}
    for name in observed["a"]:
        before, after = (float(observed[system][name]) for system in ("a", "b"))
        apart = resampled_b[name] - resampled_a[name]
        compared[name] = {
            "a": before,
            "b": after,
            "difference": after - before,
            "ci95": interval(apart),
            "p_bootstrap": p_of_bootstrap(apart),
            "p_randomisation": p_of_shuffles(after - before, shuffled[name]),
            "resolvable": resolvable(apart),
        }
        compared[name]["p"] = max(compared[name][p] for p in ("p_bootstrap", "p_randomisation"))
    for row, p in zip(compared.values(), holm([row["p"] for row in compared.values()]), strict=True):
        row["p_corrected"] = p
    return compared


def randomise(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], tasks: Sequence[str], shuffles: int = SHUFFLES
) -> dict[str, np.ndarray]:
    """Differences in F1, [shuffles] by task, when each document's two answers change sides by the toss of a coin.

    Approximate randomisation (Noreen 1989; Yeh 2000): what differences chance alone makes of two equal systems.
    """
    swaps = np.random.default_rng(SEED).integers(0, 2, size=(shuffles, _documents(a))).astype(float)
    moved = {task: swaps @ (b[task] - a[task]) for task in a}
    ours = _f1s({task: a[task].sum(axis=0) + moved[task] for task in a}, tasks)
    theirs = _f1s({task: b[task].sum(axis=0) - moved[task] for task in a}, tasks)
    return {name: theirs[name] - ours[name] for name in ours}


def p_of_bootstrap(differences: np.ndarray) -> float:
    """Two-sided: twice the share of resamples on the rarer side of 0, counting one more so that it is never 0."""
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(differences) + 1)))


def p_of_shuffles(difference: float, shuffled: np.ndarray) -> float:
    """Two-sided: how often chance does at least as much, the observed difference counted in."""
    return float(((np.abs(shuffled) >= abs(difference) - 1e-12).sum() + 1) / (len(shuffled) + 1))


def resolvable_differences(counts: Mapping[str, np.ndarray], weights: np.ndarray | None = None) -> dict[str, float | None]:
    """By task, "micro" and "macro", the smallest difference in F1 that this test set finds in 80 of 100 comparisons.

    Against a system of the same spread scored on other documents (unpaired): 2.8 standard errors of a difference, sqrt(2)
    times one system's. Two systems on these same documents resolve less, how much less only `compare_counts` can say.
    """
    weights = resample_weights(_documents(counts)) if weights is None else weights
    resampled = _f1s(draw(counts, weights), used_tasks(counts))
    return {name: resolvable(np.sqrt(2) * values) for name, values in resampled.items()}


def resolvable(differences: np.ndarray) -> float | None:
    """What 80 of 100 tests find where resampled differences spread so; None where they do not spread, as in `interval`."""
    return REACH_80 * float(differences.std()) if interval(differences) else None


def _f1s(totals: Mapping[str, np.ndarray], tasks: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: own["f1"] for name, own in resample_figures(totals, tasks).items()}


def _documents(counts: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(counts.values())))
