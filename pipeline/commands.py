"""What each command takes and does. A command returns its JSON object, its text for a terminal, and its exit code."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

Outcome = tuple[dict, str, int]

ABOUT = """Fine-tune a language model to list the chemicals, the diseases and the chemical-disease relations of a
biomedical abstract, and score it in a way that holds.

  medner run --preset tiny --data data/sample.jsonl --out runs/demo    the whole job on a CPU, in minutes
  medner run --data corpus.jsonl --out runs/mine                      Llama 3.2 3B on this machine's GPU
  medner data audit corpus.jsonl                                      what is in a corpus, and whether its split leaks"""


def version() -> str:
    return importlib.metadata.version("medner")


def add_commands(commands: argparse._SubParsersAction) -> None:
    run = add(commands, "run", run_command, "the whole job: data, training, evaluation, export")
    train = add(commands, "train", train_command, "the job up to the adapter, without its evaluation")
    for parser in (run, train):
        add_job_arguments(parser)
    data = add(commands, "data", None, "look at a corpus, or write it in another format")
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    audit = add(kinds, "audit", audit_command, "duplicates, conflicts, lengths, seen names, leaks; exit code 1 on a leak")
    audit.add_argument("path", type=Path, help="a corpus file, a folder with train/validation/test.jsonl, or a run")
    audit.add_argument("--seed", type=int, default=42, help="of the split that a single file gets (default 42)")
    audit.add_argument("--tokenizer", type=Path, help="a tokenizer.json to count tokens with (default: the embedded model's)")
    convert = add(kinds, "convert", convert_command, "write a corpus as instruct rows or PubTator")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument("--to", choices=("instruct", "pubtator"), required=True)
    score = add(commands, "score", score_command, "score a file of predictions against gold")
    score.add_argument("gold", type=Path, help="a corpus file, or a run's data/test.jsonl")
    score.add_argument("predictions", type=Path, help="predictions.jsonl, instruct rows, PubTator, BioC or CSV")
    score.add_argument("--official", action="store_true", help="BioCreative V CDR mention, id and relation evaluation")


def add(commands: argparse._SubParsersAction, name: str, work: object, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=work)
    return parser


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="tiny, llama-3.2-3b (default), llama-3.2-1b, t4")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="SECTION.KEY=VALUE", dest="assignments")
    parser.add_argument("--data", help="a corpus to split: instruct JSONL, PubTator or BioC XML")
    parser.add_argument("--out", type=Path, required=True, help="the run folder; one that is there already is gone on with")
    parser.add_argument("--fresh", action="store_true", help="start over")


def run_command(options: argparse.Namespace) -> Outcome:
    return do_job(options, until=None)


def train_command(options: argparse.Namespace) -> Outcome:
    return do_job(options, until="train")


def do_job(options: argparse.Namespace, until: str | None) -> Outcome:
    from pipeline.config import resolve_explicit
    from pipeline.run import run_job
    from pipeline.summary import render_run, summarise

    explicit = resolve_explicit(options.preset, options.config, options.assignments)
    if options.data:
        explicit["data.file"] = options.data
    run = run_job(options.out, explicit, fresh=options.fresh, until=until)
    summary = summarise(run)
    return summary, render_run(summary), 0


def audit_command(options: argparse.Namespace) -> Outcome:
    from data.audit import TINY_TOKENIZER, audit_path, render_audit

    audit = audit_path(options.path, options.seed, options.tokenizer or TINY_TOKENIZER)
    return audit, render_audit(audit), int(audit["given_split"] and audit["leaks"]["leaking"])


def convert_command(options: argparse.Namespace) -> Outcome:
    from data.corpus import read_corpus
    from data.files import write_text
    from data.pubtator import render_document
    from data.rows import render_rows
    from data.schema import InputError

    if options.target.exists():
        raise InputError(f"{options.target}: exists already; nothing was written")
    documents = read_corpus(options.source).documents
    text = render_rows(documents) if options.to == "instruct" else "\n".join(map(render_document, documents))
    write_text(options.target, text)
    return {"documents": len(documents), "file": str(options.target)}, f"{options.target}: {len(documents)} documents", 0


def score_command(options: argparse.Namespace) -> Outcome:
    if options.official:
        from eval.official import render_official, score_official

        figures = score_official(options.gold, options.predictions)
        return figures, render_official(figures), 0
    from data.corpus import read_corpus
    from eval.foreign import read_predictions
    from eval.parse import Answer
    from eval.score import score_predictions
    from pipeline.summary import render_metrics

    documents = read_corpus(options.gold).documents
    given = read_predictions(options.predictions, documents)
    predictions = {}
    for document in documents:
        for task in document.tasks:
            items = tuple(given.get(document.id, {}).get(task, ()))
            predictions[document.id, task] = Answer(items, "ok" if items else "empty")
    metrics = score_predictions(documents, predictions)
    return metrics, render_metrics(metrics), 0
