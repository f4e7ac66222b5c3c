"""`medner evaluate RUN`: a run's articles answered again: grounded, by what was exported, by a server; the five cases; or the
answers cut to a wanted precision.

Each variant writes the same files as the run's own evaluation, in a folder of its own: eval/<split>/<variant>/.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data.files import read_jsonl, write_json
from data.items import share
from data.schema import Document, InputError
from data.split import read_split_folder
from data.text import normalise
from eval.scoring.cases import CASES, check_cases, render_cases
from eval.scoring.confidence import apply_calibration, calibrate, collect_items, keep_confident, score_confidence
from eval.scoring.logprobs import read_completions, score_items
from eval.scoring.parse import parse_completions, write_predictions
from eval.scoring.score import match_answers, match_others, score_answers
from pipeline.evaluate_split import evaluate_split
from pipeline.run_folder import RunFolder
from pipeline.summary import render_metrics
from pipeline.variant import Variant, as_trained, ask_variant, require_budgets, variant_folder

Outcome = tuple[dict, str, int]


def evaluate_variant(run: RunFolder, split: str, variant: Variant, *, markdown: bool = False) -> Outcome:
    """The variant's metrics.json of one split, and its tables as text for a terminal or as Markdown."""
    out = evaluate_split(run, split, variant)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    notes = [f"report: {out / 'report.html'}"]
    if variant.listed_sides:
        ceiling = listed_ceiling(read_split_folder(run.path / "data")[split])
        notes.insert(0, f"relations between listed names only: with perfect lists, recall could reach {ceiling:.1%}")
    shown = (out / "report.md").read_text(encoding="utf-8") if markdown else render_metrics(metrics, str(out))
    return metrics, "\n\n".join([shown, *notes]), 0


def listed_ceiling(documents: Sequence[Document]) -> float:
    """The share of gold relations of which both sides stand in the gold lists of chemicals and diseases."""
    listed = every = 0
    for document in documents:
        chemicals, diseases = (set(map(normalise, document.gold(task))) for task in ("chemicals", "diseases"))
        pairs = [(normalise(chemical), normalise(disease)) for chemical, disease in document.gold("relations")]
        listed += sum(chemical in chemicals and disease in diseases for chemical, disease in pairs)
        every += len(pairs)
    return share(listed, every)


def evaluate_cases(run: RunFolder, variant: Variant) -> Outcome:
    """Whether the variant reads the five cases rightly, asked as the adapter was trained. Exit code 1 where it does not."""
    documents = [case.document for case in CASES]
    budgets = run.manifest["max_new_tokens"]
    try:
        require_budgets(budgets, documents)
    except InputError as error:
        cure = f"ask it its own articles instead: medner evaluate {run.path}"
        raise InputError(f"--cases: {str(error).partition(';')[0]}; {cure}") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completions.jsonl"
        ask_variant(run, variant, as_trained(run, documents), path)
        answers = parse_completions(row for _, row in read_jsonl(path))
    rows = check_cases(lambda document, task: answers[document.id, task])
    return {"cases": rows}, render_cases(rows), int(not all(row["passed"] for row in rows))


def cut_to_precision(run: RunFolder, split: str, variant: Variant, min_precision: float) -> Outcome:
    """Thresholds chosen on validation for a wanted precision, and what they cost in recall on `split`, of one variant."""
    if not 0 < min_precision < 1:
        raise InputError(f"--min-precision {min_precision}: must be between 0 and 1")
    if split == "validation":
        raise InputError("--min-precision: thresholds are chosen on validation and say nothing there; use --split test")
    known, rows = (ask_with_logprobs(run, name, variant) for name in ("validation", split))
    documents = read_split_folder(run.path / "data")
    confidences = score_items(rows)
    scored = match_answers(documents[split], parse_completions(rows))
    validation = collect_items(match_answers(documents["validation"], parse_completions(known)), score_items(known))
    section = score_confidence(validation, collect_items(scored, confidences), min_precision)
    calibrated = apply_calibration(confidences, calibrate(validation))
    kept = keep_confident(scored.predictions, calibrated, {task: one["threshold"] for task, one in section.items()})
    out = run.path / "eval" / split / variant_folder(run, variant) / f"min-precision-{min_precision:g}"
    write_predictions(kept, out / "predictions.jsonl")
    metrics = score_answers(match_others(scored, kept)) | {"confidence": section}
    write_json(out / "metrics.json", metrics)
    count = len(documents["validation"])
    head = f"thresholds from {count} validation articles for a precision of {min_precision:.0%}, applied to {split}:"
    lines = [head, "", *(describe_cut(task, one) for task, one in section.items())]
    return metrics, "\n".join([*lines, "", render_metrics(metrics, f"{split}, what is kept")]), 0


def describe_cut(task: str, section: dict) -> str:
    """One line: a task's threshold and what it changes, or that no threshold reaches the wanted precision."""
    if section["threshold"] is None:
        count, wanted = section["items"]["validation"], section["min_precision"]
        return f"{task:12} no threshold can promise {wanted:.0%} on {count} validation items: nothing is kept"
    every, kept = section["test"]["all"], section["test"]["kept"]
    return (
        f"{task:12} threshold {section['threshold']:.3f}: precision {every['precision']:.1%} -> {kept['precision']:.1%}, "
        f"recall {every['recall']:.1%} -> {kept['recall']:.1%}"
    )


def ask_with_logprobs(run: RunFolder, split: str, variant: Variant) -> list[dict]:
    """The variant's completions of a split, those that are missing asked now."""
    path = run.path / "eval" / split / variant_folder(run, variant) / "completions.jsonl"
    ask_variant(run, variant, read_split_folder(run.path / "data")[split], path)
    return read_completions(path)
