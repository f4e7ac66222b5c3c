"""Several processes of one job, one a GPU: the first does the whole job; the others wait, train along, and write nothing.

    torchrun --nproc-per-node 4 -m pipeline.processes run --preset llama-3.2-3b --data my.jsonl --out runs/four

takes the arguments of `medner`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.run_folder import RunFolder

LONGEST_WAIT = timedelta(hours=24)  # the others wait while the first scores the untuned model
TRAINING = ("run", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """`medner` in the first process; in the others, the training that it comes to. Returns the exit code."""
    from pipeline import cli

    if is_first_process():
        code = cli.main(arguments)
        if code == 0 and cli.parse_arguments(arguments).name in TRAINING:
            meet()  # where the adapter was there already, the others still wait
        return code
    options = cli.parse_arguments(arguments)
    if options.name in TRAINING:
        from pipeline.run_folder import read_run

        meet()
        run = read_run(options.out)
        if not run.done("train"):
            train_along(run)
    return 0


def train_along(run: RunFolder) -> None:
    """The training stage of `pipeline.run`, without what it writes."""
    from pipeline.model import load_model, load_tokenizer, model_path, prepare_engine

    prepare_engine(run.path / "unsloth_compiled_cache")  # before transformers
    from data.audit import read_split_folder
    from pipeline.examples import encode_documents
    from pipeline.train import train_adapter

    split, settings = read_split_folder(run.path / "data"), run.settings
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    train, validation = (encode_documents(tokenizer, split[name], settings.train.layout) for name in ("train", "validation"))
    train_adapter(settings, load_model(settings, trainable=True), tokenizer, train, validation, run.path)


def count_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes the run folder, prints and evaluates."""
    return os.environ.get("RANK", "0") == "0"


@cache
def meet() -> None:
    """Wait, once, until every process of the job is here. One alone goes on at once, and imports nothing."""
    if count_processes() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT).wait_for_everyone()


if __name__ == "__main__":
    from pipeline.processes import main as run_job  # the module that training imports, with its one `meet`; this is a second

    sys.exit(run_job())
