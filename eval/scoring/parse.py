"""Completions as predictions: the items of each answer and whether it was a proper one. completions.jsonl -> predictions.jsonl.

The model's output is data: whatever it is, parsing gives a status and never fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.files import read_jsonl, write_jsonl
from data.items import Item
from data.prompts import read_answer, read_line
from data.schema import TASKS, InputError, JsonObject, quote

Status = Literal["ok", "empty", "malformed", "truncated", "missing"]  # missing: a file of another system lacks it


@dataclass(frozen=True)
class Answer:
    """What was predicted for one document and task: items in the model's order, repeats included.

    `repaired`: whether the lenient reading had to mend it.
    """

    items: tuple[Item, ...]
    status: Status
    repaired: bool = False


Predictions = Mapping[tuple[str, str], Answer]  # by (document id, task)


def parse_answer(completion: str, task: str, finish: Literal["stop", "length"] = "stop") -> Answer:
    """The strict reading, by which the product's own answers are scored; `lenient.parse_leniently` is the other one.

    An answer with a line that is no item is malformed, and predicts what stands before that line: an answer that
    wanders off after its list loses what follows, never the list. One that ran out of tokens is truncated and keeps its
    finished lines.

    >>> parse_answer("- lithium\\n- Li", "chemicals").items
    ('lithium', 'Li')
    >>> parse_answer("- lithium | tremor\\n- lith", "relations", "length")
    Answer(items=(('lithium', 'tremor'),), status='truncated', repaired=False)
    >>> parse_answer("- lithium\\nThese are the chemicals.", "chemicals")
    Answer(items=('lithium',), status='malformed', repaired=False)
    >>> parse_answer("The chemicals are:\\n- lithium", "chemicals").items
    ()
    """
    if finish == "length":
        completion = completion.rpartition("\n")[0]
    items, unread = read_answer(completion, task)
    if unread:
        return Answer(read_until_foreign(completion.split("\n"), task, read_line), "malformed")
    if finish == "length":
        return Answer(tuple(items), "truncated")
    return Answer(tuple(items), "ok" if items else "empty")


def read_until_foreign(lines: Sequence[str], task: str, read: Callable[[str, str], Item | None]) -> tuple[Item, ...]:
    """The items up to the first line that `read(line, task)` takes for none; blank lines are passed over."""
    read_lines = (read(line, task) for line in lines if line.strip())
    return tuple(item for item in itertools.takewhile(lambda item: item is not None, read_lines) if item is not None)


def parse_completions(rows: Iterable[JsonObject], parse: Callable[[str, str, Any], Answer] = parse_answer) -> Predictions:
    """From rows of completions.jsonl, {"document", "task", "completion", "finish"}, by the strict reading or another one."""
    return {(r["document"], r["task"]): parse(r["completion"], r["task"], r["finish"]) for r in rows}


def write_predictions(predictions: Predictions, path: str | Path) -> Path:
    """predictions.jsonl: {"document", "task", "items", "status"} of each answer. Returns the path."""
    return write_jsonl(
        path,
        ({"document": d, "task": t, "items": a.items, "status": a.status} for (d, t), a in predictions.items()),
    )


def read_predictions(path: str | Path) -> Predictions:
    """Read predictions.jsonl back. Raises InputError naming file:line."""
    predictions = {}
    for where, row in read_jsonl(path):
        key, answer = _prediction(row, where)
        if key in predictions:
            raise InputError(f"{where}: a second answer for document {key[0]!r}, task {key[1]}")
        predictions[key] = answer
    return predictions


def _prediction(row: JsonObject, where: str) -> tuple[tuple[str, str], Answer]:
    told = isinstance(row.get("document"), str) and row.get("task") in TASKS and isinstance(row.get("items"), list)
    if not told or row.get("status") not in (None, "ok", "empty", "malformed", "truncated"):
        raise InputError(f'{where}: expected {{"document", "task": {"|".join(TASKS)}, "items": […], "status"}}')
    width = 2 if row["task"] == "relations" else 1
    for item in row["items"]:
        names = item if isinstance(item, list) else [item]
        if len(names) != width or isinstance(item, str) != (width == 1) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: {row['task']}: not an item: {quote(item)}")
    items = tuple(item if isinstance(item, str) else tuple(item) for item in row["items"])
    return (row["document"], row["task"]), Answer(items, row.get("status") or ("ok" if items else "empty"))
