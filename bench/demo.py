"""What the demo reaches with other seeds and thread counts:  python -m bench.demo [--seeds 42 1 2 3 4] [--threads 1]

Runs tests/pipeline/test_demo.py once a seed (of the split and of training), so that what is tested on trained weights is
seen to hold for each, and reads the run that it tested. Adds to bench/results/demo-seeds.json, and prints what stands there.
Figures are fractions, on the test articles of that seed's split; times are the machine's while it did what else it did.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from data.files import write_json
from data.schema import TASKS
from data.table import Table, as_text

RESULTS = Path(__file__).parent / "results" / "demo-seeds.json"
TESTS = Path(__file__).parents[1] / "tests" / "pipeline" / "test_demo.py"


def run_demo(seed: int, threads: int) -> dict:
    """{"seed", "threads", "tests": {"passed": n, …}, "seconds": {stage: s}, "f1": {task: F1}, "parity": {quant: …}}."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", str(TESTS), "-p", "no:cacheprovider", "--basetemp", f"{folder}/pytest"]
        environment = os.environ | {"MEDNER_DEMO_SEED": str(seed), "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        print(done.stdout, file=sys.stderr)
        run = Path(folder) / "pytest" / "demo0" / "run"
        last = done.stdout.strip().splitlines()[-1]
        tests = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|error)", last)}
        return {"seed": seed, "threads": threads, "tests": tests, **read_demo(run)}


def read_demo(run: Path) -> dict:
    metrics = json.loads((run / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))
    models = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))["models"].values()
    stages = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    grounded = json.loads((run / "eval" / "test" / "grounded" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "documents": metrics["documents"],
        "f1": f1_of(metrics),
        "grounded_f1": f1_of(grounded),
        "parity": {
            one["quant"]: {"change": one["micro"]["change"], "ci95": one["micro"]["ci95"]}
            | {name: one[name] for name in ("verdict", "exact_completions")}
            for one in models
        },
    }


def f1_of(metrics: dict) -> dict[str, float]:
    return {task: metrics["tasks"][task]["f1"] for task in TASKS} | {"micro": metrics["micro"]["f1"]}


def as_table(runs: list[dict]) -> Table:
    rows = tuple(
        (
            f"{one['seed']}",
            f"{one['threads']}",
            *(f"{100 * one['f1'][name]:.1f}" for name in (*TASKS, "micro")),
            f"{100 * one['grounded_f1']['micro']:.1f}",
            f"{one['seconds']['train']:.0f}",
            ", ".join(f"{count} {kind}" for kind, count in one["tests"].items()),
        )
        for one in runs
    )
    columns = ("seed", "threads", *TASKS, "micro", "micro, grounded", "training, s", "tests")
    return Table(columns, rows, "The demo's F1 on test, %, by seed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[42, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for seed in options.seeds:
        runs = {(one["threads"], one["seed"]): one for one in read_results()}
        runs[options.threads, seed] = run_demo(seed, options.threads)
        device = {
            "device": f"cpu ({platform.machine()}), {os.cpu_count()} cores",
            "versions": {"python": platform.python_version()},
        }
        write_json(RESULTS, device | {"runs": [runs[key] for key in sorted(runs)]})
    print(as_text(as_table(read_results())))


def read_results() -> list[dict]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
