"""PubTator corpora, read into documents and written from them.

    227508|t|Naloxone reverses …
    227508|a|In unanesthetized …
    227508<tab>0<tab>8<tab>Naloxone<tab>Chemical<tab>D009270
    227508<tab>CID<tab>D008750<tab>D007022

Offsets count characters of title and text joined by one, as in `Document.article`. A sixth field gives ids (`-1`: none,
`D1|D2`: several); a seventh (parts of a composite name, or a system's score) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from data.files import read_lines, writing
from data.readers.checks import NO_CONCEPT, check_ids, check_mention, is_ours, name_relations, parse_offset, split_ids
from data.schema import Document, InputError, Mention, quote

HEADER = re.compile(r"([^|\t]*)\|([tTaA])\|(.*)", re.DOTALL)
MARKERS = ("|t|", "|T|", "|a|", "|A|")
NUMBER = re.compile(r"[0-9]+")
BLANK = "".join(map(chr, range(33)))
"""What counts as white space around a line: control characters and the space, as for the official scorer."""


@dataclass(frozen=True)
class Line:
    """A line that is not blank. `kind` is "title" or "text" (fields: id, text), "mention", "relation" (the fields between
    tabs), "marked" (an annotation that contains a title's or text's marker) or "broken" (no tab).
    """

    number: int
    kind: str
    fields: tuple[str, ...]


def parse_lines(lines: Iterable[tuple[int, str]]) -> Iterator[Line]:
    """The numbered lines of a PubTator file, told apart as the official scorer does. Judges nothing."""
    for number, raw in lines:
        line = raw.strip(BLANK)
        if not line:
            continue
        if any(marker in line for marker in MARKERS):
            header = HEADER.fullmatch(raw)
            kind = {"t": "title", "a": "text"}[header[2].lower()] if header else "marked"
            fields = (header[1].strip(BLANK), header[3]) if header else tuple(line.split("\t"))
        else:
            fields = tuple(line.split("\t"))
            kind = "broken" if len(fields) < 2 else "mention" if _has_offsets(fields) else "relation"
        yield Line(number, kind, fields)


def _has_offsets(fields: tuple[str, ...]) -> bool:
    return len(fields) > 2 and all(NUMBER.fullmatch(field) for field in fields[1:3])


def read_pubtator(path: str | Path) -> list[Document]:
    """The documents of a PubTator file.

    Raises InputError naming file:line for a broken line, a bad offset, a duplicate id, or another format.
    """
    return check_ids(stream_pubtator(path))


def stream_pubtator(path: str | Path) -> Iterator[tuple[Document, str]]:
    """Each document with its place, file:line, one in memory at a time. Raises as `read_pubtator`, but for duplicate ids."""
    for block in _blocks(path):
        yield _read_block(block, path), f"{path}:{block[0].number}"


def _blocks(path: str | Path) -> Iterator[list[Line]]:
    """The lines of each document, from its title line on."""
    block: list[Line] = []
    for line in parse_lines(read_lines(path)):
        if line.kind == "title" and block:
            yield block
            block = []
        if line.kind != "title" and not block:
            raise InputError(f"{path}:{line.number}: not PubTator: expected a title line 'id|t|title', got {_shown(line)}")
        block.append(line)
    if not block:
        raise InputError(f"{path}: the file contains no text")
    yield block


def _shown(line: Line) -> str:
    return quote("\t".join(line.fields))


def _read_block(block: list[Line], path: str | Path) -> Document:
    (name, title), where = block[0].fields, f"{path}:{block[0].number}"
    if not name:
        raise InputError(f"{where}: a title line without a document id")
    if len(block) < 2 or block[1].kind != "text" or block[1].fields[0] != name:
        raise InputError(f"{where}: the title of {quote(name)} is not followed by its text, 'id|a|text'")
    text = block[1].fields[1]
    bare = Document(name, text, title or None)
    mentions: list[Mention] = []
    pairs: list[tuple[str, str, str]] = []
    for line in block[2:]:
        where = f"{path}:{line.number}"
        if line.kind not in ("mention", "relation") or line.fields[0] != name:
            raise InputError(f"{where}: broken line in document {quote(name)}: {_shown(line)}")
        if line.kind == "mention":
            # without a title, offsets still count the character that joins it to the text
            mentions += _read_mention(line, bare.article, 0 if title else 1, where)
        else:
            pairs += _read_pair(line, where)
    return Document(name, text, title or None, tuple(mentions), name_relations(pairs, mentions))


def _read_mention(line: Line, article: str, shift: int, where: str) -> list[Mention]:
    if len(line.fields) < 5:
        raise InputError(f"{where}: a mention has at least 5 fields (id, start, end, name, type), got {len(line.fields)}")
    start, end, text, kind, *rest = line.fields[1:]
    if not is_ours(kind, where):
        return []
    begin, stop = (parse_offset(field, where) - shift for field in (start, end))
    mention = Mention(text, kind, begin, stop, split_ids(rest[0] if rest else ""))
    return [check_mention(mention, article, where)]


def _read_pair(line: Line, where: str) -> list[tuple[str, str, str]]:
    ids = [split_ids(field) for field in line.fields[2:4]]
    if line.fields[1] != "CID" or [len(part) for part in ids] != [1, 1]:
        raise InputError(f"{where}: neither a mention nor a relation 'id CID chemical-id disease-id': {_shown(line)}")
    return [(ids[0][0], ids[1][0], where)]


def write_pubtator(documents: Iterable[Document], target: str | Path | TextIO) -> None:
    """Write a file that `read_pubtator` reads back to equal documents, all of it or nothing, one in memory at a time.

    Raises InputError for what the format cannot express: a mention without offsets, a relation without ids, a `|` in an id.
    """
    if isinstance(target, str | Path):
        with writing(target) as file:
            write_pubtator(documents, file)
        return
    for number, document in enumerate(documents):
        target.write("\n" * (number > 0) + render_document(document))


def render_document(document: Document) -> str:
    """One document's lines."""
    if not document.id.strip(BLANK) or document.id != document.id.strip(BLANK) or re.search(r"[|\t\r\n]", document.id):
        raise InputError(f"document {document.id!r}: PubTator has no room for an id that is empty, or contains '|' or a tab")
    shift = 0 if document.title else 1
    lines = [f"{document.id}|t|{one_line(document.title or '')}", f"{document.id}|a|{one_line(document.text)}"]
    for mention in document.mentions:
        if mention.start is None or mention.end is None:
            raise InputError(f"document {document.id!r}: {mention.text!r} has no offsets, which PubTator needs")
        place = mention.start + shift, mention.end + shift
        lines.append(_tabs(document.id, *place, mention.text, mention.type, "|".join(mention.ids) or NO_CONCEPT))
    for relation in document.relations:
        if not relation.chemical_id or not relation.disease_id:
            raise InputError(f"document {document.id!r}: relation {relation.chemical!r} has no ids, which PubTator needs")
        lines.append(_tabs(document.id, "CID", relation.chemical_id, relation.disease_id))
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """The text with each line break a space, so that no offset moves."""
    return re.sub(r"[\r\n]", " ", text)


def _tabs(*fields: object) -> str:
    return "\t".join(one_line(str(field)) for field in fields)
