"""What the report's browser through articles holds: each article, its items right, wrong and missed, and where they stand.

Offsets count UTF-16 units, as the browser's strings do. The JSON is written so that no text in it can end its script element.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from data.items import names_of, written
from data.prompts import Item
from data.schema import MENTION_TYPE, Document
from data.text import FoldedText
from eval.scoring.confidence import Confidences, surest
from eval.scoring.faults import document_faults
from eval.scoring.parse import Predictions


def describe_documents(
    documents: Sequence[Document], predictions: Predictions, confidences: Confidences | None = None
) -> list[dict]:
    """[{"id", "article", "answers": {task: status}, "items": as `describe_items`}]."""
    return [
        {
            "id": document.id,
            "article": document.article,
            "answers": {task: predictions[document.id, task].status for task in document.tasks},
            "items": list(describe_items(document, predictions, confidences)),
        }
        for document in documents
    ]


def describe_items(document: Document, predictions: Predictions, confidences: Confidences | None) -> Iterator[dict]:
    """{"task", "state": tp|fp|fn, "names", "fault", "near", "confidence", "places": [[start, end, "C" or "D"]]}."""
    text, units = FoldedText(document.article), utf16_offsets(document.article)
    faults = {(f.task, f.kind, f.item): f for f in document_faults(document, predictions)}
    for task in document.tasks:
        gold, answer = written(document.gold(task)), predictions[document.id, task]
        sure = surest(answer.items, confidences[document.id, task]) if confidences else {}
        predicted = written(answer.items)
        states = [("tp" if key in gold else "fp", key, item) for key, item in predicted.items()]
        states += [("fn", key, item) for key, item in gold.items() if key not in predicted]
        for state, key, item in sorted(states, key=lambda entry: ("tp", "fp", "fn").index(entry[0])):
            fault = faults.get((task, state, item))
            yield {
                "task": task,
                "state": state,
                "names": names_of(item),
                "fault": fault and fault.category,
                "near": fault and fault.near and names_of(fault.near),
                "confidence": round(sure[key], 4) if key in sure and state != "fn" else None,
                "places": [[units[a], units[b], letter] for a, b, letter in find_places(text, task, item)],
            }


def find_places(text: FoldedText, task: str, item: Item) -> list[tuple[int, int, str]]:
    """Every whole-word occurrence of the item's names, with the type that each is taken for."""
    kinds = MENTION_TYPE.values() if task == "relations" else (MENTION_TYPE[task],)
    return [(start, end, kind[0]) for name, kind in zip(names_of(item), kinds, strict=True) for start, end in text.spans(name)]


def utf16_offsets(text: str) -> Sequence[int]:
    """For each position of `text`, how many UTF-16 units stand before it."""
    if all(character <= "\uffff" for character in text):
        return range(len(text) + 1)
    return [0, *map(int, np.cumsum([1 + (character > "\uffff") for character in text]))]


def embed_json(value: object) -> str:
    """JSON for a script element: pure ASCII, without `<`, `>` and `&`, so that neither tag nor comment can stand in it."""
    raw = json.dumps(value, separators=(",", ":"))
    return raw.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
