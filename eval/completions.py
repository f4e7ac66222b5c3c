"""Documents -> completions.jsonl: what the model answers, batch by batch, with whatever engine answers.

Writes one line an answer, as it is produced: {"document", "task", "completion", "finish": "stop"|"length", "logprobs"?}.
A file that is there already is gone on with: its rows are kept, and only what is missing is asked. An interruption loses
at most the batch it hit.

An engine is a function: it takes chats, refuses those that it cannot answer before it answers any, and yields lists of
such rows. `eval.engines.huggingface` is the transformers engine; the others are opened by `eval.engines.open.open_engine`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from data.prompts import Layout
from data.schema import Document, InputError
from eval.chats import Engine, plan_chats

if TYPE_CHECKING:
    pass


def write_completions(
    engine: Engine,
    documents: Sequence[Document],
    path: Path,
    *,
    layout: Layout,
    tasks: Sequence[str] | None = None,
    max_new_tokens: int | Mapping[str, int],
    progress: bool | None = None,
) -> Path:
    """Asks `engine` for the answers that `path` lacks and appends them. Returns `path`."""
    chats = plan_chats(documents, layout=layout, tasks=tasks, max_new_tokens=max_new_tokens)
    asked = {(chat.document.id, task) for chat in chats for task in chat.tasks}
    done = _keep_whole_rows(path, asked)
    # A conversation that lacks one answer is held again from its start: greedy answers repeat themselves.
    left = [chat for chat in chats if any((chat.document.id, task) not in done for task in chat.tasks)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for rows in _report(engine(left), len(asked), len(done), len(documents), progress):
            for row in rows:
                if (row["document"], row["task"]) not in done:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
    return path


def _keep_whole_rows(path: Path, asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (document, task) of each row in the file; a half-written last line is cut off.

    Raises InputError for a line that is no row or answers what is not asked: the file belongs to something else.
    """
    if not path.exists():
        return set()
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with path.open("r+b") as file:
            file.truncate(whole)
    done = set()
    for number, line in enumerate(written[:whole].decode("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            key = (row["document"], row["task"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}:{number}: not a row of completions; delete the file to generate it again") from None
        if key not in asked:
            raise InputError(f"{path}:{number}: answers {key[1]} of {key[0]}, not asked here; delete the file") from None
        done.add(key)
    return done


def _report(
    batches: Iterable[list[dict]], asked: int, done: int, documents: int, progress: bool | None, stream: TextIO | None = None
) -> Iterator[list[dict]]:
    """The same batches, with documents/s and the time left on standard error; `asked` and `done` count answers."""
    stream = stream or sys.stderr
    shown = stream.isatty() if progress is None else progress
    started, first = time.monotonic(), done
    for rows in batches:
        yield rows
        done += len(rows)
        if shown:
            seconds = max(time.monotonic() - started, 1e-9)
            speed = (done - first) / seconds
            left = max(asked - done, 0) / speed
            share = documents / asked
            print(
                f"\r{done * share:.0f}/{documents} documents, {speed * share:.2f} documents/s, {left:.0f} s left   ",
                end="\n" if done >= asked else "",
                file=stream,
                flush=True,
            )
