"""The words every other module uses: document, mention, relation, task.

A `Document` is one article with what is known to be true of it (its gold). It is frozen: readers make it,
nothing changes it afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

TASKS = ("chemicals", "diseases", "relations")
SPLITS = ("train", "validation", "test")
MentionType = Literal["Chemical", "Disease"]
MENTION_TYPE: dict[str, MentionType] = {"chemicals": "Chemical", "diseases": "Disease"}
JsonObject = dict[str, Any]


class InputError(ValueError):
    """The user's file, setting or argument is wrong: one or two lines saying what, where, and what to do (exit code 2)."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in the article. Offsets count characters of `Document.article`; None where the source has none."""

    text: str
    type: MentionType
    start: int | None = None
    end: int | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """The chemical influences the disease. Ids are the concepts' MeSH ids, None where the source has none."""

    chemical: str
    disease: str
    chemical_id: str | None = None
    disease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One article and its gold. `tasks` are those whose answer is known; a known answer may be empty."""

    id: str
    text: str
    title: str | None = None
    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    tasks: tuple[str, ...] = TASKS

    @property
    def article(self) -> str:
        """Title, where known, and text, joined by one line break: what a model reads and offsets count in."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    def gold(self, task: str) -> tuple[str, ...] | tuple[tuple[str, str], ...]:
        """Each distinct name, or (chemical, disease) pair, once, in the document's order."""
        return self.pairs() if task == "relations" else self.names(task)

    def names(self, task: str) -> tuple[str, ...]:
        """Each distinct name of the task, `chemicals` or `diseases`, once, in the document's order."""
        return tuple(dict.fromkeys(m.text for m in self.mentions if m.type == MENTION_TYPE[task]))

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each distinct (chemical, disease) pair once, in the document's order."""
        return tuple(dict.fromkeys((r.chemical, r.disease) for r in self.relations))


def document_to_json(document: Document) -> JsonObject:
    """A JSON object that `document_from_json` reads back to an equal document."""
    return asdict(document)


def document_from_json(row: JsonObject) -> Document:
    """The document that `document_to_json` wrote. Raises InputError for anything else."""
    try:
        mentions = tuple(Mention(**{**m, "ids": tuple(m["ids"])}) for m in row["mentions"])
        relations = tuple(Relation(**r) for r in row["relations"])
        document = Document(**{**row, "mentions": mentions, "relations": relations, "tasks": tuple(row["tasks"])})
        texts = [document.id, document.text, document.title or "", *document.tasks]
        texts += [text for m in mentions for text in (m.text, m.type, *m.ids)]
        texts += [text for r in relations for text in (r.chemical, r.disease, r.chemical_id or "", r.disease_id or "")]
        offsets = [offset for m in mentions for offset in (m.start, m.end) if offset is not None]
        types = {m.type for m in mentions} <= set(MENTION_TYPE.values()) and set(document.tasks) <= set(TASKS)
    except (KeyError, TypeError):
        raise InputError("not a document as in documents.jsonl") from None
    if not types or not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in offsets):
        raise InputError("not a document as in documents.jsonl")
    return document


def quote(value: object, most: int = 60) -> str:
    """The value as an error shows it: in quotes, cut off after `most` characters."""
    shown = repr(value if not isinstance(value, str) else value[: most + 1])
    return shown if len(shown) <= most + 3 else shown[:most] + "…"
