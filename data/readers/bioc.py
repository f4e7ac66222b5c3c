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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from data.files import read_pieces
from data.readers.checks import check_ids, check_mention, is_ours, name_relations, parse_offset, split_ids
from data.schema import Document, InputError, Mention, quote

PART = "IndividualMention"
MOST_DEEP = 100  # BioC needs seven


def parse_documents(pieces: Iterable[str], path: str | Path, read_cdata: bool = True) -> Iterator[Element]:
    """Each `<document>` of a BioC file as it is read, one in memory at a time. `pieces` make up the file's text.

    Raises InputError for broken XML, for a root that is no `<collection>`, and for a DTD that declares entities: the corpus
    names `BioC.dtd`, which is allowed and never fetched; entities declared in the file itself are how XML is made to eat all
    memory or to read other files. Without `read_cdata`, what stands in CDATA sections is left out.
    """
    collected = _Collected(path)
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(name: str, *_: object) -> None:
        raise InputError(f"{path}:{parser.CurrentLineNumber}: the XML contains the entity {quote(name)}, which is not allowed")

    def set_reading(reading: bool) -> None:
        parser.CharacterDataHandler = collected.data if reading else None

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = collected.start, collected.end
    parser.CharacterDataHandler = collected.data
    if not read_cdata:
        parser.StartCdataSectionHandler = lambda: set_reading(False)
        parser.EndCdataSectionHandler = lambda: set_reading(True)
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    try:
        for piece in pieces:
            parser.Parse(piece, False)
            yield from collected.take()
        parser.Parse("", True)
    except expat.ExpatError as error:
        raise InputError(f"{path}:{error.lineno}: not BioC: broken XML: {expat.ErrorString(error.code)}") from None
    yield from collected.take()


class _Collected:
    """The handlers of the XML parser: whole `<document>` elements under `<collection>`, until they are taken."""

    def __init__(self, path: str | Path):
        self.path, self.depth, self.done = path, 0, list[Element]()
        self.builder: TreeBuilder | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.depth == 0 and tag != "collection":
            raise InputError(f"{self.path}:1: not BioC: expected <collection>, got <{quote(tag)[1:-1]}>")
        if self.depth == 1 and tag == "document":
            self.builder = TreeBuilder()
        self.depth += 1
        if self.depth > MOST_DEEP:
            raise InputError(f"{self.path}: not BioC: elements nested more than {MOST_DEEP} deep")
        if self.builder:
            self.builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        self.depth -= 1
        if self.builder:
            self.builder.end(tag)
            if self.depth == 1:
                self.done.append(self.builder.close())
                self.builder = None

    def data(self, text: str) -> None:
        if self.builder:
            self.builder.data(text)

    def take(self) -> list[Element]:
        taken, self.done = self.done, []
        return taken


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
    """An <annotation> as it stands, nothing checked."""
    locations = tuple((place.get("offset", ""), place.get("length", "")) for place in element.findall("location"))
    return Annotation(parse_infons(element), locations, element.findtext("text", ""))


def parse_infons(element: Element) -> dict[str | None, str]:
    """The text of each <infon> by its key; None is the key of one without."""
    return {infon.get("key"): "".join(infon.itertext()) for infon in element.findall("infon")}


def read_bioc(path: str | Path) -> list[Document]:
    """The documents of a BioC XML file.

    Raises InputError naming the file, and the line or the document, for broken XML, a bad offset or a duplicate id.
    """
    return check_ids(stream_bioc(path))


def stream_bioc(path: str | Path) -> Iterator[tuple[Document, str]]:
    """Each document with its place, one in memory at a time. Raises as `read_bioc`, but for duplicate ids."""
    found = False
    for element in parse_documents(read_pieces(path), path):
        document, found = _read_document(element, path), True
        yield document, f"{path}: document {quote(document.id)}"
    if not found:
        raise InputError(f"{path}: BioC without a <document>")


def _read_document(element: Element, path: str | Path) -> Document:
    name = element.findtext("id", "").strip()
    where = f"{path}: document {quote(name)}"
    passages = element.findall("passage")
    if not name or not passages:
        raise InputError(f"{where}: a document needs an <id> and a <passage>")
    has_title = parse_infons(passages[0]).get("type") == "title"
    texts = [passage.findtext("text", "") for passage in passages]
    title = texts[0] if has_title and texts[0] else None
    bare = Document(name, "\n".join(texts[has_title:]), title)
    mentions: list[Mention] = []
    begin = 0 if title or not has_title else -1
    for passage, text in zip(passages, texts, strict=True):
        mentions += _read_passage(passage, bare.article, begin, where)
        begin += len(text) + 1
    pairs = [pair for relation in element.findall("relation") for pair in _read_pair(relation, where)]
    return Document(name, bare.text, title, tuple(mentions), name_relations(pairs, mentions))


def _read_passage(passage: Element, article: str, begin: int, where: str) -> Iterator[Mention]:
    """The passage's mentions; `begin` is where the passage begins in the article."""
    offset = parse_offset(passage.findtext("offset", "0"), where)
    for annotation in map(parse_annotation, passage.iter("annotation")):
        kind = annotation.infons.get("type", "")
        if annotation.is_part or not is_ours(kind, where):
            continue
        if len(annotation.locations) != 1:
            raise InputError(f"{where}: {quote(annotation.text)} has {len(annotation.locations)} locations, a mention has one")
        start, length = (parse_offset(field, where) for field in annotation.locations[0])
        start += begin - offset
        ids = split_ids(annotation.infons.get("MESH", annotation.infons.get("OMIM", "")))
        yield check_mention(Mention(annotation.text, kind, start, start + length, ids), article, where)


def _read_pair(relation: Element, where: str) -> list[tuple[str, str, str]]:
    infons = parse_infons(relation)
    ids = [split_ids(infons.get(kind, "")) for kind in ("Chemical", "Disease")]
    if infons.get("relation") != "CID" or [len(part) for part in ids] != [1, 1]:
        raise InputError(f"{where}: relation {quote(relation.get('id'))} is no CID between one Chemical and one Disease id")
    return [(ids[0][0], ids[1][0], where)]
