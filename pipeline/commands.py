"""What each command does. A command returns its JSON object, its text for a terminal, and its exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Settings

Outcome = tuple[dict, str, int]


def alone(work: Callable[[argparse.Namespace], Outcome]) -> Callable[[argparse.Namespace], Outcome]:
    """`work` on `options.run`, with no other medner at work in that folder."""

    def do_alone(options: argparse.Namespace) -> Outcome:
        from pipeline.run_folder import lock_existing

        with lock_existing(options.run):
            return work(options)

    return do_alone


def run_command(options: argparse.Namespace) -> Outcome:
    """The whole job; with --push its result goes to the Hub, unless an export failed its check."""
    if options.push:  # hours before it is needed, a missing token costs nothing
        from pipeline.publish.hub import log_in
        from pipeline.publish.push import check_name

        settings = read_settings(options)
        log_in()
        if options.repo or settings.publish.repo:
            check_name(options.repo or settings.publish.repo, settings.model.name)
    result, text, code = do_job(options, until=None)
    if options.push and set(verdicts(result)) - {"passed"} and not options.force:
        hint = f"not pushed: an export did not pass its parity check; push it all the same: {push_anyway(options)}"
        return result, f"{text}\n{hint}", 1
    if not options.push:
        return result, text, code
    options.run = options.out
    pushed, address, code = alone(push_command)(options)
    return result | pushed, f"{text}\n{address}", code


def push_anyway(options: argparse.Namespace) -> str:
    """The command that pushes a run whose export failed its check."""
    return f"medner push {options.out} --force" + (f" --repo {options.repo}" if options.repo else "")


def train_command(options: argparse.Namespace) -> Outcome:
    """The job up to and with training."""
    return do_job(options, until="train")


def do_job(options: argparse.Namespace, until: str | None) -> Outcome:
    """The job up to and with the stage `until`. Exit code 1 where the whole job's exported file is shown to lose too much."""
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
    # An undecided file is said to be so, and push refuses it; it does not make the whole job one that failed.
    return summary, render_run(summary), int(until is None and "failed" in verdicts(summary))


def verdicts(summary: dict) -> list[str]:
    """Of the parity check, on each exported model."""
    exported = summary["stages"].get("export", {}).get("parity", {}).values()
    return [one.get("verdict", "passed" if one["passed"] else "failed") for one in exported]


def settings_command(options: argparse.Namespace) -> Outcome:
    """Every setting with type, default and meaning."""
    from pipeline.config import apply_settings, resolve_explicit
    from pipeline.describe_settings import render_settings, settings_to_json

    described = settings_to_json(apply_settings(resolve_explicit(options.preset, options.config, options.assignments)))
    return described, render_settings(described), 0


def audit_command(options: argparse.Namespace) -> Outcome:
    """A corpus' or a run's audit. Exit code 1 where a given split leaks."""
    from data.audit import audit_path, render_audit
    from pipeline.base_model import TINY_TOKENIZER

    own = options.path / "adapter" / "tokenizer.json"
    audit = audit_path(options.path, options.seed, options.tokenizer or (own if own.is_file() else TINY_TOKENIZER))
    return audit, render_audit(audit), int(audit["given_split"] and audit["leaks"]["leaking"])


def fetch_command(options: argparse.Namespace) -> Outcome:
    """BC5CDR from its address or a copy, checked, and written as PubTator, instruct rows and Parquet."""
    from data.fetch import fetch_bc5cdr, render_fetched

    facts = fetch_bc5cdr(options.out, options.source, options.sha256)
    return facts, render_fetched(facts), 0


def convert_command(options: argparse.Namespace) -> Outcome:
    """A corpus as instruct rows or PubTator. Raises InputError for a target that exists."""
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
    """A file of predictions against gold."""
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
    """Whether two runs, or a run and its baselines, differ by more than chance."""
    from data.split import read_split_folder
    from eval.scoring.compare import check_same_test, compare, render_comparison
    from eval.scoring.parse import read_predictions
    from pipeline.run_folder import read_run

    if options.run_b is None:
        from pipeline.compare_systems import compare_systems

        return *compare_systems(read_run(options.run_a), options.split), 0
    documents, predictions = [], []
    for path in (options.run_a, options.run_b):
        read_run(path)
        documents.append(read_split_folder(path / "data")[options.split])
        predictions.append(read_predictions(path / "eval" / options.split / "predictions.jsonl"))
    check_same_test(*documents)
    comparison = compare(documents[0], *predictions)
    return comparison, render_comparison(comparison, (options.run_a.name, options.run_b.name)), 0


def export_command(options: argparse.Namespace) -> Outcome:
    """A run's GGUF files or merged weights. Exit code 1 where one does not pass its check."""
    from pipeline.export.stage import export_run
    from pipeline.run_folder import read_run, require_stage
    from pipeline.summary import render_export

    run = read_run(options.run)
    require_stage(run, "evaluate")
    quants = options.gguf or ([] if options.gguf_lora else ["q8_0"])
    facts = export_run(run, quants, options.merged, options.gguf_lora)
    run.manifest["stages"]["export"] = run.manifest["stages"].get("export", {"seconds": 0}) | facts
    run.save()
    shown = f"{render_export(run.path, facts)}\neverything is in {run.path / 'export'}"
    return facts, shown, int(not facts["passed"])


def push_command(options: argparse.Namespace) -> Outcome:
    """A run's adapter and exports to the Hub."""
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
    """What this device or a named one would do, and whether the job fits."""
    from pipeline.plan.decide import plan_corpus
    from pipeline.plan.render import plan_to_json, render_plan
    from pipeline.run import named_files

    settings = read_settings(options)
    plan = plan_corpus(settings, named_files(settings), options.gpu)
    return plan_to_json(plan), render_plan(plan), 0


def read_settings(options: argparse.Namespace) -> Settings:
    """Settings as preset, file and assignments resolve to, with --data."""
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
    """Any model on a corpus of its own."""
    from pipeline.evaluate_model import Candidate, evaluate_model

    candidate = Candidate(options.model, options.engine, options.grounded, options.like, options.layout, options.max_new_tokens)
    return evaluate_model(candidate, options.data, train=options.train, out=options.out, markdown=options.markdown)


def evaluate_run_command(options: argparse.Namespace) -> Outcome:
    """A run's articles answered again by one of its variants."""
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
        raise InputError(f"--listed-sides: --engine {options.engine} cannot keep relations to listed names; use llama.cpp")
    given = {"--cases": options.cases, "--min-precision": options.min_precision is not None, "--markdown": options.markdown}
    both = [name for name, value in given.items() if value]
    if len(both) > 1:
        raise InputError(f"{both[0]} and {both[1]}: give one of them")
    if options.given_entities and (options.cases or options.min_precision is not None):
        raise InputError("--given-entities: not beside --cases or --min-precision; give one of them")
    if options.cases and options.split:
        raise InputError("--cases and --split: the five cases are of no split; give one of them")


def serve_command(options: argparse.Namespace) -> Outcome:
    """A web page to try models on, served until it is ended; or a Space's folder."""
    from pipeline.serve.command import require_gradio, serve_models

    require_gradio()
    if options.export_space:
        from pipeline.serve.space import export_space

        files = export_space(options.model, options.export_space)
        start = f"{options.export_space}: a Space; start it here by: python {options.export_space}/app.py"
        return {"folder": str(options.export_space), "files": files}, start, 0
    settings = {"grounded": not options.plain, "like": options.like}
    address = serve_models(
        options.model, options.beside, untuned=options.untuned, host=options.host, port=options.port, settings=settings
    )
    return {"served": address}, f"{address} is served no longer", 0


def parity_command(options: argparse.Namespace) -> Outcome:
    """Two models compared stage by stage: whether they answer alike, and where they part."""
    from pipeline.compare_models import Pair, compare_models

    pair = Pair(options.a, options.b, options.like, options.layout, options.max_new_tokens)
    return compare_models(pair, options.data, options.limit)


def extract_command(options: argparse.Namespace) -> Outcome:
    """Names and relations of new texts."""
    from data.schema import InputError
    from pipeline.extract.command import extract_sources
    from pipeline.extract.on_ray import Cluster

    if options.ray_workers and not options.ray:
        raise InputError("--ray-workers: only with --ray")
    return extract_sources(
        options.sources,
        options.model,
        pmids=options.pmid,
        lora=options.lora,
        out=options.out,
        kind=options.to,
        explain=options.explain,
        cluster=Cluster(options.ray, options.ray_workers) if options.ray else None,
        engine=options.engine,
        grounded=not options.plain,
        keep_unwritten=options.keep_unwritten,
        min_confidence=options.min_confidence,
        known_names=options.known_names,
        like=options.like,
        layout=options.layout,
        max_new_tokens=options.max_new_tokens,
        window=options.window,
        overlap=options.overlap,
    )
