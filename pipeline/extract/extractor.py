"""A tuned model as a function from texts to what it found there: `load_extractor("runs/mine")(texts)`.

    from pipeline import load_extractor

    extract = load_extractor("runs/mine")
    for document in extract(["Lithium caused tremor in two patients."]):
        print([entity.name for entity in document.chemicals], document.relations)

The model is always asked as it was trained: layout and answer lengths come from the adapter's medner.json or the GGUF's own
metadata.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.prompts import LAYOUTS, Layout
from data.schema import TASKS, Document, InputError
from eval.chats import Engine, plan_chats
from eval.engines.gguf_metadata import read_metadata
from eval.scoring.baselines import Dictionary
from eval.scoring.logprobs import score_completion
from eval.scoring.parse import parse_answer
from pipeline.extract.results import NOT_ASKED, Extraction, WindowAnswer, build_extraction
from pipeline.extract.windows import OVERLAP, WINDOW, cut_windows

FIRST_BATCH, LARGEST_BATCH = 4, 256  # documents asked at a time
MOST_KNOWN = 10_000  # texts whose results are kept for another time that they come
BATCH_SECONDS = 60.0  # what is lost at most when a process is killed; batches of 20 took a processor twice as long


@dataclass(frozen=True)
class Asked:
    """How a model must be asked: as it was trained, and only the tasks that `max_new_tokens` has.

    `calibration`: (slope, intercept) by task, from validation answers.
    """

    layout: Layout
    max_new_tokens: Mapping[str, int]
    calibration: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Extractor:
    """Call it with texts (strings or Documents); it yields an `Extraction` for each, in their order.

    `engine` answers chats; `window` and `overlap` are in characters; `keep_unwritten` keeps names that are not in the text;
    `known_names` are added where they stand in a text and the model did not list them.
    """

    engine: Engine
    asked: Asked
    window: int = WINDOW
    overlap: int = OVERLAP
    keep_unwritten: bool = False
    min_confidence: float = 0.0
    known_names: Dictionary | None = None

    def __call__(self, texts: Iterable[str | Document]) -> Iterator[Extraction]:
        return extract(self, texts)


def extract(extractor: Extractor, texts: Iterable[str | Document]) -> Iterator[Extraction]:
    """The extractions in the order of the texts; a text that was read before in this call is not asked again."""
    known: dict[str, Extraction] = {}
    size, batch = FIRST_BATCH, []
    for number, text in enumerate(texts):
        batch.append(text if isinstance(text, Document) else Document(f"text-{number + 1}", text))
        if len(batch) == size:
            started = time.monotonic()
            yield from extract_batch(extractor, batch, known)
            seconds = max(time.monotonic() - started, 1e-3)
            size, batch = min(max(1, int(size * min(2.0, BATCH_SECONDS / seconds))), LARGEST_BATCH), []
    yield from extract_batch(extractor, batch, known)


def extract_batch(extractor: Extractor, batch: Sequence[Document], known: dict[str, Extraction]) -> Iterator[Extraction]:
    """The extractions of a few documents. `known`: what was extracted before, by article; added to."""
    new = list({document.article: document for document in batch if document.article not in known}.values())
    windows = [cut_windows(document.article, extractor.window, extractor.overlap) for document in new]
    pieces, place = [], {}
    for index, document in enumerate(new):
        for number, (start, end) in enumerate(windows[index]):
            name = f"{document.id} (text {index + 1}, window {number + 1} of {len(windows[index])})"
            pieces.append(Document(name, document.article[start:end]))
            place[name] = index, number
    asked = extractor.asked
    chats = plan_chats(pieces, layout=asked.layout, tasks=tuple(asked.max_new_tokens), max_new_tokens=asked.max_new_tokens)
    untaught = [WindowAnswer(task, (), (), NOT_ASKED) for task in TASKS if task not in asked.max_new_tokens]
    answers: dict[int, list[tuple[int, WindowAnswer]]] = defaultdict(list)
    for rows in extractor.engine(chats) if chats else ():
        for row in rows:
            index, number = place[row["document"]]
            answers[index].append((number, read_row(row, asked.calibration)))
    for index, document in enumerate(new):
        own = [answer for _, answer in sorted(answers[index], key=lambda pair: (pair[0], TASKS.index(pair[1].task)))]
        known[document.article] = build_extraction(
            document, [*own, *untaught], len(windows[index]),
            keep_unwritten=extractor.keep_unwritten, min_confidence=extractor.min_confidence,
            known_names=extractor.known_names,
        )  # fmt: skip
    for document in batch:
        yield replace(known[document.article], id=document.id, title=document.title)
    while len(known) > MOST_KNOWN:
        known.pop(next(iter(known)))


def read_row(row: Mapping[str, Any], calibration: Mapping[str, tuple[float, float]]) -> WindowAnswer:
    """A row of completions as items with confidences: calibrated where that is known, else the tokens' mean probability."""
    task = row["task"]
    answer = parse_answer(row["completion"], task, row["finish"])
    confidences: list[float | None] = [None] * len(answer.items)
    if row.get("logprobs") and answer.items:
        slope, intercept = calibration.get(task, (None, 0.0))
        for i, score in enumerate(score_completion(dict(row))):
            sure = math.exp(score) if slope is None else 1 / (1 + math.exp(-(slope * score + intercept)))
            confidences[i] = round(sure, 4)  # the digits after depend on which texts were asked together
    return WindowAnswer(task, tuple(answer.items), tuple(confidences), answer.status)


def read_asked(folder: Path) -> Asked:
    """How an adapter or a merged folder is asked: its medner.json. Raises InputError where it has none."""
    path = folder / "medner.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no medner.json, which says how the model was trained to be asked; give --layout and --max-new-tokens"
        )
    facts = json.loads(path.read_text(encoding="utf-8"))
    return Asked(facts["layout"], facts["max_new_tokens"])


def read_gguf_asked(path: Path) -> Asked:
    """How a GGUF file is asked: the `medner.*` keys that `medner export` wrote into it."""
    fields = read_metadata(path).fields
    layout, found = fields.get("medner.layout"), {task: fields.get(f"medner.max_new_tokens.{task}") for task in TASKS}
    budgets = {task: int(tokens) for task, tokens in found.items() if tokens is not None}
    if layout not in LAYOUTS or not budgets:
        raise InputError(f"{path}: does not say how it was trained to be asked; give --layout and --max-new-tokens")
    return Asked(layout, budgets)
