"""`medner score GOLD PREDICTIONS`: a file of any system's predictions against gold, with what it lacks said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from data.corpus import read_corpus
from data.schema import TASKS, Document, InputError
from eval.official.other_systems import holds_completions, read_other_system
from eval.scoring.lenient import parse_leniently
from eval.scoring.metrics import compare_readings
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import match_answers, score_answers
from pipeline.summary import render_metrics

Outcome = tuple[dict, str, int]
NAMED = 5


def score_file(gold: Path, predictions: Path, allow_missing: bool) -> Outcome:
    """metrics.json's scores, with "missing", "not_scored", "not_asked", and "readings" where the file has completions.

    Raises InputError for missing answers unless they are allowed.
    """
    corpus = read_corpus(gold)
    given = read_other_system(predictions, corpus.documents)
    unspoken = find_unspoken(corpus.documents, given, bool(corpus.rows))
    documents = without_tasks(corpus.documents, unspoken)
    if not documents:
        raise InputError(f"{predictions}: nothing to score: {describe_unspoken(unspoken)}")
    asked = dict.fromkeys((document.id, task) for document in documents for task in document.tasks)
    missing = [key for key in asked if key not in given]
    if missing and not allow_missing:
        first = f"{missing[0][1]} of document {missing[0][0]!r}"
        raise InputError(
            f"{predictions}: {len(missing)} of {len(asked)} answers are missing, such as {first}; "
            "complete the file, or give --allow-missing to score them as empty"
        )
    scored = match_answers(documents, fill_missing(given, asked))
    metrics = score_answers(scored)
    if holds_completions(predictions):
        lenient = fill_missing(read_other_system(predictions, corpus.documents, parse_leniently), asked)
        metrics["readings"] = compare_readings(scored, lenient, "strict")
    for figures in (metrics, *(metrics["readings"][name] for name in ("strict", "lenient") if "readings" in metrics)):
        figures["tasks"] = {task: one for task, one in figures["tasks"].items() if task not in unspoken}
    metrics["missing"] = {"answers": len(missing), "of": len(asked), "examples": [list(key) for key in missing[:NAMED]]}
    metrics["not_scored"] = unspoken
    metrics["not_asked"] = sum(key not in asked and key[1] not in unspoken for key in given)
    return metrics, "\n\n".join([*describe_lacking(metrics), render_metrics(metrics)]), 0


def fill_missing(given: Predictions, asked: Iterable[tuple[str, str]]) -> Predictions:
    """An answer to everything that was asked: an empty one of status "missing" where none was given."""
    return {key: given.get(key, Answer((), "missing")) for key in asked}


def find_unspoken(documents: Sequence[Document], given: Predictions, gold_is_rows: bool) -> dict[str, str]:
    """By task that gold or the predictions do not speak of, which of them; such a task is no failure and is not scored.

    Annotations say that a document has none of a kind by naming none, so a file of them speaks of a kind where any document
    has it; rows say "none" themselves.
    """
    reasons = {}
    for task in TASKS:
        if not any(task in document.tasks for document in documents):
            continue
        if not any(asked == task for _, asked in given):
            reasons[task] = "the predictions file has none"
        elif not gold_is_rows and not any(document.gold(task) for document in documents):
            reasons[task] = "the gold file has none"
    return reasons


def without_tasks(documents: Sequence[Document], unspoken: dict[str, str]) -> list[Document]:
    """The documents with what is left to ask of them; those of which nothing is left are left out."""
    kept = [replace(d, tasks=tuple(task for task in d.tasks if task not in unspoken)) for d in documents]
    return [document for document in kept if document.tasks]


def describe_unspoken(unspoken: dict[str, str]) -> str:
    """Which tasks are not scored, and why, in words."""
    return "; ".join(f"{task} are not scored, since {reason}" for task, reason in unspoken.items())


def describe_lacking(metrics: dict) -> list[str]:
    """What the file of predictions lacks, one line each."""
    missing, lines = metrics["missing"], []
    if missing["answers"]:
        lines.append(f"MISSING: {missing['answers']} of {missing['of']} answers are not in the file, and count as empty")
    if metrics["not_asked"]:
        lines.append(f"NOT ASKED: {metrics['not_asked']} answers are to tasks that gold does not ask of their document")
    if metrics["not_scored"]:
        lines.append(f"NOT SCORED: {describe_unspoken(metrics['not_scored'])}")
    return lines
