"""The job, top to bottom: data, plan, the untuned model's score, training, evaluation, export, model card.

Each stage writes its files into the run folder and is recorded there; the same command goes on after the last one recorded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.audit import audit_corpora, audit_split, count_tokens
from data.corpus import read_corpus
from data.files import write_json, write_jsonl, write_text
from data.readers.rows import document_rows
from data.schema import SPLITS, Document, InputError, document_to_json
from data.split import read_split_folder, split_documents
from pipeline.config import Explicit, Settings, apply_settings, write_settings
from pipeline.evaluate_split import evaluate_split, read_f1
from pipeline.lock import lock_run
from pipeline.run_folder import RunFolder, hash_adapter, open_run, read_run, refuse_foreign, require_adapter
from pipeline.variant import require_budgets, run_variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINTS = 4  # on the disk at once, with the adapter itself: the last two, the best, and the one being written
ASKED_ABOVE = 4 * 3600  # seconds of training without a GPU that nobody begins by accident
SAMPLE = Path(__file__).parent.parent / "data" / "sample.jsonl"


def run_job(
    path: Path, explicit: Explicit, *, fresh: bool = False, until: str | None = None, confirmed: bool = True
) -> RunFolder:
    """Do whatever of the job is not done yet, up to and with the stage `until`.

    Unless `confirmed`, a job of many hours on a machine without a GPU is asked about first.
    """
    from pipeline.model import model_path

    settings = apply_settings(explicit)
    model_path(settings.model.name)  # before --fresh deletes a run for one that cannot be
    files = data_files(settings, path)
    refuse_foreign(path)
    with lock_run(path):
        run = open_run(path, explicit, files, fresh)
        for name, work in STAGES.items():
            if name == "evaluate_base" and until == "train":
                continue  # `run` does it later: whoever only trains, by several processes say, need not wait for it
            if not run.done(name):
                do_stage(run, name, work)
            if name == "plan" and not run.done("train"):
                announce_hours(run, confirmed)
            if name == until:
                break
    return run


def do_stage(run: RunFolder, name: str, work: Callable[[RunFolder], dict | None]) -> None:
    """Raises KeyboardInterrupt, saying what is kept, where the user ends it."""
    from pipeline.model import prepare_engine

    try:
        if name != "data":
            prepare_engine(run.path / "unsloth_compiled_cache")  # Unsloth patches transformers, so it comes before it
        require_adapter(run)
        run.stage(name, lambda: work(run))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(describe_interruption(run, name, str(stop))) from None
    print(f"{name}: done in {run.manifest['stages'][name]['seconds']:.1f} s", file=sys.stderr)


def announce_hours(run: RunFolder, confirmed: bool) -> None:
    """Ask before a job that may take hours without a GPU. Raises InputError where nobody agrees."""
    parts = run.manifest["stages"]["plan"].get("estimate", {}).get("seconds") or {}
    seconds = sum(most for _, most in parts.values())
    if run.manifest.get("device") != "cpu" or confirmed or seconds <= ASKED_ABOVE:
        return
    from pipeline.plan.render import render_time

    if sys.stdin.isatty() and sys.stderr.isatty():
        question = f"without a GPU this may take {render_time(seconds)}; go on all the same? [y/N] "
        print(question, end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise InputError(
        f"without a GPU this may take {render_time(seconds)}; give --yes to begin all the same, "
        "or use a GPU, a smaller model.name or --preset tiny"
    )


def describe_interruption(run: RunFolder, name: str, how: str) -> str:
    """Where the run was, what is kept of it, and how to go on."""
    kept = [f"stages {', '.join(run.manifest['stages'])}"] if run.manifest["stages"] else []
    checkpoints = sorted(run.path.glob("checkpoints/checkpoint-*"), key=lambda path: path.stat().st_mtime)
    if name == "train" and checkpoints:
        kept.append(f"training up to step {checkpoints[-1].name.partition('-')[2]}")
    if name.startswith("evaluate"):
        files = run.path.glob("eval/test/base/completions.jsonl" if name == "evaluate_base" else "eval/*/completions.jsonl")
        kept += [f"{count_lines(file)} answers in {file.relative_to(run.path)}" for file in sorted(files)]
    what = "; ".join(kept) if kept else "nothing yet"
    return f"interrupted in stage {name}{how and f' {how}'}; kept: {what}. The same command goes on from there"


def count_lines(file: Path) -> int:
    """Line breaks in a file; a last line that is not finished does not count."""
    return file.read_bytes().count(b"\n")


def data_files(settings: Settings, path: Path) -> dict[str, Path]:
    """The corpus files of a job in the run folder `path`. Raises InputError where they are not to be had."""
    files = named_files(settings)
    if not files and (path / "manifest.json").exists():
        files = existing_files(read_run(path).manifest["data"])
    if not files:
        raise InputError(f"no data: give --data FILE (the invented sample is {SAMPLE.name} in data/), or a split of your own")
    return files


def named_files(settings: Settings) -> dict[str, Path]:
    """The corpus files that the settings name: one to be split ("file"), one a split, or none."""
    data = settings.data
    given = {name: getattr(data, name) for name in SPLITS if getattr(data, name)}
    if given and (data.file or len(given) < len(SPLITS)):
        raise InputError("a given split needs data.train, data.validation and data.test, and no --data")
    return existing_files(given or ({"file": data.file} if data.file else {}))


def existing_files(named: Mapping[str, str]) -> dict[str, Path]:
    """The files as paths. Raises InputError for one that is missing or a folder."""
    files = {name: Path(file) for name, file in named.items()}
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file}: {'is a directory, expected a file' if file.is_dir() else 'no such file'}")
    return files


def prepare_data(run: RunFolder) -> dict:
    """Corpus file -> data/: the split as rows and documents, and the audit."""
    corpora = {name: read_corpus(file) for name, file in run.manifest["data"].items()}
    seed = run.settings.data.seed
    if "file" in corpora:
        corpus = corpora["file"]
        split = split_documents(corpus.documents, seed)
        audit = audit_split(split, rows=corpus.rows, given=False, seed=seed)
    else:
        split = {name: list(corpora[name].documents) for name in SPLITS}
        audit = audit_corpora(corpora, seed)
    for name, documents in split.items():
        if not documents:
            count = audit["documents"]
            raise InputError(f"{name} would be empty: {count} articles are too few to split 80/10/10; give at least 10")
        write_jsonl(run.path / "data" / f"{name}.jsonl", document_rows(documents))
    rows = ({"split": name} | document_to_json(document) for name in SPLITS for document in split[name])
    write_jsonl(run.path / "data" / "documents.jsonl", rows)
    write_json(run.path / "data" / "audit.json", audit)
    if audit["leaks"]["leaking"]:
        articles = audit["leaks"]["articles"]
        print(f"WARNING: the given split leaks: {articles} articles stand in two splits; see data/audit.json", file=sys.stderr)
    return {name: len(documents) for name, documents in split.items()}


def plan_run(run: RunFolder) -> dict:
    """Settle what was left to the device and the data: precision, batch, lengths, answer budgets. Nothing is loaded yet."""
    from pipeline.export.whole_files import require_space
    from pipeline.model import load_tokenizer, model_path
    from pipeline.plan.architectures import find_architecture
    from pipeline.plan.decide import make_plan
    from pipeline.plan.hardware import detect_device
    from pipeline.plan.lengths import count_lengths
    from pipeline.plan.render import render_time, total_seconds
    from pipeline.training.train import check_training

    settings, split = run.settings, read_split_folder(run.path / "data")
    architecture = find_architecture(settings.model.name, settings.model.revision)
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    lengths = count_lengths(tokenizer, split, settings)
    require_budgets(lengths.budgets, [*split["validation"], *split["test"]])
    add_token_counts(run, split, tokenizer)
    plan = make_plan(settings, architecture, detect_device(), lengths)
    require_space(run.path, CHECKPOINTS * plan.memory["adapter"], "Training, with its checkpoints,")
    check_training(plan.settings, len(lengths.train.whole), bool(lengths.validation.whole), run.path)
    run.settings = plan.settings
    write_settings(run.settings, run.path / "config.yaml")
    run.record(device=plan.hardware.name, engine=plan.hardware.engine, max_new_tokens=lengths.budgets)
    for warning in plan.warnings:
        print(f"plan: warning: {warning}", file=sys.stderr)
    if plan.seconds:
        least, most = map(render_time, total_seconds(plan))
        print(f"plan: {least} to {most} on {plan.hardware.name}, counted, not measured", file=sys.stderr)
    estimate = {"training_bytes": plan.memory["training"], "seconds": plan.seconds}
    return {"estimate": estimate, "processes": plan.hardware.count}


def add_token_counts(run: RunFolder, split: Mapping[str, Sequence[Document]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Into the audit, counted by the tokenizer that the run trains with."""
    from tokenizers import Tokenizer

    path, copy = run.path / "data" / "audit.json", Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    documents = [document for name in SPLITS for document in split[name]]
    audit = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, audit | {"tokens": count_tokens(documents, copy, run.settings.model.name)})


def evaluate_base(run: RunFolder) -> dict:
    """The untuned model's score on test, for the adapter's to be compared with."""
    if not run.settings.eval.base_model:
        return {"skipped": "eval.base_model=false"}
    return {"test": read_f1(evaluate_split(run, "test", run_variant(run.settings, untuned=True)))}


def train_run(run: RunFolder) -> dict:
    """Train the adapter on the train split, validate on the other, and write adapter/ with how it must be asked."""
    from pipeline.model import load_model, load_tokenizer, model_path, write_medner_json
    from pipeline.training.loss_mask import encode_split
    from pipeline.training.tracking import start_tracking, stop_tracking
    from pipeline.training.train import train_adapter
    from pipeline.training.validation_f1 import choose_articles, f1_score

    split, settings = read_split_folder(run.path / "data"), run.settings
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    train, validation, owners = encode_split(tokenizer, split, settings.train)
    budgets = run.manifest["max_new_tokens"]
    articles = choose_articles(split["validation"], settings)
    score = f1_score(settings, tokenizer, articles, budgets) if articles else None
    tracked, callbacks = start_tracking(run), []
    if settings.publish.checkpoints:
        from pipeline.training.checkpoint_uploads import CheckpointUploads

        callbacks.append(CheckpointUploads(run))
    model = load_model(settings, trainable=True)
    facts = train_adapter(settings, model, tokenizer, train, validation, run.path, callbacks, owners, score)
    if tracked:
        stop_tracking()
    write_medner_json(run.path / "adapter", settings, budgets)
    negatives = len(set(owners)) - len(split["train"])
    return facts | {"negatives": negatives, "adapter_sha256": hash_adapter(run.path / "adapter")}


def evaluate_run(run: RunFolder) -> dict:
    """The adapter's scores and report, on each split that the settings name; validation first, which calibrates test."""
    splits, variant = sorted(run.settings.eval.splits, reverse=True), run_variant(run.settings)
    scores = {name: read_f1(evaluate_split(run, name, variant)) for name in splits}
    if ("wandb" in run.manifest or run.settings.train.report_to == "trackio") and "test" in scores:
        from pipeline.training.tracking import log_evaluation, start_tracking

        start_tracking(run)
        log_evaluation(run, json.loads((run.path / "eval" / "test" / "metrics.json").read_text(encoding="utf-8")))
    return scores


def export_stage(run: RunFolder) -> dict:
    """Adapter -> export/: merged weights, GGUF files, Modelfile and parity.json."""
    export = run.settings.export
    if not (export.gguf or export.merge):
        return {"skipped": "export.gguf and export.merge are not set"}
    from pipeline.export.stage import export_run

    return export_run(run, export.gguf, export.merge)


def card_stage(run: RunFolder) -> None:
    """README.md, the model card."""
    from pipeline.publish.card import write_card

    write_text(run.path / "README.md", write_card(run.path))


STAGES: Mapping = {
    "data": prepare_data,
    "plan": plan_run,
    "evaluate_base": evaluate_base,
    "train": train_run,
    "evaluate": evaluate_run,
    "export": export_stage,
    "card": card_stage,
}
