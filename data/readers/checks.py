"""What the annotations of a corpus must fulfil, whatever its format, before a model is trained on them.

PubTator and BioC give mentions with offsets and concept ids, and relations between concept ids. Here offsets are compared
against the article, ids are brought to one spelling, and relations get names: each concept's first mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from data.prompts import is_name
from data.schema import MENTION_TYPE, Document, InputError, Mention, MentionType, Relation, quote

TYPES = tuple(MENTION_TYPE.values())
OFFSET = re.compile(r"\s*[+-]?[0-9]{1,9}\s*")
NO_CONCEPT = "-1"


def split_ids(field: str) -> tuple[str, ...]:
    """The concept ids of an id field, `MESH:` and `OMIM:` taken away; a name without a concept has none.

    >>> split_ids("MESH:D002779|D056486"), split_ids("-1"), split_ids("")
    (('D002779', 'D056486'), (), ())
    """
    ids = (part.strip().removeprefix("MESH:").removeprefix("OMIM:") for part in field.split("|"))
    return tuple(dict.fromkeys(part for part in ids if part not in ("", NO_CONCEPT)))


def is_ours(kind: str, where: str) -> TypeGuard[MentionType]:
    """Whether a mention's type is one of ours. Genes and the like are passed over; a misspelt type of ours is refused."""
    if kind not in TYPES and kind.strip().capitalize() in TYPES:
        raise InputError(f"{where}: unknown type {quote(kind)}; write {kind.strip().capitalize()!r}")
    return kind in TYPES


def check_mention(mention: Mention, article: str, where: str) -> Mention:
    """The mention. Raises InputError if its name is not what stands at its offsets, or no answer can contain it."""
    start, end = mention.start, mention.end
    if start is None or end is None or not 0 <= start < end <= len(article):
        raise InputError(f"{where}: offsets {start}-{end} lie outside the article (0-{len(article)})")
    if article[start:end] != mention.text:
        there = quote(article[start:end])
        raise InputError(f"{where}: bad offset: {quote(mention.text)} is expected at {start}-{end}, the article has {there}")
    check_item_name(mention.text, where)
    return mention


def check_item_name(name: str, where: str) -> None:
    """Raises InputError for a name that an answer, one name a line and `|` between two, could not give back."""
    if not name.strip() or "|" in name or len(name.splitlines()) != 1 or name != name.strip():
        raise InputError(f"{where}: a name may not be empty, contain '|' or a line break, or end in a blank: {quote(name)}")
    if not is_name(name):
        raise InputError(f"{where}: not a name, since answers of 'none' or in Markdown are written so: {quote(name)}")


def parse_offset(field: str, where: str) -> int:
    """An offset or length. Raises InputError for what is no whole number of at most nine digits."""
    if not OFFSET.fullmatch(field):
        raise InputError(f"{where}: {quote(field)} is not a number, expected an offset or length")
    return int(field)


def name_relations(pairs: Iterable[tuple[str, str, str]], mentions: Sequence[Mention]) -> tuple[Relation, ...]:
    """Relations from (chemical id, disease id, place in the file), named by each concept's first mention in the article."""
    first: dict[tuple[str, str], str] = {}
    for mention in sorted(mentions, key=lambda mention: (mention.start or 0, mention.end or 0)):
        for concept in mention.ids:
            first.setdefault((mention.type, concept), mention.text)
    relations = {}
    for chemical, disease, where in pairs:
        for kind, concept in zip(TYPES, (chemical, disease), strict=True):
            if (kind, concept) not in first:
                raise InputError(
                    f"{where}: relation of {kind} {quote(concept)}, an id that no {kind} mention of the document has"
                )
        names = first[TYPES[0], chemical], first[TYPES[1], disease]
        relations[chemical, disease] = Relation(*names, chemical, disease)
    return tuple(relations.values())


def check_ids(placed: Iterable[tuple[Document, str]]) -> list[Document]:
    """The documents of (document, its place), where no two share an id. Raises InputError naming both places."""
    documents: list[Document] = []
    seen: dict[str, str] = {}
    for document, where in placed:
        if document.id in seen:
            raise InputError(f"{where}: duplicate document id {quote(document.id)}, first at {seen[document.id]}")
        seen[document.id] = where
        documents.append(document)
    return documents
