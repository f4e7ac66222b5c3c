"""Several processes of one job, one a GPU: the first does the whole job; the others wait, train along, and write nothing.

    torchrun --nproc-per-node 4 -m pipeline.processes run --preset llama-3.2-3b --data my.jsonl --out runs/four

takes the arguments of `medner`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.training.distributed import is_first_process, wait_for_all

if TYPE_CHECKING:
    from pipeline.run_folder import RunFolder

TRAINING = ("run", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """`medner` in the first process; in the others, the training that it comes to. Returns the exit code."""
    from pipeline import cli
    from pipeline.arguments import parse_arguments

    if is_first_process():
        code = cli.main(arguments)
        if code == 0 and parse_arguments(arguments).name in TRAINING:
            wait_for_all()  # where the adapter was there already, the others still wait
        return code
    options = parse_arguments(arguments)
    cli.quiet_libraries(options.debug)
    if options.name in TRAINING:
        from pipeline.run_folder import read_run

        wait_for_all()
        run = read_run(options.out)
        try:
            if not run.done("train"):
                train_along(run)
        except KeyboardInterrupt:  # the first process says so
            return 1
    return 0


def train_along(run: RunFolder) -> None:
    """The training stage of `pipeline.run`, without what it writes."""
    from pipeline.model import load_model, load_tokenizer, model_path, prepare_engine

    prepare_engine(run.path / "unsloth_compiled_cache")  # before transformers
    from data.split import read_split_folder
    from pipeline.training.loss_mask import encode_split
    from pipeline.training.train import train_adapter
    from pipeline.training.validation_f1 import choose_articles

    split, settings = read_split_folder(run.path / "data"), run.settings
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    train, validation, _ = encode_split(tokenizer, split, settings.train)
    # the first process answers and scores, the others are told: without a score they would not listen, and all would hang
    score = (lambda model: {}) if choose_articles(split["validation"], settings) else None
    train_adapter(settings, load_model(settings, trainable=True), tokenizer, train, validation, run.path, score=score)


if __name__ == "__main__":
    from pipeline.processes import main as run_job  # with the `wait_for_all` that training imports

    sys.exit(run_job())
