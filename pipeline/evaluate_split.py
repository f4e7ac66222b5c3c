"""One split of a run, evaluated: completions -> predictions -> metrics.json, predictions.PubTator and report.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.files import write_json, write_text
from data.readers.pubtator import write_pubtator
from data.schema import TASKS, Document, InputError
from data.split import read_split_folder
from data.table import escape_markdown
from eval.official.biocreative import score_official
from eval.official.offsets import write_mentions
from eval.report.page import describe_provenance, render_markdown, write_report
from eval.scoring.confidence import apply_calibration, calibrate, collect_items, score_confidence
from eval.scoring.crf import score_crf
from eval.scoring.faults import Fault, find_faults
from eval.scoring.logprobs import Confidences, has_answers, read_completions, score_items
from eval.scoring.metrics import Reading, score_readings, score_split
from eval.scoring.parse import Predictions, parse_completions, write_predictions
from eval.scoring.relation_conventions import learn_ids, without_ids
from eval.scoring.score import Scored, match_answers
from pipeline.run_folder import RunFolder
from pipeline.variant import Variant, ask_variant, variant_folder


def evaluate_split(run: RunFolder, name: str, variant: Variant) -> Path:
    """Asks the variant for its answers to one split, and computes all that is computed of them. Returns their folder."""
    documents = read_split_folder(run.path / "data")[name]
    if variant.given_entities:
        documents = relations_alone(run, documents)
    out = run.path / "eval" / name / variant_folder(run, variant)
    ask_variant(run, variant, documents, out / "completions.jsonl")
    what = "/".join([name, *out.relative_to(run.path / "eval" / name).parts])
    title = f"{run.path.name}: {name}, untuned model" if variant.untuned else f"{run.path.name}: {what}"
    score_completions(
        run, name, documents, out, title, "lenient" if variant.untuned else "strict", given_entities=variant.given_entities
    )
    return out


def relations_alone(run: RunFolder, documents: Sequence[Document]) -> list[Document]:
    """The documents that have all three tasks, to be asked and scored for relations only. Raises InputError without any."""
    if run.settings.train.layout != "conversation":
        how = "first" if run.settings.train.layout == "relations-first" else "in a chat of their own"
        raise InputError(
            f"--given-entities: this model was taught relations {how}, where names cannot be given; "
            "train with train.layout=conversation"
        )
    whole = [replace(document, tasks=("relations",)) for document in documents if set(TASKS) <= set(document.tasks)]
    if not whole:
        raise InputError("--given-entities: no document has chemicals, diseases and relations")
    return whole


def read_f1(out: Path) -> dict[str, float]:
    """F1 by task of an evaluation's folder."""
    tasks = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    return {task: round(figures["f1"], 4) for task, figures in tasks.items()}


def score_completions(
    run: RunFolder,
    name: str,
    documents: Sequence[Document],
    out: Path,
    title: str,
    compared: Reading,
    *,
    given_entities: bool = False,
) -> None:
    """From completions.jsonl in `out` to everything that is computed of it. `compared`: as in `score_readings`.

    `given_entities`: baselines, which find the names themselves, are left out.
    """
    train = read_split_folder(run.path / "data")["train"]
    rows, scored = match_completions(documents, out)
    faults = find_faults(scored)
    metrics = score_split(train, scored, faults)
    if given_entities:
        metrics["baselines"] = {}
    else:
        metrics["baselines"] |= score_crf(train, scored, run.path / "eval" / "crf.crfsuite") | read_base_model(run, name, out)
    metrics["readings"] = score_readings(scored, rows, compared)
    metrics["official"] = score_officially(train, scored, out)
    confidences = None
    if all("logprobs" in row for row in rows) and name == "test":
        metrics["confidence"], confidences = calibrate_on_validation(run, scored, rows, out)
    asked = describe_provenance(out / "provenance.json") or [f"model {run.settings.model.name}"]
    notes = [*asked, f"data sha256 {run.manifest['data_sha256'][:12]}"]
    write_figures(out, scored, faults, metrics, title, notes, confidences)


def match_completions(documents: Sequence[Document], out: Path) -> tuple[list[dict], Scored]:
    """The rows of completions.jsonl in `out`, and its answers beside gold; writes them as predictions.jsonl."""
    rows = read_completions(out / "completions.jsonl")
    predictions = parse_completions(rows)
    write_predictions(predictions, out / "predictions.jsonl")
    return rows, match_answers(documents, predictions)


def write_figures(
    out: Path, scored: Scored, faults: Sequence[Fault], metrics: dict, title: str, notes: Sequence[str],
    confidences: Confidences | None = None,
) -> None:  # fmt: skip
    """metrics.json, report.md and report.html in `out`."""
    write_json(out / "metrics.json", metrics)
    report = {"scored": scored, "faults": faults, "metrics": metrics, "confidences": confidences}
    head = f"# {escape_markdown(title)}\n\n{escape_markdown('; '.join(notes))}"
    write_text(out / "report.md", f"{head}\n\n{render_markdown(metrics)}")
    write_report(out / "report.html", **report, title=title, notes=notes)


def write_names_as_offsets(
    train: Sequence[Document], documents: Sequence[Document], predictions: Predictions, path: Path
) -> dict:
    """Writes predictions.PubTator; returns {"written", "left_out", "reason"}: its relations, those it lacks, and why."""
    items = {document.id: {} for document in documents}
    for (document, task), answer in predictions.items():
        items[document][task] = answer.items
    ids = learn_ids(train)
    counts = write_mentions(documents, items, path, ids)
    reason = "a name of theirs has no concept id in train" if ids else "no name in train has a concept id, which PubTator needs"
    left_out = counts["relations_without_ids"]
    return {"written": counts["relations"], "left_out": left_out, "reason": reason if left_out else None}


def score_officially(train: Sequence[Document], scored: Scored, out: Path) -> dict:
    """Writes predictions.PubTator, and scores it as BioCreative does: strict mentions and relations by id, or why not.

    {"mention", "relation": None without gold's ids, "reason", "relations": as `write_names_as_offsets`}.
    """
    documents = scored.documents
    written = write_names_as_offsets(train, documents, scored.predictions, out / "predictions.PubTator")
    figures = score_against_gold(documents, out)
    return figures | {"relations": written}


def score_against_gold(documents: Sequence[Document], out: Path) -> dict:
    """{"mention", "relation", "reason"}: the official figures; None, with the reason, without offsets or ids."""
    if any(mention.start is None for document in documents for mention in document.mentions):
        return {"mention": None, "relation": None, "reason": "the corpus has no offsets; PubTator and BioC have"}
    lacking = without_ids(documents)
    kept = (replace(document, relations=()) for document in documents) if lacking else documents
    write_pubtator(kept, out / "gold.PubTator")
    figures = score_official(out / "gold.PubTator", out / "predictions.PubTator")
    return {"mention": figures["mention"], "relation": None if lacking else figures["relation"]["CID"], "reason": lacking}


def read_base_model(run: RunFolder, name: str, out: Path) -> dict:
    """The untuned model's figures on the same split in both readings, for whatever variant is scored but itself."""
    path = run.path / "eval" / name / "base" / "metrics.json"
    if out == path.parent or not path.exists():
        return {}
    readings = json.loads(path.read_text(encoding="utf-8"))["readings"]
    return {"base_model": readings["strict"]["tasks"], "base_model_lenient": readings["lenient"]["tasks"]}


def calibrate_on_validation(
    run: RunFolder, scored: Scored, rows: Sequence[dict], out: Path
) -> tuple[dict | None, Confidences | None]:
    """The confidence section, and each test item's chance of being right; None where validation was not evaluated likewise.

    `out`: the folder of the test answers; those of validation stand in the folder of the same variant.
    """
    path = run.path / "eval" / "validation" / out.relative_to(run.path / "eval" / "test") / "completions.jsonl"
    known = read_completions(path) if has_answers(path) else []
    if not known or not all("logprobs" in row for row in known):
        return None, None
    matched = match_answers(read_split_folder(run.path / "data")["validation"], parse_completions(known))
    validation, confidences = collect_items(matched, score_items(known)), score_items(rows)
    described = score_confidence(validation, collect_items(scored, confidences))
    return described, apply_calibration(confidences, calibrate(validation))
