"""The one progress bar: named, on standard error; where that is no terminal, a plain line now and then."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

SECONDS = 15  # between lines in a log


class Lines(tqdm):
    """A bar for a log: whole lines, nothing overwritten."""

    @staticmethod
    def status_printer(file: TextIO):
        return lambda text: text.strip() and print(text.strip(), file=file, flush=True)


def progress_bar(name: str, total: int, done: int = 0, *, unit: str = "", shown: bool = True) -> tqdm:
    """A bar of `total` steps, `done` of them earlier. In a log, a job of under `SECONDS` writes nothing."""
    fixed = {"desc": name, "total": total, "initial": done, "unit": unit, "file": sys.stderr, "disable": not shown}
    if sys.stderr.isatty():
        return tqdm(**fixed, mininterval=0.5)
    return Lines(**fixed, mininterval=SECONDS, maxinterval=SECONDS, delay=SECONDS, ascii=True, ncols=100)
