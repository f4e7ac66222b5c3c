"""Repeated lines taken out of a grounded answer, in whichever engine it was written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from data.items import normalise_item
from data.prompts import read_line

MOST_REPEATS = 3  # in a row; a model goes on to new names after one or two, hardly after three: bench/repeats.py


def describe_grounding(grounded: bool) -> dict[str, Any]:
    """What tells grounded answers from others, kept beside them: from those of a time when no repeated line could end, too."""
    return {"grounded": True, "most_repeats": MOST_REPEATS} if grounded else {"grounded": False}


def drop_repeats(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    """An answer's row, {"completion", "finish", perhaps "logprobs"}, without the lines that repeat one before them as scoring
    compares names, and without the log-probabilities of what is taken out.

    A bullet without a name, begun after the last repeat, is taken out too. The unfinished last line of an answer that ran out
    of tokens is left, since a reader leaves out that line itself.
    """
    text: str = row["completion"]
    lines = text.split("\n")
    ends = list(accumulate(len(line) + 1 for line in lines))
    unfinished = len(lines) - 1 if row["finish"] == "length" else None
    kept, listed = [], set()
    for number, (line, end) in enumerate(zip(lines, ends, strict=True)):
        item = read_line(line, task)
        name = None if item is None else normalise_item(item)
        bare = number > 0 and line.strip() in ("", "-")
        if number == unfinished or not (bare or name in listed):
            kept.append((max(0, end - len(line) - 2), end - 1))  # with the line break before it
        if name is not None:
            listed.add(name)
    if len(kept) == len(lines):
        return dict(row)

    def keep(start: int, end: int) -> str:
        return "".join(text[max(start, first) : min(end, last)] for first, last in kept)

    new = {**row, "completion": keep(0, len(text))}
    if "".join(part for part, _ in row.get("logprobs", ())) == text:  # a server may show a split character as its bytes
        until = list(accumulate(len(part) for part, _ in row["logprobs"]))
        parts = [(keep(end - len(part), end), chance) for (part, chance), end in zip(row["logprobs"], until, strict=True)]
        new["logprobs"] = [[part, chance] for part, chance in parts if part]
    return new
