"""Whatever a user has to be read -> `Document`s without gold: a text, files, folders, standard input, PMIDs.

A file's format is told by its ending and, for .txt, by its content: plain text, JSONL, CSV, TSV, Parquet, PubTator, BioC XML
and BioC JSON. Gold in a file is left out: what is extracted is the model's.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from data.corpus import detect_format, stream_documents
from data.files import read_jsonl, read_lines, read_text
from data.schema import Document, InputError, quote
from pipeline.extract.pubmed import fetch_articles, read_pmids

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".xml", ".json", ".pubtator")
ID_COLUMNS = ("id", "document", "pmid", "doc_id")
TEXT_COLUMNS = ("text", "abstract", "article", "sentence")
LARGEST_CELL = 10_000_000  # characters


def read_texts(sources: Sequence[str], stdin: TextIO, pmids: Sequence[str] = ()) -> Iterator[Document]:
    """The documents of each source in order: a path, a folder, `-` for `stdin`, or else a text to be read as it stands; then
    PubMed's articles of the `pmids` (numbers, or files of them).

    Raises InputError for a path that is not there, a file without text, and an id that names two different texts.
    """
    seen: dict[str, str] = {}
    for number, source in enumerate(sources, 1):
        for document in read_source(source, stdin, "text" if len(sources) == 1 else f"text-{number}"):
            yield check_document(document, source, seen)
    for document in fetch_articles(read_pmids(pmids)) if pmids else ():
        yield check_document(document, "--pmid", seen)


def check_document(document: Document, source: str, seen: dict[str, str]) -> Document:
    """The document, noted in `seen`. Raises InputError where it has no text, or its id was there before."""
    if not document.article.strip():
        raise InputError(f"{source}: document {document.id!r} has no text")
    if document.id in seen:
        raise InputError(f"{source}: document id {document.id!r} is there twice (first in {seen[document.id]})")
    seen[document.id] = source
    return document


def read_source(source: str, stdin: TextIO, name: str) -> Iterator[Document]:
    """The documents of one source; `name` is the id of a source that is a text itself."""
    if source == "-":
        yield Document("stdin", stdin.read().strip())
        return
    path = Path(source)
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError:  # a text longer than a path may be
        there = folder = False
    if folder:
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise InputError(f"{source}: no file to read in this folder ({', '.join(SUFFIXES)})")
        for file in files:
            yield from read_file(file, name=str(file.relative_to(path).with_suffix("")))
    elif there:
        yield from read_file(path, name=path.stem)
    elif path.suffix in SUFFIXES or not any(character.isspace() for character in source.strip()):
        raise InputError(f"{source}: no such file or folder")
    else:
        yield Document(name, source.strip())


def read_file(path: Path, name: str) -> Iterator[Document]:
    """The documents of one file; `name` is the id of a file that is one text."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        yield from read_json_lines(path, name)
    elif kind in (".csv", ".tsv"):
        yield from read_table(csv_rows(path, "\t" if kind == ".tsv" else ","), path, name)
    elif kind == ".parquet":
        yield from read_table(parquet_rows(path), path, name)
    elif kind == ".json":
        yield from read_bioc_json(path)
    elif kind in (".xml", ".pubtator") or looks_like_pubtator(path):
        yield from (replace(document, mentions=(), relations=()) for document in stream_documents(path))
    else:
        yield Document(name, read_text(path).strip())


def looks_like_pubtator(path: Path) -> bool:
    """Whether a text file has PubTator's `id|t|title` lines rather than plain text."""
    try:
        return detect_format(path) == "pubtator"
    except InputError:
        return False


def read_json_lines(path: Path, name: str) -> Iterator[Document]:
    """Rows with "text" and, where known, "title" and "id"; or a corpus's instruct rows, whose articles are read."""
    for number, (where, row) in enumerate(read_jsonl(path), 1):
        if number == 1 and "prompt" in row:
            yield from (replace(document, mentions=(), relations=()) for document in stream_documents(path))
            return
        yield document_of(row, where, f"{name}-{number}")


def csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row by column name) of a table, one in memory at a time. Raises InputError for one that is not whole."""
    csv.field_size_limit(LARGEST_CELL)
    reader = csv.DictReader((line + "\n" for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a row of this table: {error}") from None


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a Parquet file, a batch in memory at a time."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(path).iter_batches(batch_size=1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def read_table(rows: Iterable[tuple[int, dict[str, Any]]], path: Path, name: str) -> Iterator[Document]:
    """The document of each row, numbered where it has no id of its own."""
    for number, row in rows:
        yield document_of(row, f"{path}:{number}", f"{name}-{number}")


def document_of(row: dict[str, Any], where: str, name: str) -> Document:
    """A document of a row's text, title and id; `name` is the id of a row that has none."""
    text = next((row[column] for column in TEXT_COLUMNS if row.get(column)), None)
    if not isinstance(text, str):
        raise InputError(
            f"{where}: no text; expected a column {', '.join(map(repr, TEXT_COLUMNS))}, got {quote(sorted(map(str, row)))}"
        )
    identity = next((row[column] for column in ID_COLUMNS if row.get(column) is not None), name)
    title = row.get("title") or None
    if title is not None and not isinstance(title, str):
        raise InputError(f"{where}: title: expected a text, got {type(title).__name__}")
    return Document(str(identity), text.strip(), title.strip() if title else None)


def keep_text(item: dict[str, Any]) -> dict[str, Any]:
    """What is read of an object of BioC JSON: the rest, annotations above all, would take five times the file in memory."""
    return {key: item[key] for key in ("documents", "id", "passages", "text") if key in item}


def read_bioc_json(path: Path) -> Iterator[Document]:
    """A BioC collection in JSON: a document's passages, joined by line breaks."""
    try:
        collection = json.loads(read_text(path), object_hook=keep_text)
        for document in collection["documents"]:
            passages = [passage["text"] for passage in document["passages"]]
            yield Document(str(document["id"]), "\n".join(passages).strip())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a BioC collection in JSON: {type(error).__name__}: {error}") from None
