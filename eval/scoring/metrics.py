"""What the report shows beside metrics.json's own figures, in one call.

write_report(path, documents=…, predictions=…, metrics=metrics | score_sections(train, documents, predictions))
"""

from __future__ import annotations

from collections.abc import Sequence

from data.audit import names_not_in_text
from data.schema import TASKS, Document
from eval.scoring.faults import score_faults
from eval.scoring.parse import Predictions
from eval.scoring.relation_conventions import score_conventions
from eval.scoring.score import count_documents
from eval.scoring.slices import score_slices
from eval.scoring.stats import bootstrap_intervals, resample_weights, resolvable_differences


def score_sections(train: Sequence[Document], documents: Sequence[Document], predictions: Predictions) -> dict:
    """{"intervals", "resolvable", "ceilings", "conventions", "slices", "faults"}, each as its function describes it."""
    counts, weights = count_documents(documents, predictions), resample_weights(len(documents))
    return {
        "intervals": bootstrap_intervals(counts, weights),
        "resolvable": resolvable_differences(counts, weights),
        "ceilings": find_ceilings(documents),
        "conventions": score_conventions(train, documents, predictions),
        "slices": score_slices(train, documents, predictions),
        "faults": score_faults(documents, predictions),
    }


def find_ceilings(documents: Sequence[Document]) -> dict[str, float | None]:
    """By task, the share of gold that a reader who copies from the article can find; None without gold."""
    missing = names_not_in_text(documents)
    return {task: 1 - missing[task]["share"] if missing[task]["items"] else None for task in TASKS}
