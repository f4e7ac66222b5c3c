"""Predictions of any system, read as answers for documents that have gold here. Told apart by content:

    JSON Lines   instruct rows {"prompt", "completion"}, matched by article, or by "document" where the row has one;
                 our completions.jsonl {"document", "task", "completion"} and predictions.jsonl {"document", "task", "items"}
    PubTator, BioC   names as annotated; a relation's ids are named by the concepts' first mentions
    CSV          document,task,item (a relation's item is `chemical | disease`) or document,task,chemical,disease

A completion is read as our own models' are: strictly, or leniently where the caller says so. What stands for a document that
has no gold is refused: it would be scored against another test set.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import first_line, read_jsonl, read_lines
from data.items import Item
from data.prompts import read_line
from data.readers.checks import check_item_name
from data.readers.pubtator import MARKERS
from data.readers.rows import article_key, parse_prompt
from data.schema import MENTION_TYPE, TASKS, Document, InputError, quote
from eval.official.loose_reader import Found as Name
from eval.official.loose_reader import concept, read_annotations
from eval.scoring.parse import Answer, Predictions, parse_answer

Found = tuple[str, str, str, Answer]  # place in the file, document id, task, answer
STATUSES = ("ok", "empty", "malformed", "truncated")
DELIMITERS = ",;\t"


def read_other_system(
    path: str | Path, documents: Sequence[Document], parse: Callable[[str, str, Any], Answer] = parse_answer
) -> Predictions:
    """The answers by document id and task, in the file's order, each with its status. `parse` reads a completion.

    A document or task that the file says nothing about has no entry: nothing was asked, which is not an empty answer.
    Raises InputError naming file:line (for BioC the document) where the file is none of these, or breaks its own format.
    """
    known = {document.id for document in documents}
    first: dict[tuple[str, str], str] = {}
    predicted: dict[tuple[str, str], Answer] = {}
    for where, document, task, answer in reader_of(path)(path, documents, parse):
        if document not in known:
            raise InputError(f"{where}: document {quote(document)} is none of the {len(known)} documents that are scored")
        if (document, task) in first and predicted[document, task] != answer:
            raise InputError(f"{where}: document {quote(document)}, {task}: another answer stands at {first[document, task]}")
        first.setdefault((document, task), where)
        predicted[document, task] = answer
    return predicted


def holds_completions(path: str | Path) -> bool:
    """Whether the file has models' answers as they were written, which can be read in more than one way."""
    return reader_of(path) is _read_rows and "completion" in next(read_jsonl(path))[1]


def listed(items: Sequence[Item]) -> Answer:
    """The answer of a file that says nothing of how it was given."""
    return Answer(tuple(items), "ok" if items else "empty")


def reader_of(path: str | Path) -> Callable[..., Iterator[Found]]:
    """The reader of the file's format, from its first line that says something."""
    number, line = first_line(path)
    if line.lstrip().startswith("{"):
        return _read_rows
    if _delimiter(line):
        return _read_csv
    if line.lstrip().startswith("<") or any(marker in line for marker in MARKERS) or line.count("\t") > 2:
        return _read_annotated
    raise InputError(
        f"{path}:{number}: none of JSON Lines, PubTator, BioC XML, CSV (document,task,item): starts with {quote(line, 40)}"
    )


def _read_rows(path: str | Path, documents: Sequence[Document], parse: Callable[[str, str, Any], Answer]) -> Iterator[Found]:
    by_article = {article_key(text): document.id for document in documents for text in (document.text, document.article)}
    for where, row in read_jsonl(path):
        document, task = row.get("document"), row.get("task")
        if "prompt" in row:
            article, asked = parse_prompt(_text(row, "prompt", where), where)
            document, task = document or by_article.get(article_key(article)), task or asked
            if document is None:
                raise InputError(f"{where}: the prompt's article is none of the {len(documents)} documents that are scored")
        if not isinstance(document, str) or not isinstance(task, str) or task not in TASKS:
            raise InputError(f'{where}: expected "document" and "task" ({"|".join(TASKS)}), or a "prompt" that says both')
        if "items" in row:
            answer = _with_status(_items(row["items"], task, where), row.get("status"), where)
        else:
            answer = parse(_text(row, "completion", where), task, row.get("finish", "stop"))
        yield where, document, task, answer


def _with_status(items: tuple[Item, ...], status: object, where: str) -> Answer:
    if status is None:
        return listed(items)
    if status not in STATUSES:
        raise InputError(f'{where}: "status" must be one of {"|".join(STATUSES)}, got {quote(status)}')
    return replace(listed(items), status=status)


def _text(row: dict, key: str, where: str) -> str:
    if not isinstance(row.get(key), str):
        raise InputError(f'{where}: "{key}" must be a string, got {type(row.get(key)).__name__}')
    return row[key]


def _items(items: object, task: str, where: str) -> tuple[Item, ...]:
    if not isinstance(items, list):
        raise InputError(f'{where}: "items" must be a list, got {type(items).__name__}')
    return tuple(_item(item, task, where) for item in items)


def _item(item: object, task: str, where: str) -> Item:
    width, shape = (2, "a [chemical, disease] pair") if task == "relations" else (1, "a name")
    names = item if task == "relations" else [item]
    if not isinstance(names, list) or len(names) != width or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {task}: not {shape}: {quote(item)}")
    names = [name.strip() for name in names]
    for name in names:
        check_item_name(name, where)
    return tuple(names) if task == "relations" else names[0]


def _delimiter(header: str) -> str | None:
    """What separates the columns of a CSV file's first line, None where it is none of ours."""
    for delimiter in DELIMITERS:
        columns = {column.strip().strip('"').lower() for column in header.split(delimiter)}
        if {"document", "task"} < columns and columns & {"item", "chemical", "disease"}:
            return delimiter
    return None


def _read_csv(path: str | Path, *_: object) -> Iterator[Found]:
    start, header = first_line(path)
    lines = (line + "\n" for number, line in read_lines(path) if number >= start)
    rows = csv.DictReader(lines, delimiter=_delimiter(header) or ",", strict=True)
    answers: dict[tuple[str, str], tuple[str, list[Item]]] = {}
    try:
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        if not {"document", "task"} < set(rows.fieldnames):
            raise InputError(f"{path}:{start}: broken CSV: the header has no columns document and task: {quote(header)}")
        for row in rows:
            where = f"{path}:{rows.line_num + start - 1}"
            key, item = _csv_item(row, where)
            items = answers.setdefault(key, (where, []))[1]
            items += [] if item is None else [item]
    except csv.Error as error:
        raise InputError(f"{path}:{rows.reader.line_num + start - 1}: broken CSV: {error}") from None
    for (document, task), (where, items) in answers.items():
        yield where, document, task, listed(items)


def _csv_item(row: dict, where: str) -> tuple[tuple[str, str], Item | None]:
    """The (document, task) of a line and its item; None where its name columns are empty: an empty answer, said explicitly."""
    if None in row or None in row.values():
        raise InputError(f"{where}: the line has {'more' if None in row else 'fewer'} fields than the header has columns")
    document, task = row["document"].strip(), row["task"].strip().lower()
    if not document or task not in TASKS:
        raise InputError(
            f"{where}: document {quote(document)}, task {quote(task)}; a line needs both, and a task of {'|'.join(TASKS)}"
        )
    columns = ("item",) if "item" in row else ("chemical", "disease") if task == "relations" else (task.removesuffix("s"),)
    if not set(columns) <= row.keys():
        raise InputError(f"{where}: {task}: the file has no column {' or no column '.join(set(columns) - row.keys())}")
    names = [row[column].strip() for column in columns]
    if not any(names):
        return (document, task), None
    if columns == ("item",) and task == "relations":
        names = list(read_line(f"- {names[0]}", task) or names)
    return (document, task), _item(names if task == "relations" else names[0], task, where)


def _read_annotated(path: str | Path, documents: Sequence[Document], *_: object) -> Iterator[Found]:
    """For every document of the file, the tasks that the file answers anywhere.

    Names are spans of a text, so they are taken as they stand; parts of composite names have no span and are left out.
    """
    read = read_annotations(path)
    types, gold = {f.type for f in read.found}, {document.id: document for document in documents}
    found: dict[str, list[Name]] = {document: [] for document in read.lines}
    for mention in sorted((f for f in read.found if f.start is not None), key=lambda f: (f.start, f.end)):
        found[mention.document].append(mention)
    relations: dict[str, list[tuple[str, str]]] = {document: [] for document in read.lines}
    for document, _, *pair in read.relations:
        names = first_names(found[document], gold.get(document))
        # a concept without any mention keeps its id for a name, and is a wrong answer
        relations[document].append(tuple(names.get(key, key[1]) for key in zip(MENTION_TYPE.values(), pair, strict=True)))
    for document in read.lines:
        where = f"{path}:{read.lines[document]}" if read.lines[document] else f"{path}: document {quote(document)}"
        for task, kind in MENTION_TYPE.items():
            if kind in types:
                yield where, document, task, listed([f.text for f in found[document] if f.type == kind])
        if read.relations:
            yield where, document, "relations", listed(relations[document])


def first_names(found: Sequence[Name], document: Document | None) -> dict[tuple[str, str], str]:
    """The first mention of each (type, concept) in the file, else in gold."""
    names: dict[tuple[str, str], str] = {}
    for mention in found:
        for one in mention.concepts:
            names.setdefault((mention.type, one), mention.text)
    for mention in document.mentions if document else ():
        for one in mention.ids:
            names.setdefault((mention.type, concept(one)), mention.text)
    return names
