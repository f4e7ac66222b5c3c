"""One program at a time in a run folder. The system frees the lock when its holder ends, however it ends."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from data.files import write_json
from data.schema import InputError

LOCK, HOLDER = ".lock", ".lock.json"
LOCK_FILES = (LOCK, HOLDER, f"{HOLDER}.part")


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Locks the folder `path`, made if it is missing, while the block runs. Raises InputError naming who locked it already."""
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{path}: another medner is at work in it{describe_holder(path)}; wait for it, or end it") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path / HOLDER, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        (path / HOLDER).unlink(missing_ok=True)
        lock.release()


def describe_holder(path: Path) -> str:
    """ " (pid 12 on HOST since …)", or nothing where the holder has only just begun."""
    try:
        holder = json.loads((path / HOLDER).read_text(encoding="utf-8"))
        return f" (pid {holder['pid']} on {holder['host']} since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
