"""PubTator and BioC annotations read as the official BioCreative V CDR scorer reads them: all it can use, nothing judged.

Unlike the corpus readers of `data`, which refuse a fault, this passes over what the official program passes over, and over
the lines on which it would stop altogether, and counts each. Only a file that is not of its format at all is an InputError.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from data.files import first_line, read_lines, read_pieces
from data.readers.bioc import parse_annotation, parse_documents, parse_infons
from data.readers.checks import NO_CONCEPT, TYPES
from data.readers.pubtator import BLANK, Line, parse_lines
from data.schema import InputError, quote

RELATION = "CID"
INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True)
class Found:
    """An annotated name. Without a place (a part of a composite name) it counts for its ids only."""

    document: str
    type: str
    start: int | None
    end: int | None
    text: str
    concepts: tuple[str, ...]


@dataclass
class Annotations:
    """What a file says: names, relations as (document, "CID", chemical id, disease id), and a count of what was passed over.

    `lines` has the documents in the file's order, each with its first line (0 in BioC).
    """

    found: list[Found] = field(default_factory=list)
    relations: list[tuple[str, str, str, str]] = field(default_factory=list)
    articles: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def read_annotations(path: str | Path) -> Annotations:
    """The annotations of a file, read as the official program reads it.

    Raises InputError where the file is missing, empty, or neither PubTator nor BioC.
    """
    _, first = first_line(path, "replace")
    return _read_bioc(path) if first.lstrip().startswith("<") else _read_pubtator(path, first)


def concept(part: str | None) -> str | None:
    """An id as the official program compares it: MeSH unless it says otherwise; None for no concept.

    >>> concept("D003866"), concept("MESH:D003866"), concept("mesh:D003866"), concept("-1")
    ('MESH:D003866', 'MESH:D003866', 'mesh:D003866', None)
    """
    if part in (None, "", NO_CONCEPT):
        return None
    return part if ":" in part else f"MESH:{part}"


def _concepts(text: str | None, ignored: Counter[str]) -> tuple[str, ...]:
    concepts = tuple(filter(None, map(concept, (text or "").strip(BLANK).split("|"))))
    ignored["without_id"] += not concepts
    return concepts


def _relation(document: str, chemical: str | None, disease: str | None) -> tuple[str, str, str, str]:
    # the official program writes a missing id as "null" and counts the relation
    return document, RELATION, concept(chemical) or "null", concept(disease) or "null"


def _read_pubtator(path: str | Path, first: str) -> Annotations:
    # the official program reads bytes that are not UTF-8 as a replacement character
    read, known = Annotations(), 0
    for line in parse_lines(read_lines(path, "replace")):
        if line.kind == "title":
            read.articles[line.fields[0]] = line.fields[1] + " "
            read.lines.setdefault(line.fields[0], line.number)
        elif line.kind == "text":
            read.articles[line.fields[0]] = read.articles.get(line.fields[0], "") + line.fields[1]
        else:
            known += _read_line(line, read)
    if not known and not read.articles:
        raise InputError(
            f"{path}:1: neither PubTator (id|t|title, tabs between fields) nor BioC XML: {quote(first.lstrip(), 40)}"
        )
    return read


def _read_line(line: Line, read: Annotations) -> bool:
    """Take one annotation line; whether it is one that PubTator knows, counted or not."""
    fields = line.fields
    place = [_integer(part) for part in fields[1:3]]
    if line.kind == "mention" and len(fields) > 4 and None not in place:
        read.lines.setdefault(fields[0], line.number)
        if fields[4] not in TYPES:
            read.ignored["other_type"] += 1
        else:
            concepts = _concepts(fields[5] if len(fields) > 5 else None, read.ignored)
            read.found.append(Found(fields[0], fields[4], *place, fields[3], concepts))
        return True
    if line.kind == "relation" and fields[1] == RELATION and len(fields) > 3:
        read.lines.setdefault(fields[0], line.number)
        read.relations.append(_relation(fields[0], *fields[2:4]))
        return True
    mention_like = len(fields) > 4 and fields[4] in TYPES
    read.ignored["holds_a_marker" if line.kind == "marked" else "bad_offset" if mention_like else "broken_line"] += 1
    return mention_like


def _integer(text: str) -> int | None:
    return int(text) if INTEGER.fullmatch(text) else None


def _read_bioc(path: str | Path) -> Annotations:
    read = Annotations()
    read.ignored["cdata"] = sum(line.count("<![CDATA[") for _, line in read_lines(path, "replace"))
    for element in parse_documents(read_pieces(path, "replace"), path, read_cdata=False):
        document = element.findtext("id", "")
        read.articles[document] = _bioc_article(element)
        read.lines[document] = 0
        for annotation in element.iterfind("passage/annotation"):
            _read_annotation(annotation, document, read)
        for holder in (*element.findall("annotation"), *element.findall("relation")):
            infons = parse_infons(holder)
            if infons.get("relation") == RELATION:
                read.relations.append(_relation(document, infons.get("Chemical"), infons.get("Disease")))
            else:
                read.ignored["other_type"] += 1
        read.ignored["in_sentence_or_passage"] += len(element.findall("passage/sentence//annotation"))
        read.ignored["in_sentence_or_passage"] += len(element.findall("passage//relation"))
    if not read.lines:
        raise InputError(f"{path}: BioC without a <document>")
    return read


def _bioc_article(element: Element) -> str:
    """The passages' texts, each at its offset."""
    article = ""
    for passage in element.findall("passage"):
        offset = max(_integer(passage.findtext("offset", "0").strip()) or 0, 0)
        article = article.ljust(min(offset, len(article) + 1000))[:offset] + passage.findtext("text", "")
    return article


def _read_annotation(element: Element, document: str, read: Annotations) -> None:
    annotation = parse_annotation(element)
    infons, kind = annotation.infons, annotation.infons.get("type", "")
    places = [(_integer(offset), _integer(length)) for offset, length in annotation.locations]
    if kind not in TYPES:
        read.ignored["other_type"] += 1
    elif not places or any(None in place for place in places):
        read.ignored["bad_offset"] += 1
    else:
        start, length = places[0]
        end = start + length
        # the official program knows two roles, and takes any other to be a part
        if infons.get("CompositeRole", "CompositeMention") != "CompositeMention":
            read.ignored["part_of_composite"] += 1
            start = end = None
        elif len(places) > 1:
            read.ignored["several_locations"] += 1
            start = end = None
        concepts = _concepts(infons.get("MESH", infons.get("OMIM")), read.ignored)
        read.found.append(Found(document, kind, start, end, annotation.text, concepts))
