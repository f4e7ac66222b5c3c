"""After how many repeated lines in a row should an answer end?  python -m bench.repeats RUN

Takes the plain answers of a run's test split, ends each after K repeated lines in a row and takes all repeats out, as grounded
decoding does, and scores what is left. Prints a table and writes bench/results/repeats-cpu.json, which holds no text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.files import write_json
from data.items import normalise_item
from data.prompts import read_line
from data.schema import TASKS
from data.split import read_split_folder
from data.table import Table, as_text, percent
from eval.completions import read_provenance
from eval.grounding.repeats import drop_repeats
from eval.scoring.logprobs import read_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import match_answers, score_answers
from pipeline.run_folder import read_run

RESULTS = Path(__file__).parent / "results" / "repeats-cpu.json"
LENGTHS = (1, 2, 3, 4, None)  # None: never ended


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.repeats", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    run = read_run(parser.parse_args(arguments).run)
    documents = read_split_folder(run.path / "data")["test"]
    path = run.path / "eval" / "test" / "completions.jsonl"
    rows, produced = read_completions(path), read_provenance(path)
    figures, table = {}, []
    for most in LENGTHS:
        ended = [end_answer(row, most) for row in rows]
        scores = score_answers(match_answers(documents, parse_completions([drop_repeats(row, row["task"]) for row in ended])))
        f1 = {task: one["f1"] for task, one in scores["tasks"].items()} | {"micro": scores["micro"]["f1"]}
        lines, truncated = sum(row["completion"].count("\n") + 1 for row in ended), scores["rates"]["truncated"]
        figures[str(most or "never")] = {"f1": f1, "truncated": truncated, "lines": lines}
        table.append((str(most or "never"), *map(percent, (*f1.values(), truncated)), f"{lines:,}"))
    header = ("ended after", *TASKS, "micro", "truncated", "lines written")
    print(as_text(Table(header, tuple(table), f"F1 of {len(documents)} articles, repeats taken out, percent")))
    source = {key: produced[key] for key in ("model", "adapter_sha256", "prompts_sha256")}
    write_json(RESULTS, {**source, "articles": len(documents), "ended_after": figures})
    return 0


def end_answer(row: dict, most: int | None) -> dict:
    """The answer's row, ended after `most` lines in a row that were listed before."""
    plain = {key: row[key] for key in ("document", "task", "completion", "finish")}  # log-probabilities are of all lines
    listed, repeats, lines = set(), 0, row["completion"].split("\n")
    for number, line in enumerate(lines, 1):
        item = read_line(line, row["task"])
        name = item and normalise_item(item)
        repeats = repeats + 1 if name in listed else 0
        listed.add(name)
        if repeats == most:
            return plain | {"completion": "\n".join(lines[:number]), "finish": "stop"}
    return plain


if __name__ == "__main__":
    sys.exit(main())
