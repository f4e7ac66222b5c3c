"""Two Ray workers against one, and documents a second of one core:  python -m bench.ray_scaling

    python -m bench.ray_scaling --model FILE.gguf [--documents N] [--core-model FILE.gguf] [--core-documents N] [--data FILE]

Extracts the same texts as `medner extract --ray` does with one worker and with two, each of one thread, on this machine. The
rate is the clock's, from when every worker has written a block to the last block: starting Ray and loading models, which a long
job does once, are left out. Nothing else should run meanwhile. `--core-model` is asked in this process; its rate is of the
processor's seconds. Prints a table and writes bench/results/ray-scaling-cpu.json.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.corpus import read_corpus
from data.files import write_json
from data.schema import Document
from data.table import Table, as_text
from pipeline.extract.on_ray import Cluster, extract_on_ray
from pipeline.extract.open_model import load_extractor

RESULTS = Path(__file__).parent / "results" / "ray-scaling-cpu.json"
SAMPLE = Path(__file__).parents[1] / "data" / "sample.jsonl"
PUBMED = 36e6  # abstracts
YEAR_HOURS = 24 * 365


def measure_workers(model: str, texts: Sequence[Document], settings: Mapping[str, Any], workers: int) -> dict[str, float]:
    """Documents a second of so many workers, counted after each has written its first block."""
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = list(extract_on_ray(iter(texts), model, settings, Path(folder), Cluster(workers=workers, threads=1)))
        whole = time.perf_counter() - started
        files = sorted((file.stat().st_mtime_ns, file) for file in Path(folder, "results").glob("*.parquet"))
        rows = [parquet.read_metadata(file).num_rows for _, file in files]
    assert len(found) == len(texts) == sum(rows)
    seconds = (files[-1][0] - files[workers - 1][0]) / 1e9
    counted = sum(rows[workers:])
    return {"documents": counted, "seconds": seconds, "documents_per_second": counted / seconds, "seconds_with_start": whole}


def measure_core(model: str, texts: Sequence[Document], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Documents a processor's second, by one thread of this process."""
    extractor = load_extractor(model, **settings)
    list(extractor(texts[:2]))
    started = time.process_time()
    found = list(extractor(texts))
    seconds = time.process_time() - started
    return {
        "model": Path(model).name,
        "documents": len(found),
        "characters_per_document": sum(len(one.text) for one in found) / len(found),
        "core_seconds": seconds,
        "documents_per_core_second": len(found) / seconds,
        "pubmed_core_years": PUBMED * seconds / len(found) / 3600 / YEAR_HOURS,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ray_scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="a GGUF file, for the workers")
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--core-model", help="a GGUF file of a size that is used, for documents a second of a core")
    parser.add_argument("--core-documents", type=int, default=32)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="a corpus; its texts are read")
    parser.add_argument("--max-new-tokens", type=int, default=16, help="of each of a text's three answers")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    documents = read_corpus(options.data).documents
    settings = {"layout": "conversation", "max_new_tokens": options.max_new_tokens, "grounded": True, "like": None}
    scaling = {str(n): measure_workers(options.model, documents[: options.documents], settings, n) for n in (1, 2)}
    rate = {workers: figures["documents_per_second"] for workers, figures in scaling.items()}
    report = {
        "device": "cpu",
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("ray", "xllamacpp")},
        "n": options.documents,
        "model": Path(options.model).name,
        "threads_per_worker": 1,
        "workers": scaling,
        "ratios": {"two_workers_vs_one": rate["2"] / rate["1"]},
    }
    if options.core_model:
        report["core"] = measure_core(options.core_model, documents[: options.core_documents], settings)
    rows = [(f"{workers} worker(s)", f"{figures:.2f}") for workers, figures in rate.items()]
    if "core" in report:
        rows.append((f"{report['core']['model']}, a core", f"{report['core']['documents_per_core_second']:.3f}"))
    print(as_text(Table(("", "documents/s"), tuple(rows))))
    print(f"two workers against one: {report['ratios']['two_workers_vs_one']:.2f}")
    print(f"wrote {write_json(RESULTS, report)}", file=sys.stderr)


if __name__ == "__main__":
    main()
