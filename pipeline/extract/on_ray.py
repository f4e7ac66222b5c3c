"""`medner extract --ray`: the same extraction by Ray Data, on all cores or GPUs of one machine or of several.

The texts are read once, with the same checks, and laid into a Parquet file that Ray Data streams to workers, each with a model
of its own. Results are written a block of documents at a time. Ray Data does a lost worker's block again, and its checkpoint
records which documents are written, so that the same command goes on after the whole job was killed. At the end all results are
gathered in the texts' order. Until then everything is in OUT.ray/, which every node must see.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from data.schema import Document, InputError
from eval.progress import progress_bar
from pipeline.extract.open_model import load_extractor
from pipeline.extract.results import to_json
from pipeline.variant import ADDRESS

if TYPE_CHECKING:
    import pyarrow

LEAST, MOST = 8, 256  # documents a block, which is written, and lost, as one
BLOCKS = 64  # that a job is cut into, where that makes them no smaller or larger
LOOK_SECONDS = 3  # between two looks at what is written
ROW_GROUP = 1024  # texts that are in the reader's memory at once
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default, without its warning
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True)
class Cluster:
    """`address`: a Ray cluster's; "local" starts one here for the job. `workers`: None is one a GPU, or else one a core.

    `threads`: of each worker; None shares the cores out.
    """

    address: str = "local"
    workers: int | None = None
    threads: int | None = None


class Worker:
    """The model, kept by a Ray actor. Called with a block of texts, it gives a block of results."""

    def __init__(self, model: str, settings: Mapping[str, Any]):
        self.extractor = load_extractor(model, **settings)

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        documents = [Document(row["id"], row["text"], row["title"]) for row in block.to_pylist()]
        rows = [json.dumps(to_json(one), ensure_ascii=False) for one in self.extractor(documents)]
        return pyarrow.table({"id": block["id"], "position": block["position"], "row": rows})


def extract_on_ray(
    texts: Iterator[Document], model: str, settings: Mapping[str, Any], folder: Path, cluster: Cluster
) -> Iterator[str]:
    """The JSON rows of all texts, in their order. `settings`: those of `load_extractor`; `folder`: what is not finished yet.

    Raises RuntimeError where a worker's own work fails.
    """
    stage_texts(texts, folder / "texts.parquet")
    # a worker stands in another folder
    paths = {key: absolute(str(settings[key])) for key in ("like", "lora", "known_names") if settings.get(key)}
    run_workers(absolute(model), {**settings, **paths}, folder, cluster)
    return gather_rows(folder)


def absolute(name: str) -> str:
    """The whole path of a file or folder; a Hub id or an address as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def stage_texts(texts: Iterator[Document], path: Path) -> None:
    """Lay the texts into a Parquet file, once for all attempts of a job."""
    from pyarrow import Table, int64, parquet, schema, string

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = schema([("position", int64()), ("id", string()), ("title", string()), ("text", string())])
    partial, numbered = path.with_name("texts.partial"), enumerate(texts)
    with parquet.ParquetWriter(partial, columns) as file:
        while rows := [
            {"position": position, "id": one.id, "title": one.title, "text": one.text}
            for position, one in islice(numbered, ROW_GROUP)
        ]:
            file.write_table(Table.from_pylist(rows, columns))
    partial.replace(path)


def run_workers(model: str, settings: Mapping[str, Any], folder: Path, cluster: Cluster) -> None:
    """Answer every text that has no result in folder/results yet; folder/done is Ray Data's checkpoint."""
    from pyarrow import parquet

    ray = start_ray(cluster.address)
    try:
        from ray.data import ActorPoolStrategy, DataContext
        from ray.data.checkpoint import CheckpointConfig

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.use_datasource_v2 = False  # it starts 32 processes to read the footer of one file
        # Kept until the results are gathered: without it, a job that is killed meanwhile would do everything again.
        context.checkpoint_config = CheckpointConfig("id", str(folder / "done"), delete_checkpoint_on_success=False)
        resources = ray.cluster_resources()
        if model.endswith(".gguf") or model.startswith(ADDRESS):
            resources.pop("GPU", None)  # this llama.cpp is a processor's, and a server has cards of its own
        workers, claim, threads = share_out(resources, cluster.workers)
        threads = cluster.threads or threads
        count = parquet.read_metadata(folder / "texts.parquet").num_rows
        print(f"{count} texts; workers: {workers}, threads of each: {threads}", file=sys.stderr)
        texts = ray.data.read_parquet(str(folder / "texts.parquet"))
        results = texts.repartition(target_num_rows_per_block=min(MOST, max(LEAST, count // BLOCKS))).map_batches(
            Worker,
            fn_constructor_args=(model, dict(settings)),
            compute=ActorPoolStrategy(size=workers),
            batch_size=None,
            batch_format="pyarrow",
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads)}},
            **claim,
        )
        with shown_progress(folder, count):
            results.write_parquet(str(folder / "results"))
    except ray.exceptions.RayError as error:
        kind, said = cause_of(str(error))
        if kind == "InputError":
            raise InputError(said) from None
        raise RuntimeError(f"a worker failed: {kind}: {said}. The same command goes on from what is written") from error
    finally:
        context.checkpoint_config = None
        ray.shutdown()


def require_cluster(address: str) -> None:
    """Raises InputError without Ray, or where nothing listens at the address."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--ray needs the package ray: pip install 'medner[ray]' (or pip install -r requirements-ray.txt)")
    host, _, port = address.rpartition(":")
    if port.isdigit():  # Ray itself asks for minutes
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise InputError(f"--ray {address}: no cluster answers there ({error})") from None


def start_ray(address: str) -> Any:
    """The ray module, joined to the cluster."""
    os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    import ray
    import ray.data

    # Two at least: Ray Data keeps one for filtering by its checkpoint and needs one more to read and write.
    own: dict[str, Any] = {"num_cpus": max(2, os.cpu_count() or 1), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray {address}: {str(error).splitlines()[0]}") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends the job is raised, and told once
    return ray


def count_done(folder: Path, known: dict[str, int] | None = None) -> int:
    """Texts whose results are written to their end. `known`: those of files that were counted before; added to."""
    from pyarrow import parquet

    known = {} if known is None else known
    for file in (folder / "done").glob("*.parquet"):
        if file.name not in known and not file.name.endswith(".pending.parquet"):
            known[file.name] = parquet.read_metadata(file).num_rows
    return sum(known.values())


@contextmanager
def shown_progress(folder: Path, count: int) -> Iterator[None]:
    """The project's bar over the texts, by what is written; Ray's own bars count blocks of each of its operators."""
    known: dict[str, int] = {}
    bar, ended = progress_bar("texts", count, count_done(folder, known), unit="text"), Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            bar.update(count_done(folder, known) - bar.n)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        bar.update(count_done(folder, known) - bar.n)
        bar.close()


def share_out(resources: Mapping[str, float], wanted: int | None) -> tuple[int, dict[str, float], int]:
    """(workers, what each claims of the cluster, threads of each). Raises InputError where a GPU each would not do.

    A worker without a GPU claims half of its cores at most, and all of them together leave two, which Ray Data needs itself.

    >>> share_out({"CPU": 16.0}, None)
    (16, {'num_cpus': 0.4375}, 1)
    >>> share_out({"CPU": 64.0}, 4)
    (4, {'num_cpus': 7}, 16)
    >>> share_out({"CPU": 2.0}, 2)
    (2, {'num_cpus': 0.0}, 1)
    >>> share_out({"CPU": 64.0, "GPU": 8.0}, None)
    (8, {'num_gpus': 1}, 8)
    """
    cores, cards = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    workers = wanted or cards or cores
    threads = max(1, cores // workers)
    if cards:
        if workers > cards:
            raise InputError(f"--ray-workers {workers}: the cluster has {cards} GPUs, and each worker takes one")
        return workers, {"num_gpus": 1}, threads
    claim = max(0.0, (cores - 2) / workers / 2)
    return workers, {"num_cpus": int(claim) if claim >= 1 else round(claim, 4)}, threads


def cause_of(error: str) -> tuple[str, str]:
    """(class, message) of what a worker raised itself, of which Ray's own error keeps only the traceback's text.

    >>> cause_of("data.schema.InputError: no file x\\n\\nThe above …\\nray.exceptions.UserCodeException: UDF failed")
    ('InputError', 'no file x')
    """
    raised = re.findall(r"^(?!ray\.)(?:\w+\.)*(\w+): (.+)$", error, re.MULTILINE)
    return raised[-1] if raised else ("RayError", error.strip().splitlines()[0])


def gather_rows(folder: Path) -> Iterator[str]:
    """The JSON row of each text, in the texts' order. Raises RuntimeError where one has no result, or two."""
    import numpy
    from pyarrow import parquet

    files = sorted((folder / "results").glob("*.parquet"))
    positions = [parquet.read_table(file, columns=["position"])["position"].to_numpy() for file in files]
    found = numpy.concatenate(positions) if positions else numpy.zeros(0, int)
    order = numpy.argsort(found)
    count = parquet.read_metadata(folder / "texts.parquet").num_rows
    if not numpy.array_equal(found[order], numpy.arange(count)):
        raise RuntimeError(f"{folder}: {len(numpy.unique(found))} of {count} texts have a result, in {len(found)} rows")
    file_of = numpy.repeat(numpy.arange(len(files)), [len(one) for one in positions])
    row_of = numpy.concatenate([numpy.arange(len(one)) for one in positions]) if positions else found

    @lru_cache(maxsize=16)  # a file's rows follow one another
    def rows(index: int) -> pyarrow.ChunkedArray:
        return parquet.read_table(files[index], columns=["row"])["row"]

    return (rows(int(file_of[at]))[int(row_of[at])].as_py() for at in order)
