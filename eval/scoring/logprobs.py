"""How sure the model was of each item: the mean log-probability of its tokens.

completions.jsonl rows with "logprobs": [[token text, log-probability], …], joined the completion -> a score per item, which
`eval.scoring.confidence` turns into a probability.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path

import numpy as np

from data.files import read_jsonl
from data.prompts import read_line
from data.schema import TASKS, InputError, JsonObject, quote

Confidences = Mapping[tuple[str, str], tuple[float, ...]]  # by (document id, task), one for each of the answer's items
LARGEST_NUMBER = 10**15  # of an integer in JSON, which may have thousands of digits


def has_answers(path: Path) -> bool:
    """Whether the file is there and is not one that an evaluation began and was interrupted before its first answer."""
    return path.is_file() and path.stat().st_size > 0


def read_completions(path: str | Path) -> list[JsonObject]:
    """The rows of completions.jsonl. Raises InputError, naming file:line, for one that is none or answers a second time."""
    rows = {}
    for where, row in read_jsonl(path):
        check_completion(row, where)
        if "logprobs" in row:
            check_logprobs(row, where)
        key = row["document"], row["task"]
        if key in rows:
            raise InputError(f"{where}: a second answer for document {quote(key[0])}, task {key[1]}")
        rows[key] = row
    return list(rows.values())


def check_completion(row: JsonObject, where: str) -> None:
    """Raises InputError unless the row says whose answer it is, what was answered and how it ended."""
    texts = isinstance(row.get("document"), str) and isinstance(row.get("completion"), str)
    if not texts or row.get("task") not in TASKS or row.get("finish") not in ("stop", "length"):
        wanted = f'{{"document", "task": {"|".join(TASKS)}, "completion", "finish": stop|length}}'
        raise InputError(f"{where}: expected {wanted}")


def score_items(rows: Iterable[JsonObject]) -> Confidences:
    """Each item's mean log-probability per token, in the order in which `parse_completions` gives the items.

    Raises InputError where a row has no log-probabilities.
    """
    return {(row["document"], row["task"]): tuple(score_completion(row)) for row in rows}


def score_completion(row: JsonObject) -> Iterator[float]:
    """The mean over the tokens that contain a character of the item, so that long names are not doubted for their length.

    Where the tokens do not join to the completion (a server may show a split character as its bytes), tokens cannot be told
    apart by item, and every item of the answer gets the mean over all of them.
    """
    tokens = read_logprobs(row)
    joined = "".join(token for token, _ in tokens) == row["completion"]
    ends = np.cumsum([len(token) for token, _ in tokens])
    starts = ends - [len(token) for token, _ in tokens]
    values = np.array([value for _, value in tokens])
    for start, end in item_places(row["completion"], row["task"], row["finish"]):
        inside = (starts < end) & (ends > start) | (not joined)
        yield float(values[inside].mean())


def read_logprobs(row: JsonObject) -> list[tuple[str, float]]:
    """[(token text, log-probability)] of a row. Raises InputError, naming document and task, where there are none.

    An answer without a character needs none; one that has text was written in tokens.
    """
    where = f"completions: {row['document']!r}, {row['task']}"
    if "logprobs" not in row:
        raise InputError(f"{where}: no logprobs; generate with them (eval.logprobs=true)")
    check_logprobs(row, where)
    return [(token, value) for token, value in row["logprobs"]]


def check_logprobs(row: JsonObject, where: str) -> None:
    """Raises InputError unless `row["logprobs"]` is a list of [token, log-probability], empty for an empty answer alone."""
    tokens = row["logprobs"]
    if not isinstance(tokens, list) or not tokens and row["completion"]:
        raise InputError(f"{where}: logprobs is {quote(tokens)} beside an answer; expected [[token, log-probability], …]")
    for pair in tokens:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_number(pair[1])):
            raise InputError(f"{where}: logprobs contains {quote(pair)}; expected [token, log-probability]")


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number; true and false are none."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) and isfinite(value) or isinstance(value, int) and abs(value) < LARGEST_NUMBER


def item_places(completion: str, task: str, finish: str) -> list[tuple[int, int]]:
    """Where each item that `parse_answer` reads stands in the completion, without its bullet."""
    whole = completion.rpartition("\n")[0] if finish == "length" else completion
    places: list[tuple[int, int]] = []
    at = 0
    for line in whole.split("\n"):
        if line.strip():
            if read_line(line, task) is None:
                return places
            bullet = len(line) - len(line.lstrip()) + 1
            places.append((at + bullet, at + len(line.rstrip())))
        at += len(line) + 1
    return places
