"""How scoring grows with rows, and what a bootstrap costs:  python -m bench.scoring

Prints a table and writes bench/results/scoring-cpu.json. Articles are invented, alike in size, one row an article and task.
`ratios`: time per row at 100,000 rows over time per row at the smaller sizes; 1 is linear.
"""

from __future__ import annotations

import gc
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.files import write_json
from data.schema import TASKS, Document, Mention, Relation
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import count_documents
from eval.scoring.stats import bootstrap_intervals, resample_weights

ROWS = (1_000, 10_000, 100_000)
REPEATS = 7
RESULTS = Path(__file__).parent / "results" / "scoring-cpu.json"
NAMES = [
    f"{stem}{ending}" for stem in ("lith", "zin", "car", "met", "pro", "val") for ending in ("ium", "ol", "ine", "ate", "an")
]


def invent_articles(rows: int) -> tuple[list[Document], Predictions]:
    """Articles of some 60 words with a dozen items, and answers that are right in two of three."""
    chance = random.Random(20)
    documents, predictions = [], {}
    for number in range(-(-rows // len(TASKS))):
        names = chance.sample(NAMES, 8)
        mentions = [Mention(name, "Chemical" if i < 4 else "Disease") for i, name in enumerate(names)]
        relations = tuple(Relation(names[i], names[4 + i]) for i in range(3))
        text = "The patients were given what follows and were seen again. " * 5 + ", ".join(names)
        documents.append(Document(f"d{number}", text, mentions=tuple(mentions), relations=relations))
        for task in TASKS:
            kept = tuple(item for item in documents[-1].gold(task) if chance.random() < 0.67)
            predictions[f"d{number}", task] = Answer(kept, "ok" if kept else "empty")
    return documents, predictions


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time, which leaves out what other programs on the machine take."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_rows() -> list[dict]:
    """The quickest of some runs for each size; the sizes take turns, so that a busy minute hits all of them."""
    corpora = [invent_articles(rows) for rows in ROWS]
    rounds = [[processor_seconds(lambda c=corpus: count_documents(*c)) for corpus in corpora] for _ in range(REPEATS)]
    measured = []
    for (_, predictions), seconds in zip(corpora, map(min, zip(*rounds, strict=True)), strict=True):
        rows = len(predictions)
        measured.append({"rows": rows, "seconds": seconds, "microseconds_a_row": 1e6 * seconds / rows})
    return measured


def measure_bootstrap(documents: int = 500, resamples: int = 1000) -> dict:
    counts = {task: np.random.default_rng(20).integers(0, 9, (documents, 3)) for task in TASKS}
    seconds = min(
        processor_seconds(lambda: bootstrap_intervals(counts, resample_weights(documents, resamples))) for _ in range(REPEATS)
    )
    return {"documents": documents, "resamples": resamples, "figures": 15, "seconds": seconds}


def cost(row: dict) -> float:
    return row["microseconds_a_row"]


def main() -> None:
    measured = measure_rows()
    last = measured[-1]
    result = {
        "device": f"cpu ({platform.machine()})",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "n": REPEATS,
        "scoring": measured,
        "bootstrap": measure_bootstrap(),
        "ratios": {f"{last['rows']}_vs_{row['rows']}_rows": cost(last) / cost(row) for row in measured[:-1]},
    }
    write_json(RESULTS, result)
    for row in measured:
        print(f"{row['rows']:>9,} rows  {row['seconds']:7.3f} s  {row['microseconds_a_row']:6.1f} us a row")
    print(f"bootstrap  {result['bootstrap']['seconds']:.3f} s for 500 documents x 1,000 resamples, 15 figures")
    for name, ratio in result["ratios"].items():
        print(f"{name}  {ratio:.2f} (1 is linear)")
    print(f"wrote {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
