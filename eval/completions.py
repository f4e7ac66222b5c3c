"""Documents -> completions.jsonl: what a model answers, whatever engine answers, each answer written as it comes.

One line an answer: {"document", "task", "completion", "finish": "stop"|"length", "logprobs"?}. Beside it stands
provenance.json, what produced the answers. A file that is there already is gone on with where the same produced it: its rows
are kept, and only what is missing is asked. One process writes a file at a time.

An engine is a function: it takes chats, refuses those that it cannot answer before it answers any, and yields lists of
such rows. `eval.engines.huggingface` is the transformers engine; the others are opened by `eval.engines.open.open_engine`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from data.files import write_json
from data.prompts import SYSTEM, Layout
from data.schema import Document, InputError
from eval.chats import Chat, Engine, plan_chats

PROVENANCE = "provenance.json"


def write_completions(
    engine: Engine,
    documents: Sequence[Document],
    path: Path,
    *,
    layout: Layout,
    tasks: Sequence[str] | None = None,
    max_new_tokens: int | Mapping[str, int],
    given_entities: bool = False,
    provenance: Mapping | None = None,
    progress: bool | None = None,
) -> Path:
    """Asks `engine` for the answers that `path` lacks and appends them; it is not called where none is missing. Returns `path`.

    `provenance`: what produces the answers, a JSON object; what is asked is added to it. Raises InputError where `path` has
    answers of another, or of nobody knows what, or is being written by another process.
    """
    chats = plan_chats(
        documents, layout=layout, tasks=tasks, max_new_tokens=max_new_tokens, given_entities=given_entities
    )
    asked = {(chat.document.id, task) for chat in chats for task in chat.tasks}
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as file:
        if provenance is not None:
            require_provenance(path, {**provenance, **describe_questions(chats, layout, max_new_tokens)})
        done = _keep_whole_rows(path, asked)
        # A conversation that lacks one answer is asked again from its start: greedy answers repeat themselves.
        left = [chat for chat in chats if any((chat.document.id, task) not in done for task in chat.tasks)]
        if left:
            _append(engine, left, file, done, len(asked), progress)
    return path


def _append(
    engine: Engine, chats: Sequence[Chat], file: TextIO, done: set[tuple[str, str]], asked: int, progress: bool | None
) -> None:
    """Writes each row as the engine gives it, once."""
    from eval.progress import progress_bar

    with progress_bar("answers", asked, len(done), shown=progress is not False) as bar:
        for rows in engine(chats):
            for row in rows:
                key = (row["document"], row["task"])
                if key not in done:
                    done.add(key)
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    bar.update()
            file.flush()


@contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """The file, opened to append, for this process alone; the system frees the lock of a process that is killed."""
    try:
        with FileLock(path.with_name(".lock"), timeout=0), path.open("a", encoding="utf-8") as file:
            yield file
    except Timeout:
        raise InputError(f"{path}: another process is writing these answers; wait for it, or end it first") from None


def describe_questions(chats: Sequence[Chat], layout: Layout, max_new_tokens: int | Mapping[str, int]) -> dict:
    """What is asked, for provenance.json: the layout, the answers' budgets in tokens, and a hash of every prompt in order."""
    digest = hashlib.sha256(SYSTEM.encode())
    for chat in sorted(chats, key=lambda chat: (chat.document.id, chat.tasks)):
        digest.update(json.dumps([chat.document.id, chat.tasks, chat.prompts, *chat.given]).encode())
    budgets = max_new_tokens if isinstance(max_new_tokens, int) else dict(max_new_tokens)
    return {"layout": layout, "max_new_tokens": budgets, "prompts_sha256": digest.hexdigest()}


def require_provenance(path: Path, wanted: Mapping) -> None:
    """Write provenance.json beside a file that has no answer yet; else raise InputError unless it says the same."""
    beside = path.with_name(PROVENANCE)
    if not path.stat().st_size:
        write_json(beside, wanted)
        return
    way_out = f"To ask again, delete {path.parent} (or move it away to keep it) and give the same command"
    if not beside.is_file():
        raise InputError(f"{path}: nothing says what produced these answers ({PROVENANCE} is missing). {way_out}")
    differences = find_differences(read_provenance(path), json.loads(json.dumps(wanted)))
    if differences:
        raise InputError(f"{path}: has answers of another variant: {'; '.join(differences[:4])}. {way_out}")


def read_provenance(path: Path) -> dict:
    """What produced the completions in `path`. Raises InputError where nothing beside it says so."""
    beside = path.with_name(PROVENANCE)
    if not beside.is_file():
        raise InputError(f"{beside}: missing, so nothing says what produced {path.name}. Delete {path.parent} to ask again")
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{beside}: broken JSON. Delete {path.parent} to ask again")
    return found


def find_differences(there: Mapping, here: Mapping, name: str = "") -> list[str]:
    """In words, each value of two JSON objects that differs: "grounded: false there, true here"."""
    found = []
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += find_differences(old, new, f"{name}{key} ")
        elif old != new:
            found.append(f"{name}{key}: {_shown(old)} there, {_shown(new)} here")
    return found


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text


def _keep_whole_rows(path: Path, asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (document, task) of each row in the file; a half-written last line is cut off.

    Raises InputError for a line that is no row or answers what is not asked: the file belongs to something else.
    """
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(path, whole)
    done = set()
    for number, line in enumerate(written[:whole].decode("utf-8", "replace").split("\n")[:-1], 1):
        try:
            row = json.loads(line)
            key = (row["document"], row["task"])
            known = key in asked
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path}:{number}: not a row of completions; delete the file to generate it again") from None
        if not known:
            raise InputError(f"{path}:{number}: answers {key[1]} of {key[0]}, not asked here; delete the file")
        done.add(key)
    return done
