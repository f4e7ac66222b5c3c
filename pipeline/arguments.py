"""What the command line takes: every command with its flags, and the function of `pipeline.commands` that does it."""

from __future__ import annotations

import argparse
import importlib.metadata
import typing
from collections.abc import Sequence
from pathlib import Path

from data.prompts import LAYOUTS
from pipeline import commands
from pipeline.export.names import Quant

ENGINES = ("transformers", "llama.cpp", "openai", "vllm")
EXTRACT_FORMATS = ("text", "jsonl", "csv", "parquet", "pubtator", "bioc-xml", "bioc-json", "brat", "label-studio", "spacy")

ABOUT = """Fine-tune a language model to list the chemicals, the diseases and the chemical-disease relations of a
biomedical abstract, and score it in a way that can be trusted.

  medner run --preset tiny --data data/sample.jsonl --out runs/demo    the whole job on a CPU, in minutes
  medner run --data corpus.jsonl --out runs/mine                      Llama 3.2 3B on this machine's GPU
  medner extract --model runs/demo "Lithium caused tremor."            what a tuned model finds in a new text
  medner data audit corpus.jsonl                                      what is in a corpus, and whether its split leaks"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's own function is `command`, its whole name `prog`. Exits with 2 where the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="medner", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('medner')}")
    add_commands(parser.add_subparsers(dest="name", required=True, metavar="COMMAND"))
    return parser.parse_args(arguments)


def add_commands(parsers: argparse._SubParsersAction) -> None:
    """Every command of `medner` with its arguments."""
    run = add(parsers, "run", commands.run_command, "the whole job: data, training, evaluation, export")
    train = add(parsers, "train", commands.train_command, "the job up to the adapter, without its evaluation")
    for parser in (run, train):
        add_job_arguments(parser)
        add_out_arguments(parser)
    add_push_arguments(run)
    run.add_argument("--push", action="store_true", help="publish to the Hub when all is done")
    add_data_commands(parsers)
    score = add(parsers, "score", commands.score_command, "score a file of predictions against gold")
    score.add_argument("gold", type=Path, help="a corpus file, or a run's data/test.jsonl")
    score.add_argument("predictions", type=Path, help="predictions.jsonl, instruct rows, PubTator, BioC or CSV")
    score.add_argument("--official", action="store_true", help="BioCreative V CDR mention, id and relation evaluation")
    score.add_argument("--allow-missing", action="store_true", help="score answers that the file lacks as empty")

    about = "whether two runs on one test set, or a run and its baselines, differ by more than chance"
    compare = add(parsers, "compare", commands.compare_command, about)
    compare.add_argument("run_a", type=Path)
    compare.add_argument("run_b", type=Path, nargs="?", help="left out: the first against its baselines, and its variants")
    compare.add_argument("--split", default="test", choices=("validation", "test"))
    about = "evaluate a run again: grounded, by what it exported; or any model, on --data"
    evaluate = add(parsers, "evaluate", commands.evaluate_command, about)
    add_evaluate_arguments(evaluate)
    about = "merge a run's adapter, write GGUF files, check that they answer alike"
    export = add(parsers, "export", commands.alone(commands.export_command), about)
    export.add_argument("run", type=Path)
    export.add_argument("--gguf", nargs="+", choices=typing.get_args(Quant), help="default: q8_0")
    export.add_argument("--gguf-lora", action="store_true", help="the adapter alone, to be laid over the base's GGUF file")
    export.add_argument("--merged", action="store_true", help="keep the merged 16-bit model")
    about = "whether two models answer alike, and if not, where they part: tokens, first answer token, answers, scores"
    parity = add(parsers, "parity", commands.parity_command, about)
    for name in ("a", "b"):
        parity.add_argument(name, help="a run, an adapter, a model's folder, a GGUF file, a Hub id, a server's address")
    parity.add_argument("--data", type=Path, required=True, help="a corpus to ask both about")
    parity.add_argument("--limit", type=int, help="ask about so many articles only")
    add_asked_arguments(parity)
    about = "publish a run to the Hub, or go on with a push that was cut off"
    push = add(parsers, "push", commands.alone(commands.push_command), about)
    push.add_argument("run", type=Path)
    add_push_arguments(push)
    plan = add(parsers, "plan", commands.plan_command, "what a device would be asked to do: precision, batch, memory")
    add_job_arguments(plan)
    extract = add(parsers, "extract", commands.extract_command, "list the chemicals, diseases and relations of new texts")
    add_extract_arguments(extract)
    serve = add(parsers, "serve", commands.serve_command, "a web page to try a model on, with an API; or a Space that shows it")
    add_serve_arguments(serve)
    settings = add(parsers, "settings", commands.settings_command, "every setting: its value, type, bounds and what it does")
    add_settings_arguments(settings)
    plan.add_argument("--gpu", help="t4, l4, a10, a100-40, a100-80, h100, h200 or cpu; default: the device at hand")


def add_data_commands(parsers: argparse._SubParsersAction) -> None:
    """audit, convert and fetch, under `medner data`."""
    about = "look at a corpus, or write it in another format"
    data = parsers.add_parser("data", help=about, description=about)  # its own commands take --json and --debug
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    found = "duplicates, conflicts, lengths, seen names, leaks; exit code 1 on a leak"
    audit = add(kinds, "audit", commands.audit_command, found)
    audit.add_argument("path", type=Path, help="a corpus file, a folder with train/validation/test.jsonl, or a run")
    audit.add_argument("--seed", type=int, default=42, help="of the split that a single file gets (default 42)")
    audit.add_argument("--tokenizer", type=Path, help="a tokenizer.json to count with (default: the run's, else tiny's)")
    convert = add(kinds, "convert", commands.convert_command, "write a corpus as instruct rows or PubTator")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument("--to", choices=("instruct", "pubtator"), required=True)
    about = "download BC5CDR, check it, and write it as PubTator, instruct rows and Parquet"
    fetch = add(kinds, "fetch", commands.fetch_command, about)
    fetch.add_argument("corpus", choices=("bc5cdr",))
    fetch.add_argument("--out", type=Path, default=Path("bc5cdr"), help="the folder to write to (default: bc5cdr)")
    fetch.add_argument("--from", dest="source", metavar="FILE|FOLDER|URL", help="a copy of CDR_Data.zip, or what it unpacks to")
    fetch.add_argument("--sha256", help="of another archive that you know to be right")


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to push to, and how."""
    parser.add_argument("--repo", help="USER/NAME (default: a new Llama-…-medical-ner-DATE of the account that is logged in)")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    parser.add_argument("--force", action="store_true", help="push in spite of a failed parity check or a used repository")


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """What to evaluate: a run's variant, or a model on a corpus."""
    parser.add_argument("run", type=Path, nargs="?", help="a run's folder; without one, --model and --data")
    parser.add_argument("--split", choices=("validation", "test"), help="default: test")
    parser.add_argument("--grounded", action="store_true", help="keep every item to the article's own words")
    parser.add_argument("--listed-sides", action="store_true", help="and relations to names just listed, at a price in recall")
    parser.add_argument("--given-entities", action="store_true", help="give gold's names, and ask and score relations only")
    parser.add_argument("--engine", choices=ENGINES, help="default: transformers, or what fits the --model that --data is for")
    parser.add_argument("--model", help="another model, a GGUF file or a server's address; default: the run's adapter")
    parser.add_argument("--data", type=Path, help="a corpus of its own, for a --model that was not trained here")
    parser.add_argument("--train", type=Path, help="with --data: what was learnt from, for dictionary, CRF, seen names, leaks")
    parser.add_argument("--out", type=Path, help="with --data: a folder for answers, figures and report; default: none is kept")
    add_asked_arguments(parser)
    parser.add_argument("--min-precision", type=float, help="choose the confidence threshold for this precision on validation")
    parser.add_argument("--markdown", action="store_true", help="print every figure of the report, as Markdown")
    parser.add_argument("--cases", action="store_true", help="five sentences with known answers, pass or fail")


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models the page shows, and where it is served."""
    parser.add_argument("--model", required=True, help="a run, an adapter, a model's folder, a GGUF file, a Hub id, an address")
    parser.add_argument("--beside", nargs="+", default=[], metavar="MODEL", help="others that read the same text beside it")
    parser.add_argument("--untuned", action="store_true", help="show its base model beside it, asked the same")
    parser.add_argument("--plain", action="store_true", help="answer freely, and drop repeats and what is not in the text")
    parser.add_argument("--like", help="a run, adapter or GGUF that says how the model was trained to be asked")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone; 0.0.0.0 lets others in")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--export-space", type=Path, metavar="DIR", help="write a Hugging Face Space with the model, and end")


def add_extract_arguments(parser: argparse.ArgumentParser) -> None:
    """Texts, the model, and what is written how."""
    files = "a text, files (txt, JSONL, CSV, TSV, Parquet, PubTator, BioC), folders, or - for standard input"
    parser.add_argument("sources", nargs="*", metavar="TEXT|FILE|FOLDER|-", help=files)
    pmids = "articles of PubMed by number, or a file of numbers; fetched from NCBI and kept ($NCBI_API_KEY: faster)"
    parser.add_argument("--pmid", nargs="+", action="extend", default=[], metavar="PMID|FILE", help=pmids)
    parser.add_argument("--model", required=True, help="a run, an adapter, a model's folder, a GGUF file, a Hub id, an address")
    parser.add_argument("--lora", help="an adapter's GGUF file, laid over the GGUF file of its base that --model names")
    parser.add_argument("--engine", choices=ENGINES, help="default: what fits the model")
    parser.add_argument("--out", type=Path, help="a file (for brat, a folder); without it, the results are printed")
    parser.add_argument("--to", choices=EXTRACT_FORMATS, help="the format of --out; default: by its ending")
    parser.add_argument("--plain", action="store_true", help="answer freely, and drop repeats and what is not in the text")
    parser.add_argument("--keep-unwritten", action="store_true", help="with --plain: keep names that are not in the text")
    parser.add_argument("--min-confidence", type=float, default=0.0, help="leave out what is less sure (0 to 1)")
    known = "a corpus or a run: add train's names that stand in a text and the model did not list, marked as such"
    parser.add_argument("--known-names", metavar="FILE|RUN", help=known)
    parser.add_argument("--explain", action="store_true", help="show where each name stands and what was left out")
    add_asked_arguments(parser)
    parser.add_argument("--window", type=int, default=3000, help="characters read at a time; longer texts are cut")
    parser.add_argument("--overlap", type=int, default=300, help="characters of the window before that are read again")
    ray = "by Ray Data, on a cluster's machines (HOST:PORT, or auto for the one that this machine is in); default: on this one"
    parser.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help=ray)
    parser.add_argument("--ray-workers", type=int, metavar="N", help="each with its model; default: one a GPU, or else a core")


def add_asked_arguments(parser: argparse.ArgumentParser) -> None:
    """How a model must be asked that does not say so itself."""
    parser.add_argument("--like", help="a run, adapter or GGUF that says how the model was trained to be asked")
    parser.add_argument("--layout", choices=LAYOUTS, help="or say it: a chat a task, or one a text")
    parser.add_argument("--max-new-tokens", type=int, help="of each answer; default: as the model was trained")


def add(parsers: argparse._SubParsersAction, name: str, work: object, about: str) -> argparse.ArgumentParser:
    """A command that takes --json and --debug; `work` is what it does."""
    parser = parsers.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=work, prog=parser.prog)  # errors name the whole command
    return parser


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Where settings come from."""
    parser.add_argument("--preset", help="tiny, llama-3.2-3b (default), llama-3.2-1b, t4")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    about = "any setting; `medner settings` prints them all"
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="SECTION.KEY=VALUE", dest="assignments", help=about
    )


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings and a corpus."""
    add_settings_arguments(parser)
    parser.add_argument("--data", help="a corpus to split: instruct JSONL, PubTator or BioC XML")


def add_out_arguments(parser: argparse.ArgumentParser) -> None:
    """The run folder, and whether to start over."""
    parser.add_argument("--out", type=Path, required=True, help="the run folder; one that is there already is gone on with")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--yes", action="store_true", help="begin even where it takes many hours without a GPU")
