"""Reading the user's text files and writing ours: one-line errors that name file and line, and no half-written file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.schema import InputError


def read_text(path: str | Path) -> str:
    """The file's text (UTF-8, a byte-order mark and CRLF taken away). Raises InputError naming what stands in the way."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file")
    raw = path.read_bytes()
    if not raw.strip():
        raise InputError(f"{path}: the file is empty")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from None


def read_jsonl(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Each JSON object of a JSON Lines file with its place, "file:line". Blank lines are passed over."""
    rows = 0
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: broken JSON at column {error.colno}: {error.msg}") from None
        if "\\u" in line and not _is_text(row):
            raise InputError(f"{where}: holds half of a surrogate pair, which is no character; take it out")
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
        rows += 1
        yield where, row
    if not rows:
        raise InputError(f"{path}: the file is empty")


def _is_text(value: object) -> bool:
    """Whether all of a JSON value's characters can be written: an escape may name half of one."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: str | Path, text: str) -> Path:
    """Write all of `text` under its final name or nothing at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def write_json(path: str | Path, value: object) -> Path:
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> Path:
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
