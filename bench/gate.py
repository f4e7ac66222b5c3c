"""What the parity gate lets pass: exports that truly lose, and lossless ones, in simulated draws of a corpus of abstracts.

    python -m bench.gate        prints the share of 200 draws that is refused or passes, and writes bench/results/gate.json

A draw has an adapter's counts and an export's on the same validation documents. "changed" is the share of answers in which a
lossless export says something else (a lossy one too, beside what it loses), as often for the better as for the worse. "as
foretold": the share of lossless exports that pass as the gate itself prints it beside its verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.files import write_json
from data.schema import TASKS
from data.table import Table, as_text
from pipeline.export.gate import MAY_LOSE, judge_counts, overall_power

RESULTS = Path(__file__).parent / "results" / "gate.json"
DRAWS = 200
SIZES = (20, 50, 75, 100, 200)  # validation documents
CHANGED = (0.0, 0.02, 0.05, 0.1)
LOSSES = {"loses_two_points": dict.fromkeys(TASKS, 0.02), "loses_five_of_relations": {"relations": 0.05}, "lossless": {}}

# Gold items, recall and false positives of a document: what a tuned Llama finds in abstracts, roughly.
GOLD = {"chemicals": 3.5, "diseases": 4.0, "relations": 2.2}
RECALL = {"chemicals": 0.88, "diseases": 0.78, "relations": 0.42}
WRONG = {"chemicals": 0.5, "diseases": 1.0, "relations": 1.2}


def draw_adapter(chance: np.random.Generator, documents: int) -> dict[str, np.ndarray]:
    """(tp, fp, fn) by task and document, [documents, 3]."""
    counts = {}
    for task in TASKS:
        gold = chance.poisson(GOLD[task], documents)
        found = chance.binomial(gold, RECALL[task])
        counts[task] = np.stack([found, chance.poisson(WRONG[task], documents), gold - found], axis=1)
    return counts


def draw_export(
    chance: np.random.Generator,
    adapter: Mapping[str, np.ndarray],
    changed: float,
    loss: Mapping[str, float],
    whole_answers: bool = False,
) -> dict[str, np.ndarray]:
    """The adapter's counts with a share of answers `changed` by an item, as often for the better, and F1 lost by `loss`.

    An item lost is another one said in its place; with `whole_answers` all of an answer's items are lost together.
    """
    return {
        task: lose(chance, change(chance, counts, changed), loss.get(task, 0.0), whole_answers)
        for task, counts in adapter.items()
    }


def change(chance: np.random.Generator, counts: np.ndarray, share: float) -> np.ndarray:
    counts, better = counts.copy(), chance.random(len(counts)) < 0.5
    for number in np.flatnonzero(chance.random(len(counts)) < share):
        tp, fp, fn = counts[number]
        if better[number] and fn:
            counts[number] += (1, -1, -1) if fp and chance.random() < 0.5 else (1, 0, -1)
        elif tp and not better[number]:
            counts[number] += (-1, 1, 1) if chance.random() < 0.5 else (-1, 0, 1)
    return counts


def lose(chance: np.random.Generator, counts: np.ndarray, loss: float, whole_answers: bool) -> np.ndarray:
    tp, fp, fn = counts.sum(axis=0)
    share = loss * (2 * tp + fp + fn) / (2 * tp)
    lost = counts[:, 0] * (chance.random(len(counts)) < share) if whole_answers else chance.binomial(counts[:, 0], share)
    return counts + np.stack([-lost, lost, lost], axis=1)


def share_passed(
    documents: int, *, changed: float, loss: Mapping[str, float], whole_answers: bool = False, draws: int = DRAWS, seed: int = 0
) -> float:
    """The share of draws in which the export passes the gate."""
    chance, passed = np.random.default_rng(seed), 0
    for _ in range(draws):
        adapter = draw_adapter(chance, documents)
        judged = judge_counts(adapter, draw_export(chance, adapter, changed, loss, whole_answers))
        passed += all(figures["passed"] for figures in judged.values())
    return passed / draws


def power_told(documents: int, *, changed: float, draws: int = DRAWS, seed: int = 0) -> float:
    """The share of lossless exports that pass, as the gate itself foretells it: the mean of what it prints in each draw."""
    chance, told = np.random.default_rng(seed), []
    for _ in range(draws):
        adapter = draw_adapter(chance, documents)
        power = overall_power(list(judge_counts(adapter, draw_export(chance, adapter, changed, {})).values()))
        told.append(power["lossless_passes"] if power else 0.0)
    return float(np.mean(told))


def measure() -> list[dict]:
    """A row by size of the validation set and share of changed answers: the share of draws that passes, by true loss."""
    return [
        {"documents": size, "changed": changed}
        | {name: share_passed(size, changed=changed, loss=loss) for name, loss in LOSSES.items()}
        | {"foretold": power_told(size, changed=changed)}
        for size in SIZES
        for changed in CHANGED
    ]


def as_table(rows: list[dict]) -> Table:
    """Refused where an export loses, passed where it does not: what one wants to be 100."""
    wanted = [f"{name.replace('_', ' ')}: {'passed' if name == 'lossless' else 'refused'}" for name in LOSSES]
    cells = tuple(
        (
            f"{row['documents']}",
            f"{row['changed']:.0%}",
            *(f"{100 * (row[name] if name == 'lossless' else 1 - row[name]):.1f}" for name in LOSSES),
            f"{100 * row['foretold']:.1f}",
        )
        for row in rows
    )
    columns = ("validation documents", "answers changed", *wanted, "as foretold")
    return Table(columns, cells, f"The parity gate, % of {DRAWS} draws")


def main() -> None:
    rows = measure()
    write_json(RESULTS, {"draws": DRAWS, "seed": 0, "may_lose": MAY_LOSE, "passed": rows})
    print(as_text(as_table(rows)))


if __name__ == "__main__":
    main()
