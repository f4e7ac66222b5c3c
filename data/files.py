"""Reading the user's text files and writing ours: one-line errors that name file and line, and no half-written file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from data.schema import InputError, JsonObject

PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip FILE"),
    b"BZh": ("bzip2", "bunzip2 FILE"),
    b"\xfd7zXZ": ("xz", "unxz FILE"),
    b"\x28\xb5\x2f\xfd": ("zstandard", "unzstd FILE"),
    b"PK\x03\x04": ("zip", "unzip FILE"),
}


def read_lines(path: str | Path, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Each line of a UTF-8 file with its number, one line in memory at a time; CR, LF and CRLF all end a line.

    Raises InputError naming file and line: no such file, packed, empty but for white space, not UTF-8 (unless `errors` is
    "replace"), or containing a NUL byte.
    """
    said = False
    with open_text(path, errors) as file:
        try:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise InputError(f"{path}:{number}: contains a NUL byte, as in binary or UTF-16; save it as UTF-8 text")
                said = said or bool(line.strip())
                yield number, line.removesuffix("\n")
        except UnicodeDecodeError:
            raise InputError(_name_bad_byte(path)) from None
    if not said:
        raise InputError(f"{path}: the file is empty")


def read_pieces(path: str | Path, errors: str = "strict") -> Iterator[str]:
    """The text of a UTF-8 file in pieces of 64 KiB. Raises InputError as `read_lines` does, but for NUL bytes."""
    first_line(path, errors)
    with open_text(path, errors) as file:
        try:
            while piece := file.read(1 << 16):
                yield piece
        except UnicodeDecodeError:
            raise InputError(_name_bad_byte(path)) from None


def first_line(path: str | Path, errors: str = "strict") -> tuple[int, str]:
    """The first line that is not blank, with its number."""
    return next((number, line) for number, line in read_lines(path, errors) if line.strip())


def read_text(path: str | Path) -> str:
    """The file's whole text, each line ended by LF. Raises InputError as `read_lines` does."""
    return "\n".join(line for _, line in read_lines(path)) + "\n"


def open_text(path: str | Path, errors: str = "strict") -> TextIO:
    """The file, opened as UTF-8 text, a byte-order mark taken away. Raises InputError where it is no plain file."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if not path.is_file():
            raise InputError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}, expected a file")
        with path.open("rb") as file:
            start = file.read(8)
        for magic, (kind, cure) in PACKED.items():
            if start.startswith(magic):
                raise InputError(f"{path}: is packed with {kind}; unpack it first: {cure}")
        return path.open(encoding="utf-8-sig", errors=errors)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _name_bad_byte(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
    return f"{path}: not UTF-8; save the file as UTF-8"


def read_jsonl(path: str | Path) -> Iterator[tuple[str, JsonObject]]:
    """Each JSON object of a JSON Lines file with its place, "file:line". Blank lines are passed over."""
    for number, line in read_lines(path):
        if line.strip():
            yield f"{path}:{number}", _parse_object(line, f"{path}:{number}")


def _parse_object(line: str, where: str) -> JsonObject:
    try:
        row = json.loads(line)
        if "\\u" in line:  # an escape may name half of a character
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: broken JSON at column {error.colno}: {error.msg}") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: contains half of a surrogate pair, which is no character; take it out") from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply to be read") from None
    except ValueError:
        raise InputError(f"{where}: contains a number of thousands of digits") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row


def cache_folder() -> Path:
    """Where what was fetched or converted is kept: $MEDNER_CACHE, or ~/.cache/medner."""
    cache = os.environ.get("MEDNER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medner"
    return Path(cache).expanduser()


def require_writable(path: Path) -> None:
    """Raises InputError where no file or folder can be made at `path`, tried on the nearest folder that is there."""
    try:
        path.exists()  # a name that is too long for the file system
        folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        blocked = next((part for part in path.absolute().parents if part.exists() and not part.is_dir()), None)
        if blocked:
            raise InputError(f"{path}: {blocked} is a file; choose a folder that can be written")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); choose a folder that can be written") from None


@contextmanager
def writing(path: str | Path) -> Iterator[TextIO]:
    """A text file to write to, which gets the name `path` once it is whole; the OSError of a full disk is told that name."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            yield file
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):  # of a folder that cannot be written: what happened first is what to tell
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def write_text(path: str | Path, text: str) -> Path:
    """Write all of `text` under its final name or nothing at all."""
    with writing(path) as file:
        file.write(text)
    return Path(path)


def write_json(path: str | Path, value: object) -> Path:
    """Indented JSON with a line break at its end, written whole or not at all. Returns the path."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[JsonObject]) -> Path:
    """Write one JSON object a line, one in memory at a time; all of them under the final name or none."""
    with writing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Path(path)
