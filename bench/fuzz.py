"""What readers and the answer parser do with broken files:  make fuzz

Small valid files are mutated, by a seed, and given to every reader: of corpora, of texts to extract from, and of what a run's
own folder has; mutated answers to the answer parser. A file is read, or refused by one InputError of one line that names it;
an answer is always parsed. Prints what became of the inputs of each kind and writes bench/results/fuzz-cpu.json; exit code 1
where anything else was raised.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from data.corpus import read_corpus
from data.files import write_json
from data.readers.bioc import read_bioc
from data.readers.pubtator import read_pubtator, render_document
from data.readers.rows import read_rows, render_rows
from data.schema import TASKS, Document, InputError, Mention, Relation, document_to_json
from data.split import read_split_folder
from eval.completions import PROVENANCE, read_provenance
from eval.official.loose_reader import read_annotations
from eval.official.other_systems import read_other_system
from eval.scoring.logprobs import read_completions
from eval.scoring.parse import parse_answer, parse_completions, read_predictions
from pipeline.config import apply_settings, read_settings_file
from pipeline.extract.command import read_done
from pipeline.extract.results import Extraction, to_json
from pipeline.extract.texts import read_texts
from pipeline.run_folder import read_manifest

RESULTS = Path(__file__).parent / "results" / "fuzz-cpu.json"
DOCUMENT = Document(
    "7",
    "Gout and rénal failure followed ZOL.",
    "Zol and gout",
    (Mention("Zol", "Chemical", 0, 3, ("C1",)), Mention("gout", "Disease", 8, 12, ("D1", "D2"))),
    (Relation("Zol", "gout", "C1", "D1"),),
)
ITEMS = {task: [list(item) if task == "relations" else item for item in DOCUMENT.gold(task)] for task in TASKS}
JSON_LINES = "".join(json.dumps({"document": "7", "task": task, "items": ITEMS[task], "status": "ok"}) + "\n" for task in TASKS)
COMPLETIONS = "".join(
    json.dumps({"document": "7", "task": task, "completion": "- Zol | gout\n- ", "finish": "length"}) + "\n" for task in TASKS
)
BIOC = """<?xml version="1.0"?><!DOCTYPE collection SYSTEM "BioC.dtd"><collection><document><id>7</id><passage>
<infon key="type">title</infon><offset>0</offset><text>Zol and gout</text><annotation><infon key="type">Chemical</infon>
<infon key="MESH">C1</infon><location offset="0" length="3"/><text>Zol</text></annotation><annotation><infon key="type">Disease
</infon><infon key="CompositeRole">IndividualMention</infon><infon key="MESH">D1</infon><location offset="8" length="4"/>
<text><![CDATA[gout]]></text></annotation></passage></document></collection>"""
CSV = 'document,task,item\n7,chemicals,"Zol"\n7,relations,Zol | gout\n7,diseases,\n'
TEXTS = {
    "texts.jsonl": '{"id": "7", "title": "Zol", "text": "Gout followed Zol."}\n{"text": "Renal failure."}\n',
    "texts.csv": 'id,title,text\n7,Zol,"Gout followed, Zol."\n8,,Renal failure.\n',
    "texts.json": '{"documents": [{"id": "7", "passages": [{"text": "Zol and gout"}, {"text": "Gout followed Zol."}]}]}',
    "texts.txt": "Gout and rénal failure followed ZOL.\n",
}
MANIFEST = json.dumps(
    {"format": 1, "medner": "0.1.0", "data": {"file": "a"}, "data_sha256": "0", "asked": {}, "stages": {"data": {}}}, indent=2
)
SETTINGS = "model:\n  name: tiny\ntrain:\n  learning_rate: 2e-4\n  layout: conversation\nexport:\n  gguf: [f16]\n"
EXTRACTED = json.dumps(to_json(Extraction("7", "Zol", None, (), (), 1, {}, {}))) + "\n"
ANSWER = '- Zol | gout\n- Chemical Zol influences disease gout\n- **lithium**\n1. gout\n```json\n["a"]\n```'
SEEDS: dict[str, tuple[str, ...]] = {
    "corpus": (render_rows([DOCUMENT]), render_document(DOCUMENT), BIOC),
    "rows": (render_rows([DOCUMENT]),),
    "pubtator": (render_document(DOCUMENT),),
    "bioc": (BIOC,),
    "official": (render_document(DOCUMENT), BIOC),
    "other systems": (JSON_LINES, COMPLETIONS, render_rows([DOCUMENT]), render_document(DOCUMENT), BIOC, CSV),
    "predictions": (JSON_LINES,),
    "documents": (json.dumps({"split": "train"} | document_to_json(DOCUMENT)) + "\n",),
    "completions": (COMPLETIONS,),
    "extracted": (EXTRACTED,),
    "manifest": (MANIFEST,),
    "provenance": ('{"engine": "transformers", "model": "tiny"}',),
    "settings": (SETTINGS,),
} | {name: (text,) for name, text in TEXTS.items()}
READERS: dict[str, Callable[[Path], object]] = {
    "corpus": read_corpus,
    "rows": read_rows,
    "pubtator": read_pubtator,
    "bioc": read_bioc,
    "official": read_annotations,
    "other systems": lambda path: read_other_system(path, [DOCUMENT]),
    "predictions": read_predictions,
    "documents": lambda path: read_split_folder(path.parent),
    "completions": lambda path: parse_completions(read_completions(path)),
    "extracted": read_done,
    "manifest": lambda path: read_manifest(path.parent),
    "provenance": lambda path: read_provenance(path.with_name("completions.jsonl")),
    "settings": lambda path: apply_settings(read_settings_file(path)),
} | {name: lambda path: list(read_texts([str(path)], sys.stdin)) for name in TEXTS}
NAMES = {"manifest": "manifest.json", "provenance": PROVENANCE, "settings": "config.yaml"} | {name: name for name in TEXTS}
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9", b"\r", b"\n\n", b"\t", b"|", b"|t|", b"|a|", b'"', b"[", b"{", b"}", b",",
    b"<", b"&a;", b"<!ENTITY a 'b'>", b"]]>", b"null", b"[1]", b"[[]]", b"{}", b"NaN", b"1e999", b"true", b"-1", b"9" * 5000,
    b"[" * 1500, b"<a>" * 200, b"\xc2\xad", b"\xe2\x80\xa8", b"\xc2\x85", b"\\ud800", b"\\u0000", b"\xf0\x9f\x98\x80",
    b"\xc7\xb0", b"- ", b"\x1f\x8b", b" " * 300, b"(" * 300, b"\xcc\x81\xcc\xa3" * 100, b"Chemical ", b"\x1b[31m",
)  # fmt: skip


def mutate(text: bytes, chance: random.Random) -> bytes:
    """One to four changes: bytes turned, taken away, doubled or moved, or something awkward put in."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice((0, 1, 1, 4, 30, 1000)))
        part, kind = text[at:end], chance.randrange(6)
        if kind < 2:
            part = chance.choice(TOKENS) + part * (kind == 0)
        elif kind == 2:
            part = b""
        elif kind == 3:
            part = part * 2
        elif kind == 4:
            part = bytes(chance.randrange(256) for _ in part[:4])
        else:
            part, at, end = b"", 0, at if chance.random() < 0.5 else len(text)
        text = text[:at] + part + text[end:]
    return text


def feed(kind: str, raw: bytes, path: Path) -> str:
    """What became of a file: "read", "refused", or the exception that should not have been."""
    path = path.with_name(NAMES.get(kind, path.name))
    path.write_bytes(raw)
    try:
        READERS[kind](path)
    except InputError as error:
        said = str(error)
        named = said.startswith((str(path), f"{path.parent}: ")) and "\n" not in said and len(said) < 1000 + len(str(path)) * 2
        return "refused" if named else f"refused without a place: {str(error)[:200]!r}"
    except Exception as error:  # whatever it is, it is the finding
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "read"


def feed_parser(raw: bytes, chance: random.Random) -> str:
    try:
        parse_answer(raw.decode("utf-8", "surrogateescape"), chance.choice(TASKS), chance.choice(("stop", "length")))
    except Exception as error:  # as above
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "read"


def fuzz(inputs: int, seed: int, folder: Path) -> tuple[dict[str, dict[str, int]], list[dict[str, str]]]:
    """The counts by kind of input and outcome, and the first inputs that raised something else, in hexadecimal."""
    chance, counts, found = random.Random(seed), {kind: Counter[str]() for kind in (*READERS, "answer")}, []
    path = folder / "documents.jsonl"
    for number in range(inputs):
        kind = list(counts)[number % len(counts)]
        seeds = SEEDS.get(kind, (ANSWER,))
        raw = mutate(chance.choice(seeds).encode(), chance)
        outcome = feed_parser(raw, chance) if kind == "answer" else feed(kind, raw, path)
        crashed = outcome not in ("read", "refused")
        if crashed and len(found) < 20:
            found.append({"kind": kind, "outcome": outcome, "input": raw[:4000].hex()})
        counts[kind]["crashed" if crashed else outcome] += 1
    return {kind: dict(outcomes) for kind, outcomes in counts.items()}, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        counts, found = fuzz(options.inputs, options.seed, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "device": f"cpu ({platform.machine()})",
        "versions": {"python": platform.python_version()},
        "n": options.inputs,
        "seed": options.seed,
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": {"before": before // 1024, "after": peak // 1024},
        "counts": counts,
        "crashes": found,
        "ratios": {"peak_memory_after_vs_before": peak / before},
    }
    write_json(options.out, result)
    for kind, outcomes in counts.items():
        print(f"{kind:14}" + "".join(f"{name:>9} {outcomes.get(name, 0):>8,}" for name in ("read", "refused", "crashed")))
    for one in found:
        print(f"CRASH  {one['kind']}: {one['outcome']}\n       {one['input'][:300]}")
    print(f"{options.inputs:,} inputs in {result['seconds']} s; memory {before // 1024} MiB before, {peak // 1024} MiB at most")
    print(f"wrote {options.out}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
