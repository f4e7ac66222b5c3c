"""A corpus extracted, written in every format and read back by each format's own library, every place compared:

    python -m bench.extraction CORPUS --model MODEL [--limit N] [--out FOLDER]

CORPUS: any file that `medner extract` reads; where it holds gold, the PubTator file is scored by the official rules. What is
found goes to FOLDER as it comes; the same command goes on after an interruption. Adds the counts, and no text, to
bench/results/extraction-cpu.json, by model and corpus. Exit code 1 where a place is not exact or a file gives back something
else, 2 where CORPUS or MODEL cannot be read.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data.corpus import read_corpus
from data.files import write_json
from data.readers.pubtator import one_line, read_pubtator
from data.schema import Document, InputError
from data.text import fold, is_word_edge, normalise
from eval.official.biocreative import score_official
from eval.official.loose_reader import read_annotations
from pipeline.cli import describe_os_error
from pipeline.extract.command import add_rows, identify, read_extractions, start_job
from pipeline.extract.formats import file_name, write_format
from pipeline.extract.open_model import load_extractor
from pipeline.extract.results import Extraction, from_json
from pipeline.extract.texts import read_texts
from pipeline.weights import hash_file

RESULTS = Path(__file__).parent / "results" / "extraction-cpu.json"
Places = list[tuple[int, int, str]]  # start, end, type; sorted
Read = dict[str, tuple[str, Places]]  # by document: its text (PubTator's on one line), the places
ENDINGS = {"bioc-xml": "xml", "bioc-json": "json", "label-studio": "tasks.json"}


def read_jsonl_back(path: Path, _: object) -> Read:
    with path.open(encoding="utf-8") as file:  # not splitlines: a text may hold a line separator of Unicode's
        rows = [from_json(json.loads(line), str(path)) for line in file]
    return {one.id: (one.text, places_of(one)) for one in rows}


def read_rows_back(rows: Iterable[dict[str, Any]], texts: dict[str, str]) -> Read:
    found: dict[str, Places] = {name: [] for name in texts}
    for row in rows:
        if row["kind"] == "entity" and row["start"] not in ("", None):
            found[row["document"]].append((int(row["start"]), int(row["end"]), row["type"]))
    return {name: (texts[name], sorted(places)) for name, places in found.items()}


def read_csv_back(path: Path, texts: dict[str, str]) -> Read:
    return read_rows_back(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")), texts)


def read_parquet_back(path: Path, texts: dict[str, str]) -> Read:
    from pyarrow.parquet import read_table

    return read_rows_back(read_table(path).to_pylist(), texts)


def read_pubtator_back(path: Path, _: object) -> Read:
    documents = read_pubtator(path)
    read = {
        one.id: (one_line(one.article), sorted((m.start or 0, m.end or 0, m.type) for m in one.mentions)) for one in documents
    }
    official = read_annotations(path)
    counted = sorted((one.document, one.type) for one in official.found)
    if counted != sorted((name, kind) for name, (_, places) in read.items() for _, _, kind in places):
        raise InputError(f"{path}: the official rules read other mentions than our reader")
    return read


def read_bioc_back(path: Path, kind: str) -> Read:
    from bioc import biocjson, biocxml

    with path.open(encoding="utf-8", newline="") as file:
        collection = {"bioc-xml": biocxml, "bioc-json": biocjson}[kind].load(file)
    read = {}
    for document in collection.documents:
        (passage,) = document.passages
        places = [(at.offset, at.offset + at.length, one.infons["type"]) for one in passage.annotations for at in one.locations]
        read[document.id] = passage.text, sorted(places)
    return read


def read_brat_back(path: Path, texts: dict[str, str]) -> Read:
    read = {}
    for name in texts:
        with (path / f"{file_name(name)}.txt").open(encoding="utf-8", newline="") as file:
            text = file.read()
        notes = (path / f"{file_name(name)}.ann").read_text(encoding="utf-8").split("\n")
        places = [line.split("\t")[1].split(" ") for line in notes if line.startswith("T")]
        read[name] = text, sorted((int(start), int(end), kind) for kind, start, end in places)
    return read


def read_label_studio_back(path: Path, _: object) -> Read:
    read = {}
    for task in json.loads(path.read_text(encoding="utf-8")):
        regions = [one["value"] for one in task["predictions"][0]["result"] if one["type"] == "labels"]
        places = [(one["start"], one["end"], one["labels"][0]) for one in regions]
        read[task["data"]["id"]] = task["data"]["text"], sorted(places)
    return read


def read_spacy_back(path: Path, _: object) -> Read:
    import spacy

    docs = spacy.tokens.DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)
    return {doc.user_data["id"]: (doc.text, sorted(tuple(place) for place in doc.user_data["entities"])) for doc in docs}


READERS: dict[str, Callable[[Path, Any], Read]] = {
    "jsonl": read_jsonl_back, "csv": read_csv_back, "parquet": read_parquet_back, "pubtator": read_pubtator_back,
    "bioc-xml": lambda path, _: read_bioc_back(path, "bioc-xml"),
    "bioc-json": lambda path, _: read_bioc_back(path, "bioc-json"),
    "brat": read_brat_back, "label-studio": read_label_studio_back, "spacy": read_spacy_back,
}  # fmt: skip


def places_of(one: Extraction) -> Places:
    return sorted((start, end, entity.type) for entity in one.entities for start, end in entity.spans)


def inexact_places(extractions: Sequence[Extraction]) -> Iterator[str]:
    """Each place that does not hold its name as a whole word of the text."""
    for one in extractions:
        for entity in one.entities:
            for start, end in entity.spans:
                written = one.text[start:end]
                same = normalise(written) == normalise(entity.name) or fold(written) == fold(entity.name)
                if not (same and is_word_edge(one.text, start) and is_word_edge(one.text, end)):
                    yield f"document {one.id}: {start}-{end} is {written!r}, not {entity.name!r}"


def changed_by(kind: str, extractions: Sequence[Extraction], folder: Path) -> list[str]:
    """Write the format, read it back by its own library, and name each document whose text or places are others."""
    path = folder / f"found.{ENDINGS.get(kind, kind)}"
    write_format(kind, extractions, path)
    texts = {one.id: one.text for one in extractions}
    read = READERS[kind](path, texts)
    shown = one_line if kind == "pubtator" else str
    wanted = {one.id: (shown(one.text), places_of(one)) for one in extractions}
    return [f"{kind}: document {name}" for name in wanted if read.get(name) != wanted[name]] + [
        f"{kind}: document {name} was not written" for name in read.keys() - wanted.keys()
    ]


def check(extractions: Sequence[Extraction], folder: Path) -> dict[str, Any]:
    """{"inexact": [...], "changed": [...], "places", …}: what is wrong with places and with each format's file."""
    return {
        "documents": len(extractions),
        "entities": sum(len(one.entities) for one in extractions),
        "places": sum(len(places_of(one)) for one in extractions),
        "relations": sum(len(one.relations) for one in extractions),
        "inexact": list(inexact_places(extractions)),
        "changed": [what for kind in READERS for what in changed_by(kind, extractions, folder)],
    }


def score(corpus: Path, extractions: Sequence[Extraction], folder: Path, model: str) -> dict[str, Any] | None:
    """Official mention scores against the corpus's own gold, on the documents extracted; None where it holds no mentions.

    "learnt_from": how many of the documents, or near duplicates of them, a run was trained on; None where nothing says so.
    """
    from data.readers.pubtator import write_pubtator
    from pipeline.evaluate_model import find_learnt, learnt_by

    try:
        gold = {document.id: document for document in read_corpus(corpus).documents}
    except InputError:
        return None
    documents = [gold[one.id] for one in extractions if one.id in gold]
    if not any(mention.start is not None for document in documents for mention in document.mentions):
        return None
    write_pubtator(documents, folder / "gold.pubtator")
    figures = score_official(folder / "gold.pubtator", folder / "found.pubtator")
    learnt = learnt_by(Path(model))
    seen = len(find_learnt(learnt, documents)) if learnt else None
    return {"mention": figures["mention"], "text_differs": figures["warnings"]["text_differs"], "learnt_from": seen}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.extraction", description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, help="a folder for the rows and the files; by default one in runs/extraction")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.out = options.out or Path("runs", "extraction", file_name(key_of(options)))
    try:
        return measure(options)
    except (InputError, OSError) as error:
        error = describe_os_error(error) if isinstance(error, OSError) else error
        print(f"bench.extraction: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench.extraction: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 1


def key_of(options: argparse.Namespace) -> str:
    first = f", the first {options.limit} documents" if options.limit else ""
    return f"{Path(options.model).name} on {options.corpus.name}{first}"


def measure(options: argparse.Namespace) -> int:
    if not options.corpus.is_file():
        raise InputError(f"{options.corpus}: no such file")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected 1 or more")
    texts = list(islice(read_texts([str(options.corpus)], sys.stdin), options.limit))
    extractor = load_extractor(options.model)
    rows = options.out / "rows.jsonl"
    start_job(rows, {"model": identify(options.model), "corpus": hash_file(options.corpus), "limit": options.limit})
    started = time.perf_counter()
    counts = add_rows(extractor, told(texts), rows)
    timed = {"documents": len(texts) - counts["kept from before"], "seconds": round(time.perf_counter() - started, 1)}
    if timed["documents"]:
        keep(options, {"timed": timed})  # before what may yet fail: it cannot be measured again
    extractions = [one for _, one in read_extractions(rows)]
    found = check(extractions, options.out)
    official = score(options.corpus, extractions, options.out, options.model)
    exact = [one.text for one in extractions] == [document.article for document in texts] and not found["inexact"]
    kept = keep(options, found | {"exact": exact, "official": official})
    report(found, official, kept.get("timed"))
    return int(not exact or bool(found["changed"]) or bool(official and official["text_differs"]))


def told(texts: Sequence[Document]) -> Iterator[Document]:
    """The texts, and twice a minute how many of them were taken, in a line that a log keeps."""
    last = time.monotonic()
    for number, document in enumerate(texts):
        if time.monotonic() - last > 30:
            print(f"{number} of {len(texts)} documents begun", file=sys.stderr, flush=True)
            last = time.monotonic()
        yield document


def report(found: dict[str, Any], official: dict[str, Any] | None, timed: dict[str, Any] | None) -> None:
    time_taken = f", {timed['documents']} of them in {timed['seconds']:.0f} s" if timed else ""
    print(
        f"{found['documents']} documents{time_taken}: {found['entities']} entities at {found['places']} places, "
        f"{found['relations']} relations; {len(found['inexact'])} places are not exact"
    )
    print(f"formats read back: {', '.join(READERS)}; {len(found['changed'])} documents differ")
    for line in (found["inexact"] + found["changed"])[:20]:
        print(f"  {line}")
    if official:
        scores = ", ".join(f"{kind} {row['f1']:.4f}" for kind, row in official["mention"].items())
        print(f"official mention F1: {scores}; {official['text_differs']} names are not what gold's text has at their offsets")
        if official["learnt_from"]:
            print(f"{official['learnt_from']} of these documents were trained on: that F1 says nothing of other texts")


def keep(options: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """Add figures to this model's and corpus's own in the file of results; lists as their lengths. Returns all of them."""
    every = json.loads(options.results.read_text(encoding="utf-8")) if options.results.is_file() else {}
    figures = {name: len(value) if isinstance(value, list) else value for name, value in found.items()}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    libraries = {name: importlib.metadata.version(name) for name in ("bioc", "pyarrow", "spacy")}
    key = re.sub(r"\W+", "_", key_of(options))
    weights = {name: digest for name, digest in identify(options.model).items() if name != "name"}  # whose path says nothing
    own = every.get(key, {}) | figures | {"weights": weights, "device": machine, "versions": libraries}
    write_json(options.results, every | {key: own})
    return own


if __name__ == "__main__":
    sys.exit(main())
