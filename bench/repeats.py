"""After how many repeated lines in a row should an answer end?  python -m bench.repeats RUN

Takes the plain answers of a run's test split, ends each after K repeated lines in a row and takes all repeats out, as grounded
decoding does, and scores what is left. Prints a table and writes bench/results/repeats-cpu.json, which holds no text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data.corpus import read_corpus
from data.files import write_json
from data.prompts import read_line
from data.schema import TASKS
from data.table import Table, as_text, percent
from data.text import normalise
from eval.grounding.repeats import drop_repeats
from eval.scoring.logprobs import read_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import match_answers, score_answers

RESULTS = Path(__file__).parent / "results" / "repeats-cpu.json"
LENGTHS = (1, 2, 3, 4, None)  # None: never ended


def main(arguments: Sequence[str] | None = None) -> int:
    (run,) = map(Path, sys.argv[1:] if arguments is None else arguments)
    documents = read_corpus(run / "data" / "test.jsonl").documents
    rows = list(read_completions(run / "eval" / "test" / "completions.jsonl"))
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
    write_json(RESULTS, {"articles": len(documents), "ended_after": figures})
    return 0


def end_answer(row: dict, most: int | None) -> dict:
    """The answer's row, ended after `most` lines in a row that were listed before."""
    listed, repeats, kept = set(), 0, []
    for line in row["completion"].split("\n"):
        item = read_line(line, row["task"])
        name = tuple(map(normalise, (item,) if isinstance(item, str) else item or ()))
        repeats = repeats + 1 if name in listed else 0
        listed.add(name)
        kept.append(line)
        if repeats == most:
            return {"document": row["document"], "task": row["task"], "completion": "\n".join(kept), "finish": "stop"}
    return {key: row[key] for key in ("document", "task", "completion", "finish")}


if __name__ == "__main__":
    sys.exit(main())
