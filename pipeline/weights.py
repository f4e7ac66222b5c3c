"""Files of weights, checked before anything is loaded: there, and whole."""

from __future__ import annotations

import json
from hashlib import file_digest
from pathlib import Path

from data.schema import InputError
from pipeline.run_folder import RunFolder, require_adapter

ADAPTER = "adapter_model.safetensors"


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def hash_own_adapter(run: RunFolder) -> str:
    """The sha256 of the run's adapter. Raises InputError where it is missing, cut off, or not the one that was trained."""
    require_adapter(run)
    path = run.path / "adapter" / ADAPTER
    again = f"put it back, or train again: medner run --out {run.path} --fresh"
    for name in (ADAPTER, "adapter_config.json"):
        if not (run.path / "adapter" / name).is_file():
            raise InputError(f"{run.path / 'adapter' / name}: missing; {again}")
    check_safetensors(path, again)
    return hash_file(path)


def check_safetensors(path: Path, cure: str) -> None:
    """Raises InputError where the file is no safetensors file, or not as long as its own table says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        try:
            table = json.loads(file.read(header)) if header < size else None
            ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            raise InputError(f"{path}: no safetensors file; {cure}") from None
    if size != 8 + header + max(ends, default=0):
        raise InputError(f"{path}: {size:,} bytes, where its table says {8 + header + max(ends, default=0):,}; {cure}")


def hash_folder(folder: Path) -> dict[str, str]:
    """By name, the sha256 of a model folder's safetensors files, each checked to be whole."""
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        check_safetensors(file, "copy or download it again")
    return {file.name: hash_file(file) for file in files}
