"""What a run on real articles reached, beside its baselines:  python -m bench.real RUN --cores N

After `make real DATA=FILE` or `make real-corpus`: reads the run, prints the table of `medner compare RUN`, and writes
bench/results/real-cpu.json, or FILE (--out): figures, intervals, paired tests, what each exported file kept, seconds of
training, machine and versions. Where test has offsets and concept ids, each system is scored as BioCreative V CDR does too,
beside the ceiling of names turned into ids by train. No text is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.processor import processor_name
from data.files import write_json
from data.readers.pubtator import write_pubtator
from data.schema import TASKS, Document
from data.split import read_split_folder
from data.table import Table, as_text, join_blocks, percent
from eval.official.biocreative import EVALUATIONS, score_official
from eval.scoring.parse import Answer, Predictions
from eval.scoring.relation_conventions import without_ids
from pipeline.compare_systems import ahead_in, describe_systems, match_systems, systems_table
from pipeline.evaluate_split import write_names_as_offsets
from pipeline.run_folder import RunFolder, read_run

RESULTS = Path(__file__).parent / "results" / "real-cpu.json"
CEILING = "names of gold"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cores", type=int, required=True, help="cores that the run had for itself")
    parser.add_argument("--minutes", type=float, help="that the whole command took, where it was timed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    run = read_run(options.run)
    scored, split = match_systems(run, "test"), read_split_folder(run.path / "data")
    comparison = describe_systems(scored)
    systems = {name: own.predictions for name, own in scored.items()}
    official = score_systems_officially(split["train"], split["test"], systems)
    timed = {"minutes": options.minutes} if options.minutes else {}
    write_json(options.out, describe_run(run, comparison, options.cores) | timed | {"official": official})
    print(join_blocks([as_text(systems_table(comparison, "test")), *([as_text(official_table(official))] if official else [])]))
    print(f"wrote {options.out}", file=sys.stderr)


def describe_run(run: RunFolder, comparison: dict, cores: int) -> dict:
    settings, training = run.settings, run.manifest["stages"]["train"]
    return {
        "device": run.manifest["device"],
        "processor": processor_name(),
        "cores": cores,
        "versions": run.manifest["versions"],
        "model": settings.model.name,
        "settings": {"layout": settings.train.layout, "lora_r": settings.lora.r, "lora_alpha": settings.lora.lora_alpha,
                     "learning_rate": settings.train.learning_rate, "dtype": settings.model.dtype,
                     "epochs": settings.train.num_train_epochs, "batch": settings.train.effective_batch_size,
                     "grounded": settings.eval.grounded},
        "data_sha256": run.manifest["data_sha256"],
        "articles": {name: run.manifest["stages"]["data"][name] for name in ("train", "validation", "test")},
        # over all interruptions, which a stage's own seconds are not
        "training": {key: training[key] for key in ("training_seconds", "steps", "train_loss", "validation_loss", "best_step")},
        # of a stage that was interrupted, the last call's only
        "stage_seconds": {name: stage["seconds"] for name, stage in run.manifest["stages"].items() if "seconds" in stage},
        "losses": training["losses"],
        "systems": {slug(name): describe_system(one, comparison["level"]) for name, one in comparison["systems"].items()},
        "parity": read_parity(run),
        "conventions": read_conventions(run),
    }  # fmt: skip


def describe_system(system: dict, level: float) -> dict:
    """F1 and its interval by task, the share of repeated items and truncated answers, and each baseline's difference."""
    figures = {task: {key: system["tasks"][task][key] for key in ("f1", "precision", "recall", "ci95")} for task in TASKS}
    against = system.get("against", {})
    differences = {
        slug(name): {task: {key: rows[task][key] for key in ("difference", "ci95", "p_corrected")} for task in TASKS}
        for name, rows in against.items()
    }
    ahead = {slug(name): ahead_in(rows, level) for name, rows in against.items()}
    return {**figures, "micro": system["micro"]["f1"], "rates": system["rates"], "against": differences, "ahead": ahead}


def score_systems_officially(
    train: Sequence[Document], documents: Sequence[Document], systems: Mapping[str, Predictions]
) -> dict[str, dict]:
    """By system and "mention", "id", "relation", the official figures; {} where gold has no offsets or lacks ids.

    Gold's own names are a system too: what names reach once each stands wherever it is written and has the ids it has in train.
    """
    if without_ids(documents) or any(mention.start is None for document in documents for mention in document.mentions):
        return {}
    gold = {(one.id, task): Answer(tuple(one.gold(task)), "ok") for one in documents for task in one.tasks}
    with TemporaryDirectory() as folder:
        truth, told = Path(folder) / "gold.PubTator", Path(folder) / "told.PubTator"
        write_pubtator(documents, truth)
        scored = {}
        for name, predictions in {**systems, CEILING: gold}.items():
            write_names_as_offsets(train, documents, predictions, told)
            figures = score_official(truth, told)
            scored[slug(name)] = {evaluation: figures[evaluation] for evaluation in EVALUATIONS}
    return scored


def official_table(official: Mapping[str, dict]) -> Table:
    columns = [(evaluation, of) for evaluation, named in EVALUATIONS.items() for of in named if of != "both"]
    rows = tuple((name, *(percent(own[evaluation][of]["f1"]) for evaluation, of in columns)) for name, own in official.items())
    return Table(("system", *(f"{evaluation} {of}" for evaluation, of in columns)), rows, "BioCreative V CDR, official: F1")


def read_parity(run: RunFolder) -> dict:
    """What the check of each exported file said, without its answers; empty where nothing was exported."""
    path = run.path / "export" / "parity.json"
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}
    return {slug(name.rpartition(".gguf")[0].rpartition(".")[2] or name): one for name, one in models.items()}


def read_conventions(run: RunFolder) -> dict:
    """The adapter's relations under each convention that gold allows, with the ceiling where it has one."""
    metrics = json.loads((run.path / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))
    kept = ("figures", "ceiling")
    return {name: {key: one[key] for key in kept if one.get(key)} for name, one in metrics["conventions"].items()}


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name)


if __name__ == "__main__":
    main()
