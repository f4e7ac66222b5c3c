"""`medner extract`: texts -> what the model finds there, on the terminal or in a file that an interrupted job goes on with.

Results are kept as they come, a line a document, in OUT (JSONL) or beside it in OUT.partial.jsonl (any other format, which is
written when all is done). The same command skips what stands there already, so no document is twice there and none is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from data.files import write_text
from data.schema import Document, InputError
from eval.grounding.repeats import describe_grounding
from pipeline.extract.extractor import Extractor
from pipeline.extract.formats import FORMATS, render_text, write_format
from pipeline.extract.on_ray import Cluster, count_done, extract_on_ray, require_cluster
from pipeline.extract.open_model import adapter_of, check_reading, find_asked, find_known, find_model, load_extractor
from pipeline.extract.results import Extraction, from_json, to_json
from pipeline.extract.texts import read_texts
from pipeline.variant import ADDRESS
from pipeline.weights import hash_file

COUNTED = ("documents", "kept from before", "windows", "entities", "relations", "faulty answers")
ENDINGS = {
    ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pubtator": "pubtator", ".xml": "bioc-xml", ".json": "bioc-json",
    ".spacy": "spacy", ".txt": "text",
}  # fmt: skip


def choose_format(out: Path, kind: str | None) -> str:
    """The format asked for, or the one that OUT's ending names."""
    if kind is None and out.suffix not in ENDINGS:
        raise InputError(
            f"--out {out}: say the format with --to ({', '.join(FORMATS)}), or by the ending ({', '.join(ENDINGS)})"
        )
    return kind or ENDINGS[out.suffix]


def extract_to_file(
    extractor: Extractor, texts: Iterator[Document], out: Path, kind: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Extract into OUT, going on with what an earlier, interrupted call of the same job left. Returns counts.

    `facts`: what decides the answers (model, settings); a job begun with others is refused, as is an OUT that is finished.
    """
    job = start_job(out, facts)
    rows = out if kind == "jsonl" else out.with_name(out.name + ".partial.jsonl")
    counts = add_rows(extractor, texts, rows)
    if kind != "jsonl":
        write_format(kind, (extraction for _, extraction in read_extractions(rows)), out)
        rows.unlink()
    job.unlink()
    return counts


def add_rows(extractor: Extractor, texts: Iterator[Document], rows: Path) -> dict[str, int]:
    """Extract the texts that `rows` does not hold yet, and add a JSON line for each as it comes. Returns counts."""
    done, counts = read_done(rows), dict.fromkeys(COUNTED, 0)
    with rows.open("a", encoding="utf-8") as file:
        for extraction in extractor(skip_done(texts, done, rows, counts)):
            file.write(json.dumps(to_json(extraction), ensure_ascii=False) + "\n")
            file.flush()
            count(counts, extraction)
            show_progress(counts)
    return counts


def extract_by_ray(
    texts: Iterator[Document], model: str, settings: Mapping[str, Any], out: Path, kind: str, cluster: Cluster,
    facts: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The same by Ray Data, which goes on by its own checkpoint in OUT.ray/. Returns counts."""
    require_cluster(cluster.address)
    check_reading(settings["min_confidence"], settings["window"], settings["overlap"])  # here, not in a worker far away
    if not model.startswith(ADDRESS):
        find_asked(model, find_model(model), settings["like"], settings["layout"], settings["max_new_tokens"])
    job = start_job(out, facts)
    folder, rows = (out.with_name(out.name + ending).resolve() for ending in (".ray", ".partial.jsonl"))
    counts = dict.fromkeys(COUNTED, 0) | {"kept from before": count_done(folder)}
    with rows.open("w", encoding="utf-8") as file:
        for row in extract_on_ray(texts, model, settings, folder, cluster):
            file.write(row + "\n")
            count(counts, from_json(json.loads(row), str(folder)))
    if kind == "jsonl":
        rows.replace(out)
    else:
        write_format(kind, (extraction for _, extraction in read_extractions(rows)), out)
        rows.unlink()
    shutil.rmtree(folder)
    job.unlink()
    return counts


def start_job(out: Path, facts: Mapping[str, Any]) -> Path:
    """OUT.job.json, which records what the job was begun with. Raises InputError where that, or what is in OUT, is another."""
    job = out.with_name(out.name + ".job.json")
    if out.exists() and not job.exists():
        raise InputError(f"{out}: exists already; nothing was written")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not job.exists():
        write_text(job, json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        return job
    before, now = json.loads(job.read_text(encoding="utf-8")), json.loads(json.dumps(facts))
    other = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]  # an option that came since: null
    if other:
        raise InputError(
            f"{job}: this output was begun with another {', '.join(other)}; give another --out, or delete it and its rows"
        )
    return job


def read_done(rows: Path) -> dict[str, str]:
    """Digest of the text by document id, of the rows that are there; a half-written last line is cut off."""
    if not rows.exists():
        return {}
    written = rows.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with rows.open("r+b") as file:
            file.truncate(whole)
    return {extraction.id: digest(extraction.text) for _, extraction in read_extractions(rows)}


def read_extractions(rows: Path) -> Iterator[tuple[int, Extraction]]:
    """(line number, extraction) of each row of an unfinished job's file. Raises InputError for a broken line."""
    with rows.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = {}
            yield number, from_json(row, f"{rows}:{number}")


def digest(text: str) -> str:
    """sha256 of a text in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def skip_done(texts: Iterator[Document], done: Mapping[str, str], rows: Path, counts: dict[str, int]) -> Iterator[Document]:
    """The texts that have no row yet. Raises InputError where a document's text is another than when its row was written."""
    for document in texts:
        if document.id not in done:
            yield document
        elif done[document.id] != digest(document.article):
            raise InputError(f"{rows}: document {document.id!r} was read with another text; give another --out")
        else:
            counts["documents"] += 1
            counts["kept from before"] += 1


def count(counts: dict[str, int], extraction: Extraction) -> None:
    """Adds an extraction to `counts`, by what is counted."""
    counts["documents"] += 1
    counts["windows"] += extraction.windows
    counts["entities"] += len(extraction.entities)
    counts["relations"] += len(extraction.relations)
    counts["faulty answers"] += len(extraction.faults)


def show_progress(counts: Mapping[str, int]) -> None:
    """Rewrites one line on a terminal; nothing in a log."""
    if sys.stderr.isatty():
        print(f"\r{counts['documents']} documents, {counts['entities']} entities ", end="", file=sys.stderr, flush=True)


def describe_counts(out: Path, counts: Mapping[str, int]) -> str:
    """"found.jsonl: 12 documents, 80 entities"; what is zero is left out."""
    return f"{out}: " + ", ".join(f"{number} {name}" for name, number in counts.items() if number or name == "documents")


def extract_sources(
    sources: Sequence[str],
    model: str,
    *,
    pmids: Sequence[str],
    out: Path | None,
    kind: str | None,
    explain: bool,
    cluster: Cluster | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], str, int]:
    """The command: its JSON object, its text for a terminal, its exit code. `settings`: those of `load_extractor`."""
    if settings["keep_unwritten"] and settings["grounded"]:
        raise InputError("--keep-unwritten: only with --plain; grounded answers have no name that is not in the text")
    if not sources and not pmids:
        raise InputError("nothing to read: give a text, files, folders, - for standard input, or --pmid")
    if cluster and not out:
        raise InputError("--ray: give --out, the file that the workers' results are gathered in")
    if out and explain:
        raise InputError("--explain: only for what is printed; JSONL has every place, sentence and what was left out")
    kind = choose_format(out, kind) if out else None
    texts = read_texts(sources, sys.stdin, pmids)
    first = next(texts)  # a path that is not there is told before a model is loaded
    every = chain([first], texts)
    weights = identify(model) | ({"lora": identify(settings["lora"])} if settings["lora"] else {})
    facts = {"model": weights, "sources": [*sources, *pmids], "format": kind, **settings}
    facts |= describe_grounding(settings["grounded"])
    if settings["known_names"]:
        facts["known_names_sha256"] = hash_file(find_known(settings["known_names"]))
    if cluster:
        counts = extract_by_ray(every, model, settings, out, kind, cluster, facts | {"way": "ray"})
        return {"file": str(out), **counts}, describe_counts(out, counts), 0
    extractor = load_extractor(model, **settings)
    if out is None:
        found = list(extractor(every))
        return {"documents": [to_json(one) for one in found]}, "\n\n".join(render_text(one, explain) for one in found), 0
    counts = extract_to_file(extractor, every, out, kind, facts)
    return {"file": str(out), **counts}, describe_counts(out, counts), 0


def identify(model: str) -> dict[str, Any]:
    """What tells this model from another of the same name: its weights' digest, where they are here."""
    path = Path(model).expanduser()
    if not path.exists():
        return {"name": model}
    weights = [path] if path.is_file() else sorted(adapter_of(path).glob("*.safetensors"))
    return {"name": model} | {file.name: hash_file(file) for file in weights}
