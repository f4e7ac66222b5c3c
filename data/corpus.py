"""Any corpus file as documents: instruct JSONL, PubTator or BioC XML, told apart by content, not by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.files import first_line
from data.readers.rows import Row, join_rows, read_rows
from data.schema import Document, InputError, quote


@dataclass(frozen=True)
class Corpus:
    """The documents of one file, and its rows where it is an instruct file (for the audit's counts)."""

    path: Path
    documents: tuple[Document, ...]
    rows: tuple[Row, ...] = ()


def read_corpus(path: str | Path) -> Corpus:
    """The documents of a file. Raises InputError where it is none of the three formats, or breaks its own."""
    path = Path(path)
    kind = detect_format(path)
    if kind == "instruct":
        rows = read_rows(path)
        return Corpus(path, tuple(join_rows(rows)), tuple(rows))
    if kind == "bioc":
        from data.readers.bioc import read_bioc

        return Corpus(path, tuple(read_bioc(path)))
    from data.readers.pubtator import read_pubtator

    return Corpus(path, tuple(read_pubtator(path)))


def stream_documents(path: str | Path) -> Iterator[Document]:
    """The documents of `read_corpus`, one in memory at a time where the format allows: an article's instruct rows may stand
    anywhere in their file. An id may come twice; what is wrong with the file is raised where it is reached.
    """
    kind = detect_format(path)
    if kind == "instruct":
        yield from join_rows(read_rows(path))
        return
    if kind == "bioc":
        from data.readers.bioc import stream_bioc as stream
    else:
        from data.readers.pubtator import stream_pubtator as stream
    yield from (document for document, _ in stream(path))


def detect_format(path: str | Path) -> str:
    """One of "instruct", "bioc", "pubtator", from the first line that says something."""
    number, line = first_line(path)
    first = line.strip()
    if first.startswith("{"):
        return "instruct"
    if first.startswith("<"):
        return "bioc"
    if "|t|" in first or "|a|" in first:
        return "pubtator"
    raise InputError(
        f"{path}:{number}: neither instruct JSONL ({{\"prompt\": …}}), PubTator (id|t|title) nor BioC XML; "
        f"starts with {quote(first, 40)}"
    )
