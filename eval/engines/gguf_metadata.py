"""What a GGUF file says of itself, read in tenths of a second: its keys and values, and its tensors' names, shapes and types.

The `gguf` package's reader makes numpy arrays of every token and merge: 8 seconds for a vocabulary of 49,000, a minute for
Llama 3's. Weights are left to it. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.schema import InputError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)


@dataclass(frozen=True)
class Tensor:
    """`shape` with the length of a row first; `type`: a `GGMLQuantizationType`; `offset`: bytes after where tensors begin."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Metadata:
    """`fields`: values by key, arrays as lists; shared by all who ask, so not to be changed. `data`: where tensors begin."""

    fields: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data: int


def read_metadata(path: Path) -> Metadata:
    """The fields and the list of tensors of a GGUF file.

    Raises InputError for a file that is missing, no GGUF file of version 2 or 3, or cut off.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such GGUF file")
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, changed: int) -> Metadata:
    """`size` and `changed` are there for the cache: a file that has been replaced is read again."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                metadata = _parse(content)
                _require_whole(metadata, size)
            except (ValueError, KeyError, IndexError, OverflowError, MemoryError, RecursionError, struct.error) as error:
                said = str(error).split("\n")[0]
                raise InputError(f"{path}: a broken or cut off GGUF file ({said}); make or download it again") from None
    return metadata


def _parse(content: mmap.mmap) -> Metadata:
    version, tensors, pairs = struct.unpack_from("<IQQ", content, 4)
    if version not in VERSIONS:
        raise ValueError(f"version {version}")
    at, fields, found = 24, {}, []
    for _ in range(pairs):
        key, at = _string(content, at)
        (kind,) = struct.unpack_from("<I", content, at)
        fields[key], at = _value(content, at + 4, kind)
    for _ in range(tensors):
        name, at = _string(content, at)
        (dimensions,) = struct.unpack_from("<I", content, at)
        *shape, kind, offset = struct.unpack_from(f"<{dimensions}QIQ", content, at + 4)
        at += 4 + 8 * dimensions + 12
        found.append(Tensor(name, tuple(shape), kind, offset))
    alignment = fields.get("general.alignment", 32)
    return Metadata(fields, tuple(found), -(-at // alignment) * alignment)


def _value(content: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """A value of this kind and where the next one begins."""
    if kind == STRING:
        return _string(content, at)
    if kind == ARRAY:
        return _array(content, at)
    (value,) = struct.unpack_from(f"<{SCALARS[kind]}", content, at)
    return value, at + struct.calcsize(f"<{SCALARS[kind]}")


def _array(content: mmap.mmap, at: int) -> tuple[list[Any], int]:
    kind, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if kind in SCALARS:
        form = f"<{count}{SCALARS[kind]}"
        return list(struct.unpack_from(form, content, at)), at + struct.calcsize(form)
    values = []
    for _ in range(count):
        value, at = _value(content, at, kind)
        values.append(value)
    return values, at


def _string(content: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise ValueError(f"a text of {length:,} bytes at byte {at:,}, past the file's end")
    return content[at + 8 : end].decode(), end


def _require_whole(metadata: Metadata, size: int) -> None:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in metadata.tensors:
        block, stored = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        end = metadata.data + tensor.offset + math.prod(tensor.shape) // block * stored
        if end > size:
            raise ValueError(f"tensor {tensor.name} ends at byte {end:,}, the file at {size:,}")
