"""The test that an exported model must pass: that it lost no more F1 than may be lost, shown, not merely not disproved.

Counts are (tp, fp, fn) per document, [documents, 3], of the adapter and of the export on the same documents. A file passes
where the whole 95 % interval of its change lies above minus what may be lost (a non-inferiority test), in all items together
and in each task; so few documents, or many changed answers, never pass a file. It fails where the whole interval lies below
zero, and is undecided else. Figures are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod, sqrt
from statistics import NormalDist

import numpy as np

from data.schema import TASKS
from eval.scoring.stats import f1_of

MAY_LOSE = {"micro": 0.02} | dict.fromkeys(TASKS, 0.05)
"""F1. A task has fewer items than all three, so less can be shown of it: 100 abstracts have some 200 relations."""
# The share of answers equal letter by letter under which a file is another model, whatever its F1: as many bits, and fewer.
LEAST_EQUAL, LEAST_EQUAL_LOSSY = 0.9, 0.7
SAME_BITS = ("16-bit", "F32", "F16", "BF16", "Q8_0")
Z = NormalDist().inv_cdf(0.975)
ENOUGH = 0.99  # of lossless files that each of the four tests shall pass, so that nearly all pass all four


def judge_change(before: np.ndarray, after: np.ndarray, may_lose: float) -> dict:
    """F1 before and after, the change with its 95 % interval, and what this test can find.

    {"f1", "adapter_f1", "change", "ci95", "may_lose", "passed", "power": {"lossless_passes", "refused_from", "documents"}}. A
    lossless file of as many changed answers passes in a share of `lossless_passes` of such tests, and in 99 of 100 with about
    so many documents; one that loses `refused_from` or more does not pass in 95 of 100. Without any item the interval and the
    power are None, and nothing is refused.

    The interval is a score interval: sqrt(n) plus what a document not yet seen to change might add, so that no change at all in
    few documents proves little (with none in n items, 3.8/n, where the exact Poisson bound is 3.7/n).
    """
    old, new = float(f1_of(before.sum(axis=0))), float(f1_of(after.sum(axis=0)))
    found = {"f1": new, "adapter_f1": old, "change": new - old, "may_lose": may_lose}
    items = after @ [2, 1, 1]  # predicted and gold, by document
    if not items.sum():
        return found | {"ci95": None, "passed": new >= old, "power": None}
    # Each document's part in the change; their sum is the change, exactly.
    parts = (2 * (after[:, 0] - before[:, 0]) - old * (items - before @ [2, 1, 1])) / items.sum()
    spread = float(np.square(parts).sum())
    step = max(2 / float(items.sum()), sqrt(spread / max(1, np.count_nonzero(parts))))  # what one changed document is worth
    reach = reach_of(step, spread)
    ends = [new - old - reach, new - old + reach]
    power = describe_power(may_lose, step, spread, len(before))
    return found | {"ci95": ends, "passed": ends[0] > -may_lose, "power": power}


def reach_of(step: float, spread: float) -> float:
    """How far the interval reaches to either side."""
    return Z**2 / 2 * step + Z * sqrt(spread + (Z * step / 2) ** 2)


def describe_power(may_lose: float, step: float, spread: float, documents: int) -> dict[str, float]:
    """What such a test finds, as `judge_change` says; step and spread shrink as documents grow."""
    normal = NormalDist()

    def find(documents_then: int) -> tuple[float, float]:
        share = documents / documents_then
        error = sqrt(share * spread + (share * step) ** 2)  # of the change found, one sigma
        left = may_lose - reach_of(share * step, share * spread)
        return normal.cdf(left / error), max(0.0, left + normal.inv_cdf(0.95) * error)

    passes, refused_from = find(documents)
    needed = documents
    while find(needed)[0] < ENOUGH:
        needed = ceil(1.05 * needed)
    return {"lossless_passes": passes, "refused_from": refused_from, "documents": needed}


def overall_power(judged: Sequence[Mapping]) -> dict[str, float] | None:
    """Of all of a file's changes together, which must all pass: a little low, since changes of one answer go together."""
    powers = [change["power"] for change in judged if change["power"]]
    if not powers:
        return None
    return {"lossless_passes": prod(power["lossless_passes"] for power in powers),
            "documents": max(power["documents"] for power in powers)}  # fmt: skip


def judge_counts(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """`judge_change` of "micro", all items together, and of each task that has items."""
    pairs = {"micro": (sum(before.values()), sum(after.values()))} | {task: (before[task], after[task]) for task in before}
    return {name: judge_change(*pair, MAY_LOSE[name]) for name, pair in pairs.items()}


def least_equal(quant: str, adapter_in_4bit: bool) -> float:
    """The least share of answers that must be equal: less where fewer bits answer, in the file or in the adapter's base."""
    return LEAST_EQUAL if quant in SAME_BITS and not adapter_in_4bit else LEAST_EQUAL_LOSSY
