"""Large files written so that none stands half-written under its final name, and room on the disk checked before.

Whatever is written goes to a sibling whose name starts with a dot and ends in `.partial`; only when it is whole is it renamed.
A run that was killed leaves at most that sibling, and the next one clears it away.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.schema import InputError


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin writing `needed` bytes where they do not fit.

    Raises InputError, naming both numbers of bytes.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{what} needs {needed:,} bytes and {existing} has {free:,} free. "
            "Free some space, or choose another folder with --out, and run the same command again."
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the path to write to; renames it to `path` when the block ends, removes it when the block fails."""
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _disk_full_said_plainly(path):
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to write in; it takes the place of `path` when the block ends and goes when the block fails."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with _disk_full_said_plainly(path):
            yield partial
            if path.exists():
                shutil.rmtree(path)
            partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _disk_full_said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy writes the tensors of a GGUF file, and gives no number when a write falls short.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):
            raise
        free = shutil.disk_usage(path.parent).free
        raise InputError(
            f"The disk is full: {path} could not be written whole; {free:,} bytes are free there. "
            "Nothing half-written was kept. Free some space and run the same command again."
        ) from error
