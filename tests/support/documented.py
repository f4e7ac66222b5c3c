"""The commands that README and docs/ show, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.sh"))
FENCE = re.compile(r"^```(?:sh|bash)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    ((?:medner|python -m|make|torchrun|accelerate|pip) .*)$", re.MULTILINE)
# elsewhere: another program than ours has to be there, or to run; waits: until it is interrupted
MARKS = {"gpu", "network", "elsewhere", "waits"}


@dataclass(frozen=True)
class Command:
    """One command: where it is shown, its words, and what it needs that a test has not ("gpu", …; "" for nothing)."""

    page: str
    words: tuple[str, ...]
    needs: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def page_commands() -> list[Command]:
    """Those of fenced blocks; ```sh gpu``` and the like say what they need. Indented ones are of pages about GPUs and rows."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for mark, block in FENCE.findall(text):
            found += [Command(page.name, words, mark.strip()) for words in split_commands(block)]
        shown = "\n".join(INDENTED.findall(re.sub(FENCE, "", text)))
        found += [Command(page.name, words, "gpu") for words in split_commands(shown)]
    return found


def split_commands(text: str) -> Iterator[tuple[str, ...]]:
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield tuple(words)
                words = []
