"""What a run on real articles reached, beside its baselines:  python -m bench.real RUN

After `make real DATA=FILE`: reads the run, prints the table of `medner compare RUN`, and writes
bench/results/real-cpu.json: figures, intervals, paired tests, what each exported file kept, seconds of training, machine and
versions. No text is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.processor import processor_name
from data.files import write_json
from data.schema import TASKS
from pipeline.compare_systems import ahead_in, compare_systems
from pipeline.run_folder import RunFolder, read_run

RESULTS = Path(__file__).parent / "results" / "real-cpu.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cores", type=int, required=True, help="cores that the run had for itself")
    options = parser.parse_args(arguments)
    run = read_run(options.run)
    comparison, table = compare_systems(run, "test")
    write_json(RESULTS, describe_run(run, comparison, options.cores))
    print(table)
    print(f"wrote {RESULTS}", file=sys.stderr)


def describe_run(run: RunFolder, comparison: dict, cores: int) -> dict:
    settings, training = run.settings, run.manifest["stages"]["train"]
    return {
        "device": run.manifest["device"],
        "processor": processor_name(),
        "cores": cores,
        "versions": run.manifest["versions"],
        "model": settings.model.name,
        "settings": {"lora_r": settings.lora.r, "learning_rate": settings.train.learning_rate, "dtype": settings.model.dtype,
                     "epochs": settings.train.num_train_epochs, "batch": settings.train.effective_batch_size},
        "data_sha256": run.manifest["data_sha256"],
        "articles": {name: run.manifest["stages"]["data"][name] for name in ("train", "validation", "test")},
        # over all interruptions, which a stage's own seconds are not
        "training": {key: training[key] for key in ("training_seconds", "steps", "train_loss", "validation_loss", "best_step")},
        "losses": training["losses"],
        "systems": {slug(name): describe_system(one, comparison["level"]) for name, one in comparison["systems"].items()},
        "parity": read_parity(run),
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


def read_parity(run: RunFolder) -> dict:
    """What the check of each exported file said, without its answers; empty where nothing was exported."""
    path = run.path / "export" / "parity.json"
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}
    return {slug(name.rpartition(".gguf")[0].rpartition(".")[2] or name): one for name, one in models.items()}


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name)


if __name__ == "__main__":
    main()
