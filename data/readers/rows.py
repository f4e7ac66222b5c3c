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
from functools import cached_property
from pathlib import Path

from data.files import read_jsonl
from data.prompts import ASKED, Item, read_answer, render_answer, render_prompt
from data.schema import MENTION_TYPE, TASKS, Document, InputError, Mention, Relation
from data.text import fold, join_hyphenated

PROMPT = re.compile(r"\s*\S.*?\n\n(?P<article>.*\S.*)\n\nlist of extracted (?P<asked>\w+)\s*:\s*", re.IGNORECASE | re.DOTALL)
TASK_OF = {asked: task for task, asked in ASKED.items()} | {"relations": "relations"}


@dataclass(frozen=True)
class Row:
    """One row of the file: where it stands, and what it says of one task of one article."""

    where: str
    article: str
    task: str
    items: tuple[Item, ...]
    document: str | None = None

    @cached_property
    def key(self) -> str:
        """What rows of one article share, in any letter case: a hash of the article, the same on every machine."""
        return article_key(self.article)


def article_key(article: str) -> str:
    """A hash of the article's words, the same on every machine, whatever their letter case and hyphenation."""
    return hashlib.sha256(" ".join(fold(join_hyphenated(article)).split()).encode()).hexdigest()


def read_rows(path: str | Path) -> list[Row]:
    """Every row of an instruct file. Raises InputError naming file:line for one that is not such a row."""
    return [parse_row(row, where) for where, row in read_jsonl(path)]


def parse_row(row: dict, where: str) -> Row:
    prompt, completion = (_text(row, key, where) for key in ("prompt", "completion"))
    article, task = parse_prompt(prompt, where)
    items, unread = read_answer(completion, task)
    if unread:
        raise InputError(f"{where}: {task}: not a list line: {unread[0]!r}; write one '- item' a line, relations as '- a | b'")
    for name in (name for item in items for name in ((item,) if isinstance(item, str) else item)):
        if len(name.splitlines()) != 1:
            raise InputError(f"{where}: {task}: a name may not hold a line break: {name!r}")
    document = _text(row, "document", where) if "document" in row else None
    return Row(where, article, task, tuple(items), document)


def _text(row: dict, key: str, where: str) -> str:
    if key not in row:
        raise InputError(f'{where}: missing key "{key}"; a row is {{"prompt": …, "completion": …}}')
    if not isinstance(row[key], str):
        raise InputError(f'{where}: "{key}" must be a string, got {type(row[key]).__name__}')
    return row[key]


def parse_prompt(prompt: str, where: str) -> tuple[str, str]:
    """The article and the task of a prompt. Raises InputError where it is not one of ours."""
    match = PROMPT.fullmatch(prompt.replace("\r\n", "\n"))
    task = TASK_OF.get(match["asked"].lower()) if match else None
    if task is None:
        tail = prompt.rstrip().rsplit("\n", 1)[-1][:60]
        raise InputError(
            f"{where}: unknown prompt, ends in {tail!r}; expected '<instruction>', a blank line, '<article>', a blank line, "
            f"'List of extracted {'|'.join(ASKED.values())}:'"
        )
    return match["article"].strip(), task


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
            raise InputError(f"{row.where}: document {row.document!r} has another article at {rows[0].where}")
    # of several letter cases, the one that lost least
    article = max((row.article for row in rows), key=lambda text: (sum(map(str.isupper, text)), text))
    title, _, text = article.rpartition("\n") if article.count("\n") == 1 else ("", "", article)
    items = {task: dict.fromkeys(item for row in rows if row.task == task for item in row.items) for task in TASKS}
    return Document(
        id=rows[0].document or rows[0].key[:12],
        title=title or None,
        text=text,
        mentions=tuple(Mention(name, kind) for task, kind in MENTION_TYPE.items() for name in items[task]),
        relations=tuple(Relation(*pair) for pair in items["relations"]),
        tasks=tuple(task for task in TASKS if any(row.task == task for row in rows)),
    )


def repeated_rows(rows: Sequence[Row]) -> int:
    """How many rows say again what an earlier row said."""
    return len(rows) - len({(row.key, row.task, row.items) for row in rows})


def conflicting_rows(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(place of a row, task) for each row whose answer differs from an earlier one for the same article and task."""
    first: dict[tuple[str, str], set[Item]] = {}
    return [(r.where, r.task) for r in rows if first.setdefault((r.key, r.task), set(r.items)) != set(r.items)]


def document_rows(documents: Iterable[Document]) -> list[dict]:
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
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in document_rows(documents))
