"""BioC XML corpora, read into documents: the same ones as from the corpus's PubTator file.

    <document><id>227508</id>
      <passage><infon key="type">title</infon><offset>0</offset><text>Naloxone reverses …</text>
        <annotation id="0"><infon key="type">Chemical</infon><infon key="MESH">D009270</infon>
          <location offset="0" length="8"/><text>Naloxone</text></annotation></passage>
      <relation id="R0"><infon key="relation">CID</infon><infon key="Chemical">D008750</infon> …

A composite name ("renal and hepatic failure") is one mention; its parts (`CompositeRole` is `IndividualMention`, some with
two locations) stand beside it, are no mentions, and have no line in PubTator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from data.files import read_text
from data.readers.checks import check_ids, check_mention, is_ours, name_relations, split_ids
from data.schema import Document, InputError, Mention

PART = "IndividualMention"


def parse_xml(text: str, path: str | Path, read_cdata: bool = True) -> Element:
    """The root of a BioC file, a `<collection>`. Raises InputError for broken XML, and for a DTD that declares entities.

    The corpus names `BioC.dtd`, which is allowed and never fetched; entities declared in the file itself are how XML
    is made to eat all memory or to read other files. Without `read_cdata`, what stands in CDATA sections is left out.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator=" ")

    def refuse(name: str, *_: object) -> None:
        raise InputError(f"{path}:{parser.CurrentLineNumber}: the XML holds the entity {name!r}, which is not allowed")

    def set_reading(reading: bool) -> None:
        parser.CharacterDataHandler = builder.data if reading else None

    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    if not read_cdata:
        parser.StartCdataSectionHandler = lambda: set_reading(False)
        parser.EndCdataSectionHandler = lambda: set_reading(True)
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise InputError(f"{path}:{error.lineno}: not BioC: broken XML: {expat.ErrorString(error.code)}") from None
    root = builder.close()
    if root.tag != "collection":
        raise InputError(f"{path}:1: not BioC: expected <collection>, got <{root.tag}>")
    return root


@dataclass(frozen=True)
class Annotation:
    """An `<annotation>` as it stands: its infons, its locations as (offset, length) and its text. Judges nothing."""

    infons: dict[str | None, str]
    locations: tuple[tuple[str, str], ...]
    text: str

    @property
    def is_part(self) -> bool:
        return self.infons.get("CompositeRole") == PART


def parse_annotation(element: Element) -> Annotation:
    locations = tuple((place.get("offset", ""), place.get("length", "")) for place in element.findall("location"))
    return Annotation(parse_infons(element), locations, element.findtext("text", ""))


def parse_infons(element: Element) -> dict[str | None, str]:
    return {infon.get("key"): "".join(infon.itertext()) for infon in element.findall("infon")}


def read_bioc(path: str | Path) -> list[Document]:
    """Raises InputError naming the file, and the line or the document, for broken XML, a bad offset or a duplicate id."""
    root = parse_xml(read_text(path), path)
    elements = root.findall("document")
    if not elements:
        raise InputError(f"{path}: BioC without a <document>")
    documents = [_read_document(element, path) for element in elements]
    return check_ids(documents, [f"{path}: document {document.id!r}" for document in documents])


def _read_document(element: Element, path: str | Path) -> Document:
    name = element.findtext("id", "").strip()
    where = f"{path}: document {name!r}"
    passages = element.findall("passage")
    if not name or not passages:
        raise InputError(f"{where}: a document needs an <id> and a <passage>")
    has_title = parse_infons(passages[0]).get("type") == "title"
    texts = [passage.findtext("text", "") for passage in passages]
    title = texts[0] if has_title and texts[0] else None
    bare = Document(name, "\n".join(texts[has_title:]), title)
    mentions, begin = [], 0 if title or not has_title else -1
    for passage, text in zip(passages, texts, strict=True):
        mentions += _read_passage(passage, bare.article, begin, where)
        begin += len(text) + 1
    pairs = [pair for relation in element.findall("relation") for pair in _read_pair(relation, where)]
    return Document(name, bare.text, title, tuple(mentions), name_relations(pairs, mentions))


def _read_passage(passage: Element, article: str, begin: int, where: str) -> Iterator[Mention]:
    """The passage's mentions; `begin` is where the passage begins in the article."""
    offset = _number(passage.findtext("offset", "0"), where)
    for annotation in map(parse_annotation, passage.iter("annotation")):
        if annotation.is_part or not is_ours(annotation.infons.get("type", ""), where):
            continue
        if len(annotation.locations) != 1:
            raise InputError(f"{where}: {annotation.text!r} has {len(annotation.locations)} locations, a mention has one")
        start, length = (_number(field, where) for field in annotation.locations[0])
        start += begin - offset
        ids = split_ids(annotation.infons.get("MESH", annotation.infons.get("OMIM", "")))
        yield check_mention(Mention(annotation.text, annotation.infons["type"], start, start + length, ids), article, where)


def _number(field: str, where: str) -> int:
    try:
        return int(field)
    except ValueError:
        raise InputError(f"{where}: {field!r} is not a number, expected an offset or length") from None


def _read_pair(relation: Element, where: str) -> list[tuple[str, str, str]]:
    infons = parse_infons(relation)
    ids = [split_ids(infons.get(kind, "")) for kind in ("Chemical", "Disease")]
    if infons.get("relation") != "CID" or [len(part) for part in ids] != [1, 1]:
        raise InputError(f"{where}: relation {relation.get('id')!r} is no CID between one Chemical and one Disease id")
    return [(ids[0][0], ids[1][0], where)]
