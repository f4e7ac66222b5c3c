"""Extractions as the files that other tools read: text, JSONL, CSV, Parquet, PubTator, BioC, brat, Label Studio, spaCy.

Offsets are those of the original text in every format; a name that stands in the text several times is written at each place.
Names that stand nowhere have no place, and so are only in text, JSONL, CSV and Parquet. BioC, Label Studio and spaCy are made
in memory as a whole; the other formats take one document at a time.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data.files import write_jsonl as write_rows
from data.files import write_text, writing
from data.readers.pubtator import write_pubtator
from data.schema import Document, InputError, Mention
from pipeline.extract.results import Extraction, related_ids, to_json

COLUMNS = ("document", "kind", "type", "name", "start", "end", "chemical", "disease", "confidence", "known_name", "sentence")
ROW_GROUP = 50_000  # rows of Parquet that are in memory at a time
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
RELATION = "CID"  # chemical-induced disease, as BioCreative V names it


def write_format(kind: str, extractions: Iterable[Extraction], target: Path) -> None:
    """Write them all as `kind` (a key of FORMATS) to the file `target`; for brat, to the folder of that name."""
    FORMATS[kind](extractions, target)


def render_text(extraction: Extraction, explain: bool = False) -> str:
    """An extraction for a terminal; control characters of its text are shown as spaces."""
    lines = [f"{extraction.id}" + (f" (read in {extraction.windows} windows)" if extraction.windows > 1 else "")]
    for heading, entities in (("chemicals", extraction.chemicals), ("diseases", extraction.diseases)):
        lines.append(f"  {heading}")
        for entity in entities:
            lines.append(f"    {entity.name}{_sure(entity.confidence)}{'  (known name)' * entity.known_name}")
            if explain:
                places = ", ".join(f"{start}-{end}" for start, end in entity.spans) or "nowhere"
                lines.append(f"      stands at {places}" + (f": {entity.sentence}" if entity.sentence else ""))
        lines += ["    –"] * (not entities)
    lines.append("  relations (the chemical causes or worsens the disease)")
    lines += [f"    {relation.chemical} -> {relation.disease}{_sure(relation.confidence)}" for relation in extraction.relations]
    lines += ["    –"] * (not extraction.relations)
    lines += [f"  the answer for {task} was {fault}: some may be missing" for task, fault in extraction.faults.items()]
    if explain and extraction.dropped:
        lines.append("  left out: " + ", ".join(f"{count} {reason}" for reason, count in extraction.dropped.items()))
    return "\n".join(CONTROL.sub(" ", line) for line in lines)


def _sure(confidence: float | None) -> str:
    return "" if confidence is None else f"  {confidence:.2f}"


def write_jsonl(extractions: Iterable[Extraction], target: Path) -> None:
    """One JSON object a document, as `to_json` makes it."""
    write_rows(target, map(to_json, extractions))


def write_readable(extractions: Iterable[Extraction], target: Path) -> None:
    """What `render_text` shows of each document."""
    with writing(target) as file:
        for number, one in enumerate(extractions):
            file.write("\n" * (number > 0) + render_text(one) + "\n")


def table_rows(extraction: Extraction) -> Iterator[dict[str, Any]]:
    """A row for each place of each entity (one without a place for a name that has none), and for each relation."""
    for entity in extraction.entities:
        for start, end in entity.spans or [(None, None)]:
            own = {"kind": "entity", "type": entity.type, "name": entity.name, "start": start, "end": end}
            found = {"confidence": entity.confidence, "known_name": entity.known_name, "sentence": entity.sentence}
            yield {"document": extraction.id, **own, **found}
    for relation in extraction.relations:
        yield {"document": extraction.id, "kind": "relation", "type": RELATION, "chemical": relation.chemical,
               "disease": relation.disease, "confidence": relation.confidence}  # fmt: skip


def write_csv(extractions: Iterable[Extraction], target: Path) -> None:
    """A table. A cell that a spreadsheet would run as a formula gets an apostrophe before it."""
    with writing(target) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for extraction in extractions:
            for row in table_rows(extraction):
                writer.writerow({column: _plain_cell(value) for column, value in row.items()})


def _plain_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_parquet(extractions: Iterable[Extraction], target: Path) -> None:
    """One row an entity or relation, in `COLUMNS`; needs pyarrow."""
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.int64()
    kinds = {"start": number, "end": number, "confidence": pyarrow.float64(), "known_name": pyarrow.bool_()}
    schema = pyarrow.schema([(column, kinds.get(column, text)) for column in COLUMNS])
    rows = (row for extraction in extractions for row in table_rows(extraction))
    partial = target.with_name(target.name + ".partial")
    with parquet.ParquetWriter(partial, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
    partial.replace(target)


def write_pubtator_file(extractions: Iterable[Extraction], target: Path) -> None:
    """Mentions with offsets and no concept ids. Known names have no mark; relations, which are between ids there, no line."""
    write_pubtator(map(document_of, extractions), target)


def document_of(one: Extraction) -> Document:
    """The document with a mention at each place of each entity."""
    body = one.text[len(one.title) + 1 :] if one.title else one.text
    mentions = sorted((start, end, entity.type) for entity in one.entities for start, end in entity.spans)
    named = tuple(Mention(one.text[start:end], kind, start, end) for start, end, kind in mentions)
    return Document(one.id, body, one.title, named)


def bioc_collection(extractions: Iterable[Extraction]) -> Any:
    """A BioC collection: one passage a document, an annotation with all its places an entity, a relation with its two sides."""
    bioc = _library("bioc")
    collection = bioc.BioCCollection()
    collection.source = "medner"
    for one in extractions:
        document, passage = bioc.BioCDocument(), bioc.BioCPassage()
        document.id, passage.offset, passage.text = one.id, 0, one.text
        for number, entity in enumerate(one.entities):
            if entity.spans:
                annotation = bioc.BioCAnnotation()
                annotation.id, annotation.text = f"T{number + 1}", one.text[slice(*entity.spans[0])]
                annotation.infons |= {"type": entity.type} | ({"known_name": "true"} if entity.known_name else {})
                for start, end in entity.spans:
                    annotation.add_location(bioc.BioCLocation(start, end - start))
                passage.add_annotation(annotation)
        for number, (chemical, disease, _) in enumerate(_written_pairs(one)):
            relation = bioc.BioCRelation()
            relation.id = f"R{number + 1}"
            relation.infons["type"] = RELATION
            relation.add_node(bioc.BioCNode(f"T{chemical + 1}", "Chemical"))
            relation.add_node(bioc.BioCNode(f"T{disease + 1}", "Disease"))
            passage.add_relation(relation)
        document.add_passage(passage)
        collection.add_document(document)
    return collection


def write_bioc_xml(extractions: Iterable[Extraction], target: Path) -> None:
    """A BioC collection as XML; needs the package bioc."""
    from bioc import biocxml

    write_text(target, biocxml.dumps(bioc_collection(extractions)))


def write_bioc_json(extractions: Iterable[Extraction], target: Path) -> None:
    """A BioC collection as JSON; needs the package bioc."""
    from bioc import biocjson

    write_text(target, biocjson.dumps(bioc_collection(extractions), indent=1))


def write_brat(extractions: Iterable[Extraction], target: Path) -> None:
    """A folder with a .txt and an .ann file a document. Each place is an annotation, since brat's are of one place."""
    target.mkdir(parents=True, exist_ok=True)
    for one in extractions:
        lines, first = [], {}
        for index, entity in enumerate(one.entities):
            for start, end in entity.spans:
                first.setdefault(index, len(lines) + 1)
                surface = one.text[start:end].replace("\n", " ")
                lines.append(f"T{len(lines) + 1}\t{entity.type} {start} {end}\t{surface}")
        known = [number for index, number in first.items() if one.entities[index].known_name]
        lines += [f"#{count}\tAnnotatorNotes T{number}\tknown name" for count, number in enumerate(known, 1)]
        for number, (chemical, disease, _) in enumerate(_written_pairs(one)):
            lines.append(f"R{number + 1}\t{RELATION} Arg1:T{first[chemical]} Arg2:T{first[disease]}\t")
        write_text(target / f"{file_name(one.id)}.txt", one.text)
        write_text(target / f"{file_name(one.id)}.ann", "".join(line + "\n" for line in lines))


def file_name(identity: str) -> str:
    """A document's id as a file name that cannot leave its folder; ids that are changed get a digest, so that none collide."""
    safe = re.sub(r"[^\w-]+", "_", identity)[:80]
    return safe if safe == identity else f"{safe}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def write_label_studio(extractions: Iterable[Extraction], target: Path) -> None:
    """Tasks with a prediction each, for a labelling configuration with <Labels name="label" toName="text">."""
    tasks = []
    for one in extractions:
        result: list[dict[str, Any]] = []
        for index, entity in enumerate(one.entities):
            for number, (start, end) in enumerate(entity.spans):
                value = {"start": start, "end": end, "text": one.text[start:end], "labels": [entity.type]}
                region = {"id": f"{index}.{number}", "from_name": "label", "to_name": "text", "type": "labels", "value": value}
                region |= {} if entity.confidence is None else {"score": entity.confidence}
                result.append(region | ({"meta": {"text": ["known name"]}} if entity.known_name else {}))
        for chemical, disease, _ in _written_pairs(one):
            result.append(
                {
                    "type": "relation",
                    "from_id": f"{chemical}.0",
                    "to_id": f"{disease}.0",
                    "direction": "right",
                    "labels": [RELATION],
                }
            )  # noqa: E501
        tasks.append({"data": {"text": one.text, "id": one.id}, "predictions": [{"model_version": "medner", "result": result}]})
    write_text(target, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")


def write_spacy(extractions: Iterable[Extraction], target: Path) -> None:
    """A DocBin: entities in `doc.spans["entities"]` (they may overlap) and in `doc.ents` (the longest); more in `user_data`."""
    spacy = _library("spacy")
    language, docs = spacy.blank("en"), spacy.tokens.DocBin(store_user_data=True)
    for one in extractions:
        doc = language.make_doc(one.text)
        places = [(start, end, entity.type) for entity in one.entities for start, end in entity.spans]
        spans = [doc.char_span(start, end, label=kind, alignment_mode="expand") for start, end, kind in places]
        doc.spans["entities"] = [span for span in spans if span is not None]
        doc.ents = spacy.util.filter_spans(doc.spans["entities"])
        doc.user_data["id"] = one.id
        doc.user_data["entities"] = places  # exact to the character, where spaCy's tokens are wider
        doc.user_data["known_names"] = [entity.name for entity in one.entities if entity.known_name]
        doc.user_data["relations"] = [(relation.chemical, relation.disease) for relation in one.relations]
        docs.add(doc)
    partial = target.with_name(target.name + ".partial")
    docs.to_disk(partial)
    partial.replace(target)


def _written_pairs(extraction: Extraction) -> Iterable[tuple[int, int, object]]:
    """The relations whose two sides stand in the text as entities: what formats of places can express."""
    return (pair for pair in related_ids(extraction) if all(extraction.entities[side].spans for side in pair[:2]))


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"this format needs the package {name}: pip install 'medner[formats]'") from None


FORMATS: dict[str, Callable[[Iterable[Extraction], Path], None]] = {
    "text": write_readable, "jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet, "pubtator": write_pubtator_file,
    "bioc-xml": write_bioc_xml, "bioc-json": write_bioc_json, "brat": write_brat, "label-studio": write_label_studio,
    "spacy": write_spacy,
}  # fmt: skip
