"""metrics.json of one evaluated split: every section from answers that were compared with gold once."""

from __future__ import annotations

from collections.abc import Sequence

from data.audit import names_not_in_text
from data.schema import TASKS, Document, JsonObject
from eval.scoring.baselines import score_baselines
from eval.scoring.faults import Fault, score_faults
from eval.scoring.relation_conventions import score_conventions
from eval.scoring.score import Scored, score_answers
from eval.scoring.slices import score_slices
from eval.scoring.stats import bootstrap_intervals, resolvable_differences


def score_split(train: Sequence[Document], scored: Scored, faults: Sequence[Fault]) -> JsonObject:
    """{"tasks", "micro", "macro", "rates", "documents", "baselines", "intervals", "resolvable", "ceilings", "conventions",
    "slices", "faults"}, each as its function describes it. `faults`: what `find_faults` finds in the answers.
    """
    main = score_answers(scored)
    return main | {
        "baselines": score_baselines(train, scored),
        "intervals": bootstrap_intervals(scored.counts, scored.weights),
        "resolvable": resolvable_differences(scored.counts, scored.weights),
        "ceilings": find_ceilings(scored.documents),
        "conventions": score_conventions(train, scored),
        "slices": score_slices(train, scored),
        "faults": score_faults(scored, main, faults),
    }


def find_ceilings(documents: Sequence[Document]) -> dict[str, float | None]:
    """By task, the share of gold that a reader who copies from the article can find; None without gold."""
    missing = names_not_in_text(documents)
    return {task: 1 - missing[task]["share"] if missing[task]["items"] else None for task in TASKS}
