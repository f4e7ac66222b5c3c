"""`medner evaluate RUN`: a run's test articles answered again: grounded, by what was exported, by a server; the five cases;
or the answers that are there, cut to a wanted precision.

Each variant writes the same files as the run's own evaluation, in a folder of its own: eval/<split>/<variant>/.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data.files import read_jsonl, write_json
from data.items import share
from data.schema import Document, InputError
from data.split import read_split_folder
from data.text import normalise
from eval.chats import Engine
from eval.completions import write_completions
from eval.scoring.cases import CASES, check_cases, render_cases
from eval.scoring.confidence import apply_calibration, calibrate, collect_items, keep_confident, score_confidence, score_items
from eval.scoring.parse import parse_completions, write_predictions
from eval.scoring.score import match_answers, match_others, score_answers
from pipeline.evaluate_split import score_completions
from pipeline.run_folder import RunFolder, read_run, require_stage
from pipeline.summary import render_metrics

Outcome = tuple[dict, str, int]


def evaluate_again(options: argparse.Namespace) -> Outcome:
    run = read_run(options.run)
    require_stage(run, "train")
    if options.listed_sides and not options.grounded:
        raise InputError("--listed-sides: only with --grounded")
    if options.min_precision is not None:
        return cut_to_precision(run, options.split, options.min_precision)
    if options.cases:
        rows = ask_cases(run, options)
        return {"cases": rows}, render_cases(rows), int(not all(row["passed"] for row in rows))
    documents = read_split_folder(run.path / "data")[options.split]
    out = run.path / "eval" / options.split / variant_name(options)
    ask(run, options, documents, out / "completions.jsonl")
    score_completions(run, options.split, documents, out, title=f"{run.path.name}: {out.relative_to(run.path / 'eval')}")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    notes = [f"report: {out / 'report.html'}"]
    if options.listed_sides:
        ceiling = listed_ceiling(documents)
        notes.insert(0, f"relations between listed names only: with perfect lists, recall could reach {ceiling:.1%}")
    shown = (out / "report.md").read_text(encoding="utf-8") if options.markdown else render_metrics(metrics, str(out))
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


def variant_name(options: argparse.Namespace) -> str:
    """The variant's folder: "" for the run's own evaluation, "grounded", "llama.cpp-NAME", …"""
    model = re.sub(r"[^\w.-]+", "-", options.model.rstrip("/").rpartition("/")[2]) if options.model else ""
    engine = "" if options.engine == "transformers" and not model else options.engine
    ground = "grounded" if options.grounded else ""
    return "-".join(part for part in (engine, model, ground, "listed" if options.listed_sides else "") if part)


def ask(run: RunFolder, options: argparse.Namespace, documents: Sequence[Document], path: Path) -> None:
    budgets = run.settings.eval.max_new_tokens or run.manifest["max_new_tokens"]
    engine = open_engine_for(run, options)
    write_completions(engine, documents, path, layout=run.settings.train.layout, max_new_tokens=budgets)


def open_engine_for(run: RunFolder, options: argparse.Namespace) -> Engine:
    """The engine that was asked for: by default the run's adapter, loaded as training loads it."""
    from pipeline.model import load_model, load_tokenizer, prepare_engine

    if not options.model:
        prepare_engine(run.path / "unsloth_compiled_cache")  # before transformers, which these import
    from eval.engines.huggingface import transformers_engine
    from eval.engines.open import open_engine

    settings = run.settings
    ground = {"grounded": options.grounded or settings.eval.grounded}
    if options.listed_sides:
        ground["listed_sides"] = True
    if options.engine == "transformers" and not options.model:
        adapter = run.path / "adapter"
        model, tokenizer = load_model(settings, adapter=adapter), load_tokenizer(adapter)
        return transformers_engine(
            model, tokenizer, batch_tokens=settings.eval.batch_tokens, logprobs=settings.eval.logprobs, **ground
        )
    if options.engine == "transformers":
        return open_engine("transformers", options.model, batch_tokens=settings.eval.batch_tokens, **ground)
    context = settings.model.max_length + sum(run.manifest["max_new_tokens"].values())
    wanted = {"openai": {}, "llama.cpp": {"context": context}, "vllm": {"context": context}}[options.engine]
    return open_engine(options.engine, options.model or default_model(run, options.engine), **ground, **wanted)


def default_model(run: RunFolder, engine: str) -> str:
    """What the run itself has for an engine: its GGUF for llama.cpp, its adapter for vLLM."""
    if engine == "vllm":
        return str(run.path / "adapter")
    ggufs = sorted((run.path / "export").glob("*.gguf"))
    if engine != "llama.cpp" or not ggufs:
        raise InputError(f"--engine {engine}: say which with --model (a GGUF file, or a server's address)")
    return str(ggufs[0])


def ask_cases(run: RunFolder, options: argparse.Namespace) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completions.jsonl"
        ask(run, options, [case.document for case in CASES], path)
        answers = parse_completions(row for _, row in read_jsonl(path))
    return check_cases(lambda document, task: answers[document.id, task])


def cut_to_precision(run: RunFolder, split: str, min_precision: float) -> Outcome:
    """Thresholds chosen on validation for a wanted precision, and what they cost in recall on `split`."""
    if not 0 < min_precision < 1:
        raise InputError(f"--min-precision {min_precision}: must be between 0 and 1")
    known, known_rows, known_predictions = read_weighed(run, "validation")
    documents, rows, predictions = read_weighed(run, split)
    validation, confidences = collect_items(match_answers(known, known_predictions), score_items(known_rows)), score_items(rows)
    scored = match_answers(documents, predictions)
    section = score_confidence(validation, collect_items(scored, confidences), min_precision)
    calibrated = apply_calibration(confidences, calibrate(validation))
    kept = keep_confident(predictions, calibrated, {task: one["threshold"] for task, one in section.items()})
    out = run.path / "eval" / split / f"min-precision-{min_precision:g}"
    write_predictions(kept, out / "predictions.jsonl")
    metrics = score_answers(match_others(scored, kept)) | {"confidence": section}
    write_json(out / "metrics.json", metrics)
    head = f"thresholds from {len(known)} validation articles for a precision of {min_precision:.0%}, applied to {split}:"
    lines = [head, ""]
    lines += [describe_cut(task, one) for task, one in section.items()]
    return metrics, "\n".join([*lines, "", render_metrics(metrics, f"{split}, what is kept")]), 0


def describe_cut(task: str, section: dict) -> str:
    if section["threshold"] is None:
        return f"{task:12} no threshold reaches it on validation: nothing is kept"
    every, kept = section["test"]["all"], section["test"]["kept"]
    return (
        f"{task:12} threshold {section['threshold']:.3f}: precision {every['precision']:.1%} -> {kept['precision']:.1%}, "
        f"recall {every['recall']:.1%} -> {kept['recall']:.1%}"
    )


def read_weighed(run: RunFolder, split: str) -> tuple:
    """A split's documents, its completions and its predictions. Raises InputError where it was not evaluated with logprobs."""
    path = run.path / "eval" / split / "completions.jsonl"
    if not path.exists():
        raise InputError(f"{path}: missing; confidence needs both splits evaluated (eval.splits=validation,test)")
    rows = [row for _, row in read_jsonl(path)]
    return read_split_folder(run.path / "data")[split], rows, parse_completions(rows)
