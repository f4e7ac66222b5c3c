"""How much faster a processor trains by processes of one thread each:  python -m bench.processes RUN

Trains on RUN's training articles by the real commands, a few steps of each in turn: `medner train` in float32, where PyTorch's
own attention is used, and in bfloat16, each by one process with all cores; and in bfloat16 as `make real` does, by a process a
core, which takes articles one by one, or in pairs. All take the same steps over the same examples. RUN is a run of `medner run
--preset smollm2-135m`, or of another model.

    python -m bench.processes RUN [--steps N] [--rounds N] [--cores N]

Prints a table and writes bench/results/processes-cpu.json. Seconds are the clock's: run it alone on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.processor import processor_name, told
from data.files import write_json
from data.table import Table, as_text
from pipeline.plan.hardware import count_cores
from pipeline.run_folder import RunFolder, read_run, versions

RESULTS = Path(__file__).parent / "results" / "processes-cpu.json"
WARM_UP = 2  # steps that are not counted
AS_BEFORE = "float32, one process"
# number type, whether by a process a core, articles a forward pass (None: the plan's choice)
VARIANTS: dict[str, tuple[str, bool, int | None]] = {
    AS_BEFORE: ("float32", False, None),
    "bfloat16, one process": ("bfloat16", False, None),
    "bfloat16, a process a core": ("bfloat16", True, None),
    "bfloat16, a process a core, articles in pairs": ("bfloat16", True, 2),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.processes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=8, help=f"counted in each round, after {WARM_UP} that are not")
    parser.add_argument("--rounds", type=int, default=2, help="of all variants in turn; the best counts")
    parser.add_argument("--cores", type=int, default=int(count_cores()))
    options = parser.parse_args(arguments)
    run = read_run(options.run)
    articles = run.settings.train.effective_batch_size
    # not in pairs where a step has less than one for each process
    variants = {name: one for name, one in VARIANTS.items() if one[2] is None or articles % (options.cores * one[2]) == 0}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _, (name, (dtype, split, batch)) in itertools.product(range(options.rounds), variants.items()):
        own = time_steps(run, dtype, options.cores if split else 1, 1 if split else options.cores, options.steps, batch)
        seconds[name].append(told("training", name, own))
    best = {name: min(own) for name, own in seconds.items()}
    report = {
        "device": "cpu",
        "processor": processor_name(),
        "cores": options.cores,
        "versions": versions(),
        "model": run.settings.model.name,
        "n": {"steps": options.steps, "articles_a_step": articles, "rounds": options.rounds},
        "seconds_a_step": {name: round(own / options.steps, 3) for name, own in best.items()},
        "ratios": {name: round(best[AS_BEFORE] / own, 3) for name, own in best.items()},
    }
    write_json(RESULTS, report)
    print(render(report))
    print(f"wrote {RESULTS}", file=sys.stderr)


def time_steps(run: RunFolder, dtype: str, processes: int, threads: int, steps: int, batch: int | None = None) -> float:
    """The clock's seconds of `steps` optimiser steps, the first ones left out, of a training in processes of its own.

    `batch`: articles a forward pass; None: the plan's choice.
    """
    with TemporaryDirectory() as folder:
        out, few = Path(folder) / "run", Path(folder) / "validation.jsonl"
        rows = (run.path / "data" / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        few.write_text("".join(rows[:2]), encoding="utf-8")  # its loss is part of the training, and not of the steps
        command = ["train", "--out", out, "--yes", "--config", run.path / "config.yaml", "--set",
                   f"data.train={run.path / 'data' / 'train.jsonl'}", f"data.validation={few}",
                   f"data.test={run.path / 'data' / 'test.jsonl'}", "data.file=null", f"model.dtype={dtype}",
                   f"train.max_steps={WARM_UP + steps}", "train.evaluations=1", "train.eval_f1_articles=0",
                   f"train.per_device_train_batch_size={batch or 'null'}", "train.gradient_accumulation_steps=null",
                   "train.report_to=none"]  # fmt: skip
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m", "pipeline.processes"]
        ran = subprocess.run(
            list(map(str, [sys.executable, "-m", *(launcher if processes > 1 else ["pipeline.cli"]), *command])),
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if ran.returncode:
            raise SystemExit(f"bench.processes: {ran.stdout[-2000:]}")
        (state,) = (out / "checkpoints").glob(f"checkpoint-{WARM_UP + steps}/trainer_state.json")
        log = json.loads(state.read_text(encoding="utf-8"))["log_history"]
        at = {row["step"]: row["seconds"] for row in reversed(log) if "loss" in row}
        return at[WARM_UP + steps] - at[WARM_UP]


def render(report: dict) -> str:
    rows = [(name, f"{own:.2f}", f"{report['ratios'][name]:.2f}") for name, own in report["seconds_a_step"].items()]
    articles = report["n"]["articles_a_step"]
    where = f"{report['model']} on {report['processor']}, {report['cores']} cores, {articles} articles a step"
    return as_text(Table(("training", "s a step", "times as fast"), tuple(rows), where))


if __name__ == "__main__":
    main()
