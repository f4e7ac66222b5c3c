"""metrics.json of one evaluated split: every section from answers that were compared with gold once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from data.audit import names_not_in_text
from data.items import share
from data.schema import TASKS, Document, JsonObject
from eval.scoring.baselines import score_baselines
from eval.scoring.faults import Fault, score_faults
from eval.scoring.lenient import parse_leniently
from eval.scoring.parse import Predictions, parse_completions
from eval.scoring.relation_conventions import score_conventions
from eval.scoring.score import Scored, match_others, score_answers
from eval.scoring.slices import score_slices
from eval.scoring.stats import bootstrap_intervals, resolvable_differences

Reading = Literal["strict", "lenient"]


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


def score_readings(scored: Scored, rows: Sequence[dict[str, Any]], compared: Reading) -> JsonObject:
    """{"compared", "strict": {"tasks", "micro", "macro", "rates"}, "lenient": the same and its "repaired" share of answers}.

    `scored`: the strict reading of `rows`, which are completions. `compared`: the reading that stands for this model beside
    others: strict for what was taught the format, lenient for what was not, or its lack of the format would pass for skill.
    """
    return compare_readings(scored, parse_completions(rows, parse_leniently), compared)


def compare_readings(scored: Scored, read_leniently: Predictions, compared: Reading) -> JsonObject:
    """As `score_readings`, of answers that were read both ways already."""
    lenient = match_others(scored, read_leniently)
    strict, repaired = score_answers(scored), [lenient.predictions[key].repaired for key in scored.gold]
    readings = {"strict": strict, "lenient": score_answers(lenient)}
    kept = {name: {key: own[key] for key in ("tasks", "micro", "macro", "rates")} for name, own in readings.items()}
    kept["lenient"]["rates"] |= {"repaired": share(sum(repaired), len(repaired))}
    return {"compared": compared, **kept}


def find_ceilings(documents: Sequence[Document]) -> dict[str, float | None]:
    """By task, the share of gold that a reader who copies from the article can find; None without gold."""
    missing = names_not_in_text(documents)
    return {task: 1 - missing[task]["share"] if missing[task]["items"] else None for task in TASKS}
