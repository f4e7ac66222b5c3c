"""Weights that are a pickle, which can run any code when they are read: refused, whoever they come from."""

from __future__ import annotations

from pathlib import Path

from data.schema import InputError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_pickled(folder: str | Path) -> None:
    """Raises InputError where a model's or an adapter's folder has its weights as a pickle only. A Hub id is passed over."""
    path = Path(folder)
    files = sorted(path.iterdir()) if path.is_dir() else []
    pickled = [file for file in files if file.suffix in PICKLES and file.name != "training_args.bin"]
    if pickled and not any(file.suffix == ".safetensors" for file in files):
        raise InputError(
            f"{pickled[0]}: weights in a pickle, which can run code when it is read; have them as safetensors "
            "(transformers' and PEFT's save_pretrained write those)"
        )
