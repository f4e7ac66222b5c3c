"""The lenient reading of an answer: what a general chat model means by it. How an untuned model's answers are compared.

Repaired, and counted as repaired: any single bullet or number before an item, `**` and backticks around one, special tokens, a
code fence, a think block, one line of introduction that ends in `:`, an empty list said in words ("None", "N/A", "[]", "No
chemicals mentioned."), `a -> b` for a relation, and a last line that was cut. JSON, comma lists, prose and tables stay
malformed: in them an item cannot be told from what stands around it (a comma is part of many a chemical's name), and whoever
takes them apart decides what the model meant.
"""

from __future__ import annotations

import re
from typing import Literal

from data.items import Item
from data.prompts import EMPTY, read_item, says_none
from eval.scoring.parse import Answer, parse_answer, read_until_foreign

SPECIAL_TOKEN = re.compile(r"<\|[^<>\n]{1,40}\|>|</?s>|<(?:bos|eos|end_of_turn)>|\[/?INST\]")
FENCE = re.compile(r"\s*(?:```|~~~)\w*\s*")
BULLET = re.compile(r"\s*(?:[-*•–—+·‣▪◦]|\d{1,3}[.)])\s+(?P<text>\S.*)")
LONE_BULLET = re.compile(r"[-*•–—+·‣▪◦]|\d{1,3}[.)]?")
MARKS = re.compile(r"\*\*|`")
ARROW = re.compile(r"(?<!\s)\s+(?:->|=>|→|⇒)\s+")


def parse_leniently(completion: str, task: str, finish: Literal["stop", "length"] = "stop") -> Answer:
    """As `parse_answer`, with what the module's head names repaired; `repaired` says whether that was needed.

    A strict answer is read as strictly. As there, what was read up to the first line that is no item stays, as malformed.

    >>> parse_leniently("Here are the chemicals:\\n1. **lithium**\\n2. `Li`", "chemicals")
    Answer(items=('lithium', 'Li'), status='ok', repaired=True)
    >>> parse_leniently("None.", "relations")
    Answer(items=(), status='empty', repaired=True)
    >>> parse_leniently("The only chemical is lithium.", "chemicals").status
    'malformed'
    """
    strict = parse_answer(completion, task, finish)
    if strict.status != "malformed":
        return strict
    text = without_wrapping(completion)
    lines = [line for line in (text.rpartition("\n")[0] if finish == "length" else text).split("\n") if line.strip()]
    if len(lines) > 1:
        lines = without_introduction(lines, task)
    if len(lines) == 1 and is_nothing(lines[0]):
        return Answer((), "empty", repaired=True)
    cut = len(lines) > 1 and is_cut(lines[-1], task)
    lines = lines[:-1] if cut else lines
    items = read_until_foreign(lines, task, read_loosely)
    if len(items) < len(lines):
        return Answer(items, "malformed", repaired=items != strict.items)
    if cut or finish == "length":
        return Answer(items, "truncated", repaired=True)
    return Answer(items, "ok" if items else "empty", repaired=True)


def without_wrapping(text: str) -> str:
    """The answer without a think block, special tokens, whatever follows the end of the turn, and the lines of a fence."""
    before, _, thought = text.partition("<think>")
    text = before.rstrip() + thought.partition("</think>")[2] if "</think>" in thought else text
    parts = SPECIAL_TOKEN.split(text)
    text = next((part for part in parts if part.strip()), "")
    lines = text.split("\n")
    return "\n".join(line for line in lines if not FENCE.fullmatch(line))


def without_introduction(lines: list[str], task: str) -> list[str]:
    """The lines without a first one such as "Here are the chemicals:"."""
    first = MARKS.sub("", lines[0]).strip()
    return lines[1:] if first.endswith(":") and read_loosely(lines[0], task) is None else lines


def read_loosely(line: str, task: str) -> Item | None:
    """An item behind any single bullet or number, without bold, code and arrows; None where the line is no item."""
    match = BULLET.fullmatch(line)
    if match is None:
        return None
    text = MARKS.sub("", match["text"]).strip()
    if task == "relations" and "|" not in text:
        text = ARROW.sub(" | ", text, count=1)
    return read_item(text, task) if text else None


def is_nothing(line: str) -> bool:
    """Whether a line says that the list is empty: a lone bullet, or "None" and its like, with a bullet or without."""
    match = BULLET.fullmatch(line)
    text = MARKS.sub("", match["text"] if match else line).strip()
    return text == EMPTY or all(says_none(side) for side in text.split("|"))


def is_cut(line: str, task: str) -> bool:
    """Whether the last line was begun as an item and not ended: a bullet alone, or a relation without its second side.

    How a generation ended is not always known (files of other systems do not say), so the line itself must tell.
    """
    if LONE_BULLET.fullmatch(line.strip()):
        return True
    return task == "relations" and BULLET.fullmatch(line) is not None and read_loosely(line, task) is None
