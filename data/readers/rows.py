"""The user's instruct rows: JSON Lines of {"prompt", "completion"}, one row an article and task.

    {"prompt": "… Create a list only of the chemicals mentioned.\\n\\n<article>\\n\\nList of extracted chemicals:\\n",
     "completion": "- lithium\\n- Li"}

Rows of one article, in whatever letter case and order, become one `Document`. The writer adds "document" and "task", which
the reader takes as the document's id where they stand.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import read_jsonl
from data.items import Item, names_of
from data.prompts import ASKED, read_answer, render_answer, render_prompt
from data.schema import MENTION_TYPE, TASKS, Document, InputError, JsonObject, Mention, Relation, quote
from data.text import fold, join_hyphenated

ASKED_LAST = re.compile(r"list of extracted (\w+)", re.IGNORECASE)
TASK_OF = {asked: task for task, asked in ASKED.items()} | {"relations": "relations"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the file: where it stands, and what it says of one task of one article.

    `key` is what rows of one article share, in any letter case.
    """

    where: str
    article: str
    task: str
    items: tuple[Item, ...]
    key: str
    document: str | None = None


def article_key(article: str) -> str:
    """A hash of the article's words, the same on every machine, whatever their letter case and hyphenation."""
    return hashlib.sha256(" ".join(fold(join_hyphenated(article)).split()).encode()).hexdigest()


def read_rows(path: str | Path) -> list[Row]:
    """Every row of an instruct file. Raises InputError naming file:line for one that is not such a row."""
    known: dict[str, tuple[str, str]] = {}
    return [parse_row(row, where, known) for where, row in read_jsonl(path)]


def parse_row(row: JsonObject, where: str, known: dict[str, tuple[str, str]] | None = None) -> Row:
    """One row, its place in the file being `where`. Rows that share `known` keep one copy of an article and its key."""
    prompt, completion = (_text(row, key, where) for key in ("prompt", "completion"))
    article, task = parse_prompt(prompt, where)
    if "\0" in article:
        raise InputError(f"{where}: {task}: the article contains a NUL character; take it out")
    items, unread = read_answer(completion, task)
    if unread:
        if len(unread[0].splitlines()) > 1:
            raise InputError(f"{where}: {task}: a name may not contain a line break: {quote(unread[0])}")
        raise InputError(
            f"{where}: {task}: not a list line: {quote(unread[0])}; write one '- item' a line, relations as '- a | b', without "
            "Markdown, and '-' where there is none"
        )
    for name in (name for item in items for name in names_of(item)):
        if "\0" in name:
            raise InputError(f"{where}: {task}: a name may not contain a NUL character: {quote(name)}")
    document = _text(row, "document", where) if "document" in row else None
    known = {} if known is None else known
    if article not in known:
        known[article] = article, article_key(article)
    article, key = known[article]
    return Row(where, article, task, tuple(items), key, document)


def _text(row: JsonObject, key: str, where: str) -> str:
    if key not in row:
        raise InputError(f'{where}: missing key "{key}"; a row is {{"prompt": …, "completion": …}}')
    text = row[key]
    if not isinstance(text, str):
        raise InputError(f'{where}: "{key}" must be a string, got {type(text).__name__}')
    return text


def parse_prompt(prompt: str, where: str) -> tuple[str, str]:
    """The article and the task of a prompt. Raises InputError where it is not one of ours."""
    text = prompt.replace("\r\n", "\n").strip()
    before, _, last = text.removesuffix(":").rstrip().rpartition("\n\n")
    asked = ASKED_LAST.fullmatch(last) if text.endswith(":") else None
    task = TASK_OF.get(asked[1].lower()) if asked else None
    article = before.partition("\n\n")[2].strip()
    if task is None or not article:
        raise InputError(
            f"{where}: unknown prompt, ends in {quote(text.rsplit(chr(10), 1)[-1])}; expected '<instruction>', a blank line, "
            f"'<article>', a blank line, 'List of extracted {'|'.join(ASKED.values())}:'"
        )
    return article, task


def join_rows(rows: Sequence[Row]) -> list[Document]:
    """One document an article, in order of first appearance; rows that disagree give the union of their answers.

    Rows that name a "document" are joined by that name. Raises InputError where one name stands for two articles.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.document or row.key, []).append(row)
    return [_join(group) for group in groups.values()]


def _join(rows: Sequence[Row]) -> Document:
    for row in rows:
        if row.key != rows[0].key:
            raise InputError(f"{row.where}: document {quote(row.document)} has another article at {rows[0].where}")
    # of several letter cases, the one that lost least
    article = max((row.article for row in rows), key=lambda text: (sum(map(str.isupper, text)), text))
    title, _, text = article.rpartition("\n") if article.count("\n") == 1 else ("", "", article)
    names = {
        task: dict.fromkeys(n for row in rows if row.task == task for n in row.items if isinstance(n, str)) for task in TASKS
    }
    pairs = dict.fromkeys(pair for row in rows if row.task == "relations" for pair in row.items if not isinstance(pair, str))
    return Document(
        id=rows[0].document or rows[0].key[:12],
        title=title or None,
        text=text,
        mentions=tuple(Mention(name, kind) for task, kind in MENTION_TYPE.items() for name in names[task]),
        relations=tuple(Relation(*pair) for pair in pairs),
        tasks=tuple(task for task in TASKS if any(row.task == task for row in rows)),
    )


def repeated_rows(rows: Sequence[Row]) -> int:
    """How many rows say again what an earlier row said."""
    return len(rows) - len({(row.key, row.task, row.items) for row in rows})


def conflicting_rows(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(place of a row, task) for each row whose answer differs from an earlier one for the same article and task."""
    first: dict[tuple[str, str], set[Item]] = {}
    return [(r.where, r.task) for r in rows if first.setdefault((r.key, r.task), set(r.items)) != set(r.items)]


def document_rows(documents: Iterable[Document]) -> list[JsonObject]:
    """The documents in the user's row shape plus "document" and "task"."""
    return [
        {
            "prompt": render_prompt(document.article, task) + "\n",
            "completion": render_answer(document.gold(task)),
            "document": document.id,
            "task": task,
        }
        for document in documents
        for task in document.tasks
    ]


def render_rows(documents: Iterable[Document]) -> str:
    """The rows of `document_rows` as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in document_rows(documents))
