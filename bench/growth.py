"""What big corpora and odd texts cost:  python -m bench.growth [--rows 1000000]

Audits an invented corpus of so many rows, and 4,000 articles of one template, each in a process of its own, and reads texts
that once took time in the square or the cube of their length. Prints a table and adds it to bench/results/growth-cpu.json.
`ratios`: time at the doubled length over time at the length; 2 is linear.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data.files import write_json
from data.prompts import render_answer, render_prompt
from data.readers.rows import parse_prompt
from data.schema import TASKS, InputError
from data.text import FoldedText, normalise
from eval.grounding.spans import article_spans
from eval.scoring.parse import parse_answer

RESULTS = Path(__file__).parent / "results" / "growth-cpu.json"
ROWS = 1_000_000
WORDS = 60  # of an article
TEMPLATE = 4_000
LENGTH = 20_000
# Runs the audit, and prints its processor seconds, which other work beside it hardly changes, and its most memory in KiB.
AUDIT = (
    "import resource, sys; from pipeline.cli import main; code = main(['data', 'audit', sys.argv[1], '--json'])\n"
    "used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr); sys.exit(code)"
)


def invented_rows(count: int) -> Iterator[str]:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 10))) for _ in range(30_000)]
    for number in range(count // len(TASKS)):
        own = chance.choices(words, k=WORDS)
        yield from rows_of(f"Case {number}: " + " ".join(own), own)


def template_rows(count: int) -> Iterator[str]:
    """Articles alike but for one word, each near to every other."""
    body = " ".join(f"word{number}" for number in range(WORDS))
    for number in range(count):
        yield from rows_of(f"Case {number} {body}", body.split())


def rows_of(article: str, words: list[str]) -> Iterator[str]:
    answers = {"chemicals": words[:4], "diseases": words[4:8], "relations": list(zip(words[:2], words[4:6], strict=True))}
    for task, items in answers.items():
        yield json.dumps({"prompt": render_prompt(article, task) + "\n", "completion": render_answer(items)}) + "\n"


def audit(rows: Iterator[str]) -> dict[str, float]:
    """Processor seconds and peak memory (GB) of `medner data audit` of a file of these rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(rows)
        done = subprocess.run([sys.executable, "-c", AUDIT, str(path)], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        seconds, peak = float(done.stderr.split()[-2]), int(done.stderr.split()[-1]) * 1024 / 1e9
        return {"rows": found["rows"], "file_mb": round(path.stat().st_size / 1e6), "seconds": seconds, "peak_gb": peak}


def read_prompt(text: str) -> None:
    try:
        parse_prompt(text, "here")
    except InputError:
        return


TEXTS: dict[str, Callable[[int], object]] = {
    "'- chemical' and spaces": lambda n: parse_answer("- chemical" + " " * n + "x", "relations"),
    "brackets, normalised": lambda n: normalise("(" * n + "a" + ")" * n),
    "brackets, grounded": lambda n: article_spans("(" * n + "a" + ")" * n),
    "combining marks, folded": lambda n: FoldedText("a" + "\u0323\u0301" * n).spans("a"),
    "combining marks, normalised": lambda n: normalise("a" + "\u0323\u0301" * n),
    "foreign prompt": lambda n: read_prompt("\n" * n + "List of extracted" + " " * n),
}


def seconds_of(work: Callable[[int], object], length: int) -> float:
    started = time.process_time()
    work(length)
    return time.process_time() - started


def measure_texts() -> dict[str, dict[str, float]]:
    """By text, processor seconds at a length and at its double: the quickest of three."""
    measured = {}
    for name, work in TEXTS.items():
        once, twice = (min(seconds_of(work, length) for _ in range(3)) for length in (LENGTH, 2 * LENGTH))
        measured[name] = {"characters": LENGTH, "seconds": once, "seconds_doubled": twice}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    most = parser.parse_args().rows
    corpora = json.loads(RESULTS.read_text(encoding="utf-8"))["corpora"] if RESULTS.exists() else {}
    corpora[f"{most} rows"] = audit(invented_rows(most))
    corpora[f"{TEMPLATE} articles of one template"] = audit(template_rows(TEMPLATE))
    texts = measure_texts()
    ratios = {name: own["seconds_doubled"] / max(own["seconds"], 1e-4) for name, own in texts.items()}
    device = {"device": f"cpu ({platform.machine()}), one core", "versions": {"python": platform.python_version()}}
    write_json(RESULTS, device | {"corpora": corpora, "texts": texts, "ratios": ratios})
    for name, own in corpora.items():
        took = "not timed" if own["seconds"] is None else f"{own['seconds']:7.1f} s"  # kept from a run that others slowed
        print(f"{name:32} {own['file_mb']:6,} MB  {took:>9}  {own['peak_gb']:5.2f} GB at most")
    for name, own in texts.items():
        print(f"{name:32} {own['seconds']:.4f} s, doubled {own['seconds_doubled']:.4f} s: {ratios[name]:.1f} times")


if __name__ == "__main__":
    main()
