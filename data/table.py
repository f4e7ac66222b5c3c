"""A table as text: made once from figures, then written for a terminal or as Markdown; the report's template writes it as HTML.

Whatever a model or an article put into a cell stays text: it cannot steer a terminal, and cannot become Markdown or HTML.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NONE = "–"  # stands where there is no figure
WIDTH = 100  # of a note on a terminal
MARKDOWN = str.maketrans({character: "\\" + character for character in "\\|<>`*_[]&~"})
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction and joining, lone surrogates, separators of lines


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with a title and a note on how to read them.

    The first column names a row. Figures stand at the right of theirs; `words` names the columns of words instead.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    words: tuple[str, ...] = ()

    def holds_words(self, column: int) -> bool:
        return column == 0 or self.header[column] in self.words

    def only(self, *columns: str) -> Table:
        """The first column and those named, as far as they are there."""
        kept = [0, *(i for i, name in enumerate(self.header) if i and name in columns)]
        return self._keep(kept)

    def without_empty(self) -> Table:
        """Without the columns in which no row has anything."""
        return self._keep([0, *(i for i in range(1, len(self.header)) if any(row[i] not in ("", NONE) for row in self.rows))])

    def _keep(self, columns: Sequence[int]) -> Table:
        pick = [tuple(row[i] for i in columns) for row in (self.header, *self.rows)]
        return Table(pick[0], tuple(pick[1:]), self.title, self.note, self.words)


def percent(fraction: float | None) -> str:
    """A score in percent, or a dash.

    >>> percent(0.876), percent(None)
    ('87.6', '–')
    """
    return NONE if fraction is None else f"{100 * fraction:.1f}"


def as_text(table: Table) -> str:
    """For a terminal: columns aligned, the note wrapped below."""
    lines = [[tidy(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(columns_of, column)) for column in zip(*lines, strict=True)]
    body = ["  ".join(_pad(cell, widths[i], table.holds_words(i)) for i, cell in enumerate(row)).rstrip() for row in lines]
    above = [tidy(table.title)] if table.title else []
    below = ["", *textwrap.wrap(tidy(table.note), WIDTH)] if table.note else []
    return "\n".join([*above, *(body if any(table.header) else body[1:]), *below])


def as_markdown(table: Table, level: int = 3) -> str:
    """As Markdown, under a heading of `level` where the table has a title."""
    lines = [f"| {' | '.join(map(escape_markdown, row))} |" for row in (table.header, *table.rows)]
    align = "|".join("---" if table.holds_words(i) else "--:" for i in range(len(table.header)))
    above = [f"{'#' * level} {escape_markdown(table.title)}", ""] if table.title else []
    below = ["", escape_markdown(table.note)] if table.note else []
    return "\n".join([*above, lines[0], f"|{align}|", *lines[1:], *below])


def escape_markdown(text: str) -> str:
    """On one line, shown by Markdown as it is."""
    return tidy(text).translate(MARKDOWN)


def tidy(text: str) -> str:
    """On one line, white space folded, without what steers a terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Every character that shows nothing, but the line break, written as its code.

    >>> printable("a\\x1b[31mb\\u202ec")
    'a\\\\x1b[31mb\\\\u202ec'
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_code(c) if c != "\n" and unicodedata.category(c) in UNSEEN else c for c in text)


def _code(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _pad(cell: str, width: int, left: bool) -> str:
    space = " " * (width - columns_of(cell))
    return cell + space if left else space + cell


def join_blocks(blocks: Iterable[str]) -> str:
    """Blocks of text with an empty line between them; empty ones are left out."""
    return "\n\n".join(block for block in blocks if block)
