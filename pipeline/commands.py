"""What each command takes and does. A command returns its JSON object, its text for a terminal, and its exit code."""

from __future__ import annotations

import argparse
import importlib.metadata
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.export.names import Quant

if TYPE_CHECKING:
    from pipeline.config import Settings

Outcome = tuple[dict, str, int]
ENGINES = ("transformers", "llama.cpp", "openai", "vllm")
EXTRACT_FORMATS = ("text", "jsonl", "csv", "parquet", "pubtator", "bioc-xml", "bioc-json", "brat", "label-studio", "spacy")

ABOUT = """Fine-tune a language model to list the chemicals, the diseases and the chemical-disease relations of a
biomedical abstract, and score it in a way that holds.

  medner run --preset tiny --data data/sample.jsonl --out runs/demo    the whole job on a CPU, in minutes
  medner run --data corpus.jsonl --out runs/mine                      Llama 3.2 3B on this machine's GPU
  medner extract --model runs/demo "Lithium caused tremor."            what a tuned model finds in a new text
  medner data audit corpus.jsonl                                      what is in a corpus, and whether its split leaks"""


def version() -> str:
    return importlib.metadata.version("medner")


def add_commands(commands: argparse._SubParsersAction) -> None:
    run = add(commands, "run", run_command, "the whole job: data, training, evaluation, export")
    train = add(commands, "train", train_command, "the job up to the adapter, without its evaluation")
    for parser in (run, train):
        add_job_arguments(parser)
        add_out_arguments(parser)
    add_push_arguments(run)
    run.add_argument("--push", action="store_true", help="publish to the Hub when all is done")
    about = "look at a corpus, or write it in another format"
    data = commands.add_parser("data", help=about, description=about)  # its own commands take --json and --debug
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    audit = add(kinds, "audit", audit_command, "duplicates, conflicts, lengths, seen names, leaks; exit code 1 on a leak")
    audit.add_argument("path", type=Path, help="a corpus file, a folder with train/validation/test.jsonl, or a run")
    audit.add_argument("--seed", type=int, default=42, help="of the split that a single file gets (default 42)")
    audit.add_argument("--tokenizer", type=Path, help="a tokenizer.json to count with (default: the run's, else tiny's)")
    convert = add(kinds, "convert", convert_command, "write a corpus as instruct rows or PubTator")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument("--to", choices=("instruct", "pubtator"), required=True)
    fetch = add(kinds, "fetch", fetch_command, "download BC5CDR, check it, and write it as PubTator, instruct rows and Parquet")
    fetch.add_argument("corpus", choices=("bc5cdr",))
    fetch.add_argument("--out", type=Path, default=Path("bc5cdr"), help="the folder to write to (default: bc5cdr)")
    fetch.add_argument("--from", dest="source", metavar="FILE|FOLDER|URL", help="a copy of CDR_Data.zip, or what it unpacks to")
    fetch.add_argument("--sha256", help="of another archive that you know to be right")
    score = add(commands, "score", score_command, "score a file of predictions against gold")
    score.add_argument("gold", type=Path, help="a corpus file, or a run's data/test.jsonl")
    score.add_argument("predictions", type=Path, help="predictions.jsonl, instruct rows, PubTator, BioC or CSV")
    score.add_argument("--official", action="store_true", help="BioCreative V CDR mention, id and relation evaluation")
    score.add_argument("--allow-missing", action="store_true", help="score answers that the file lacks as empty")

    compare = add(commands, "compare", compare_command, "whether two runs on one test set differ by more than chance")
    compare.add_argument("run_a", type=Path)
    compare.add_argument("run_b", type=Path)
    compare.add_argument("--split", default="test", choices=("validation", "test"))
    evaluate = add(
        commands, "evaluate", evaluate_command, "evaluate a run again: grounded, by what it exported; or any model, on --data"
    )
    add_evaluate_arguments(evaluate)
    export = add(
        commands, "export", alone(export_command), "merge a run's adapter, write GGUF files, check that they answer alike"
    )
    export.add_argument("run", type=Path)
    export.add_argument("--gguf", nargs="+", default=["q8_0"], choices=typing.get_args(Quant), help="default: q8_0")
    export.add_argument("--merged", action="store_true", help="keep the merged 16-bit model")
    push = add(commands, "push", alone(push_command), "publish a run to the Hub, or go on with a push that was cut off")
    push.add_argument("run", type=Path)
    add_push_arguments(push)
    plan = add(commands, "plan", plan_command, "what a GPU would be asked to do: precision, batch, memory and time")
    add_job_arguments(plan)
    extract = add(commands, "extract", extract_command, "list the chemicals, diseases and relations of new texts")
    add_extract_arguments(extract)
    settings = add(commands, "settings", settings_command, "every setting: its value, type, bounds and what it does")
    add_settings_arguments(settings)
    plan.add_argument("--gpu", help="t4, l4, a10, a100-40, a100-80, h100, h200 or cpu; default: the device at hand")


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", help="USER/NAME (default: a new Llama-…-medical-ner-DATE of the account that is logged in)")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    parser.add_argument("--force", action="store_true", help="push in spite of a failed parity check or a used repository")


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="?", help="a run's folder; without one, --model and --data")
    parser.add_argument("--split", choices=("validation", "test"), help="default: test")
    parser.add_argument("--grounded", action="store_true", help="hold every item to the article's own words")
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


def add_extract_arguments(parser: argparse.ArgumentParser) -> None:
    files = "a text, files (txt, JSONL, CSV, TSV, Parquet, PubTator, BioC), folders, or - for standard input"
    parser.add_argument("sources", nargs="+", metavar="TEXT|FILE|FOLDER|-", help=files)
    parser.add_argument("--model", required=True, help="a run, an adapter, a model's folder, a GGUF file, a Hub id, an address")
    parser.add_argument("--engine", choices=ENGINES, help="default: what fits the model")
    parser.add_argument("--out", type=Path, help="a file (for brat, a folder); without it, the results are printed")
    parser.add_argument("--to", choices=EXTRACT_FORMATS, help="the format of --out; default: by its ending")
    parser.add_argument("--plain", action="store_true", help="answer freely, and drop repeats and what is not in the text")
    parser.add_argument("--keep-unwritten", action="store_true", help="with --plain: keep names that are not in the text")
    parser.add_argument("--min-confidence", type=float, default=0.0, help="leave out what is less sure (0 to 1)")
    parser.add_argument("--explain", action="store_true", help="show where each name stands and what was left out")
    add_asked_arguments(parser)
    parser.add_argument("--window", type=int, default=3000, help="characters read at a time; longer texts are cut")
    parser.add_argument("--overlap", type=int, default=300, help="characters of the window before that are read again")


def add_asked_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--like", help="a run, adapter or GGUF that says how the model was trained to be asked")
    parser.add_argument("--layout", choices=("separate", "conversation"), help="or say it: a chat a task, or one a text")
    parser.add_argument("--max-new-tokens", type=int, help="of each answer; default: as the model was trained")


def add(commands: argparse._SubParsersAction, name: str, work: object, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=work, prog=parser.prog)  # errors name the whole command
    return parser


def alone(work: Callable[[argparse.Namespace], Outcome]) -> Callable[[argparse.Namespace], Outcome]:
    """`work` on `options.run`, with no other medner at work in that folder."""

    def do_alone(options: argparse.Namespace) -> Outcome:
        from pipeline.run_folder import lock_existing

        with lock_existing(options.run):
            return work(options)

    return do_alone


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="tiny, llama-3.2-3b (default), llama-3.2-1b, t4")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    about = "any setting; `medner settings` prints them all"
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="SECTION.KEY=VALUE", dest="assignments", help=about
    )


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument("--data", help="a corpus to split: instruct JSONL, PubTator or BioC XML")


def add_out_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the run folder; one that is there already is gone on with")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--yes", action="store_true", help="begin even where it takes many hours without a GPU")


def run_command(options: argparse.Namespace) -> Outcome:
    if options.push:  # hours before it is needed, a missing token costs nothing
        from pipeline.publish.hub import log_in
        from pipeline.publish.push import check_name

        settings = read_settings(options)
        log_in()
        if options.repo or settings.publish.repo:
            check_name(options.repo or settings.publish.repo, settings.model.name)
    result, text, code = do_job(options, until=None)
    if options.push and code and not options.force:
        hint = f"not pushed: an export failed its parity check; push it all the same: {push_anyway(options)}"
        return result, f"{text}\n{hint}", code
    if not options.push:
        return result, text, code
    options.run = options.out
    pushed, address, code = alone(push_command)(options)
    return result | pushed, f"{text}\n{address}", code


def push_anyway(options: argparse.Namespace) -> str:
    return f"medner push {options.out} --force" + (f" --repo {options.repo}" if options.repo else "")


def train_command(options: argparse.Namespace) -> Outcome:
    return do_job(options, until="train")


def do_job(options: argparse.Namespace, until: str | None) -> Outcome:
    from pipeline.config import resolve_explicit
    from pipeline.run import run_job
    from pipeline.summary import render_run, summarise

    explicit = resolve_explicit(options.preset, options.config, options.assignments)
    if options.data:
        explicit["data.file"] = options.data
    if getattr(options, "repo", None):
        explicit["publish.repo"] = options.repo  # checkpoints go there while training goes on
    run = run_job(options.out, explicit, fresh=options.fresh, until=until, confirmed=options.yes)
    summary = summarise(run)
    # A file that too few documents could judge is said to be so, and held back by push; it does not fail the whole job.
    exported = summary["stages"].get("export", {}).get("parity", {}).values()
    return summary, render_run(summary), int(any(one.get("lossy", not one["passed"]) for one in exported))


def settings_command(options: argparse.Namespace) -> Outcome:
    from pipeline.config import apply_settings, resolve_explicit
    from pipeline.describe_settings import render_settings, settings_to_json

    described = settings_to_json(apply_settings(resolve_explicit(options.preset, options.config, options.assignments)))
    return described, render_settings(described), 0


def audit_command(options: argparse.Namespace) -> Outcome:
    from data.audit import audit_path, render_audit
    from pipeline.base_model import TINY_TOKENIZER

    own = options.path / "adapter" / "tokenizer.json"
    audit = audit_path(options.path, options.seed, options.tokenizer or (own if own.is_file() else TINY_TOKENIZER))
    return audit, render_audit(audit), int(audit["given_split"] and audit["leaks"]["leaking"])


def fetch_command(options: argparse.Namespace) -> Outcome:
    from data.fetch import fetch_bc5cdr, render_fetched

    facts = fetch_bc5cdr(options.out, options.source, options.sha256)
    return facts, render_fetched(facts), 0


def convert_command(options: argparse.Namespace) -> Outcome:
    from data.corpus import read_corpus
    from data.files import write_text
    from data.readers.pubtator import render_document
    from data.readers.rows import render_rows
    from data.schema import InputError
    from eval.official.offsets import for_pubtator

    if options.target.exists():
        raise InputError(f"{options.target}: exists already; nothing was written")
    documents, lost = read_corpus(options.source).documents, {}
    if options.to == "pubtator":
        documents, lost = for_pubtator(documents)
    text = render_rows(documents) if options.to == "instruct" else "\n".join(map(render_document, documents))
    write_text(options.target, text)
    notes = [f"{count} {what} left out" for what, count in lost.items() if count]
    result = {"documents": len(documents), "file": str(options.target), "left_out": lost}
    return result, "; ".join([f"{options.target}: {len(documents)} documents", *notes]), 0


def score_command(options: argparse.Namespace) -> Outcome:
    if options.official and options.allow_missing:
        from data.schema import InputError

        raise InputError("--official and --allow-missing: the official program leaves out what is missing; give one of them")
    if options.official:
        from eval.official.biocreative import render_official, score_official

        figures = score_official(options.gold, options.predictions)
        return figures, render_official(figures), 0
    from pipeline.score_file import score_file

    return score_file(options.gold, options.predictions, options.allow_missing)


def compare_command(options: argparse.Namespace) -> Outcome:
    from data.split import read_split_folder
    from eval.scoring.compare import check_same_test, compare, render_comparison
    from eval.scoring.parse import read_predictions
    from pipeline.run_folder import read_run

    documents, predictions = [], []
    for path in (options.run_a, options.run_b):
        read_run(path)
        documents.append(read_split_folder(path / "data")[options.split])
        predictions.append(read_predictions(path / "eval" / options.split / "predictions.jsonl"))
    check_same_test(*documents)
    comparison = compare(documents[0], *predictions)
    return comparison, render_comparison(comparison, (options.run_a.name, options.run_b.name)), 0


def export_command(options: argparse.Namespace) -> Outcome:
    from pipeline.export.stage import export_run
    from pipeline.run_folder import read_run, require_stage
    from pipeline.summary import render_export

    run = read_run(options.run)
    require_stage(run, "evaluate")
    facts = export_run(run, options.gguf, options.merged)
    run.manifest["stages"]["export"] = run.manifest["stages"].get("export", {"seconds": 0}) | facts
    run.save()
    shown = f"{render_export(run.path, facts)}\neverything is in {run.path / 'export'}"
    return facts, shown, int(not facts["passed"])


def push_command(options: argparse.Namespace) -> Outcome:
    from pipeline.publish.push import push
    from pipeline.run_folder import read_run

    publish = read_run(options.run).settings.publish
    address = push(
        options.run,
        options.repo or publish.repo,
        artifacts=publish.artifacts or exported_artifacts(options.run),
        private=publish.private and not options.public,
        force=options.force,
    )
    return {"repository": address}, f"pushed to {address}", 0


def exported_artifacts(run: Path) -> list[str]:
    """The adapter, and what the run exported."""
    artifacts = {"merged": (run / "export" / "merged").exists(), "gguf": any((run / "export").glob("*.gguf"))}
    return ["adapter", *(name for name, there in artifacts.items() if there)]


def plan_command(options: argparse.Namespace) -> Outcome:
    from pipeline.plan.from_corpus import plan_corpus
    from pipeline.plan.render import plan_to_json, render_plan
    from pipeline.run import named_files

    settings = read_settings(options)
    plan = plan_corpus(settings, named_files(settings), options.gpu)
    return plan_to_json(plan), render_plan(plan), 0


def read_settings(options: argparse.Namespace) -> Settings:
    from pipeline.config import apply_settings, resolve_explicit

    explicit = resolve_explicit(options.preset, options.config, options.assignments)
    return apply_settings(explicit | ({"data.file": options.data} if options.data else {}))


def evaluate_command(options: argparse.Namespace) -> Outcome:
    """A run evaluated again, or any model on a corpus of its own."""
    from data.schema import InputError

    of_a_run = {"--split": options.split, "--cases": options.cases, "--min-precision": options.min_precision is not None,
                "--listed-sides": options.listed_sides, "--given-entities": options.given_entities}  # fmt: skip
    of_a_corpus = {"--train": options.train, "--out": options.out, "--like": options.like, "--layout": options.layout,
                   "--max-new-tokens": options.max_new_tokens}  # fmt: skip
    wrong = next((name for name, value in (of_a_run if options.data else of_a_corpus).items() if value), None)
    if wrong:
        raise InputError(f"{wrong}: only {'for a run' if options.data else 'with --data'}")
    if options.data and (options.run or not options.model):
        raise InputError("--data: the corpus of a --model that was not trained here; give --model, and no run")
    if not options.data and not options.run:
        raise InputError("give a run's folder, or --model and --data FILE")
    return evaluate_corpus_command(options) if options.data else alone(evaluate_run_command)(options)


def evaluate_corpus_command(options: argparse.Namespace) -> Outcome:
    from pipeline.evaluate_model import Candidate, evaluate_model

    candidate = Candidate(
        options.model, options.engine, options.grounded, options.like, options.layout, options.max_new_tokens
    )
    return evaluate_model(candidate, options.data, train=options.train, out=options.out, markdown=options.markdown)


def evaluate_run_command(options: argparse.Namespace) -> Outcome:
    from pipeline.evaluate_variant import cut_to_precision, evaluate_cases, evaluate_variant
    from pipeline.run_folder import read_run, require_stage
    from pipeline.variant import Variant

    run = read_run(options.run)
    require_stage(run, "train")
    own = options.engine in (None, "transformers") and options.model is None
    variant = Variant(
        engine=options.engine or "transformers",
        model=options.model,
        grounded=options.grounded or run.settings.eval.grounded,
        listed_sides=options.listed_sides,
        given_entities=options.given_entities,
        logprobs=options.min_precision is not None or own and run.settings.eval.logprobs,
    )
    refuse_together(options, variant.grounded)
    if options.cases:
        return evaluate_cases(run, variant)
    split = options.split or "test"
    if options.min_precision is not None:
        return cut_to_precision(run, split, variant, options.min_precision)
    return evaluate_variant(run, split, variant, markdown=options.markdown)


def refuse_together(options: argparse.Namespace, grounded: bool) -> None:
    """Raises InputError for flags of which one would do nothing beside the other."""
    from data.schema import InputError

    if options.listed_sides and not grounded:
        raise InputError("--listed-sides: only with --grounded")
    if options.listed_sides and options.engine in ("openai", "vllm"):
        raise InputError(f"--listed-sides: --engine {options.engine} cannot hold relations to listed names; use llama.cpp")
    given = {"--cases": options.cases, "--min-precision": options.min_precision is not None, "--markdown": options.markdown}
    both = [name for name, value in given.items() if value]
    if len(both) > 1:
        raise InputError(f"{both[0]} and {both[1]}: give one of them")
    if options.given_entities and (options.cases or options.min_precision is not None):
        raise InputError("--given-entities: not beside --cases or --min-precision; give one of them")
    if options.cases and options.split:
        raise InputError("--cases and --split: the five cases are of no split; give one of them")


def extract_command(options: argparse.Namespace) -> Outcome:
    from pipeline.extract.command import extract_sources

    return extract_sources(
        options.sources,
        options.model,
        out=options.out,
        kind=options.to,
        explain=options.explain,
        engine=options.engine,
        grounded=not options.plain,
        keep_unwritten=options.keep_unwritten,
        min_confidence=options.min_confidence,
        like=options.like,
        layout=options.layout,
        max_new_tokens=options.max_new_tokens,
        window=options.window,
        overlap=options.overlap,
    )
