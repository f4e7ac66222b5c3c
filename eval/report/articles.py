"""What the report's browser through articles shows: each article, its items right, wrong and missed, and where they stand.

Offsets count UTF-16 units, as the browser's strings do. The JSON is written so that no text in it can end its script element.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.items import Item, names_of
from data.schema import MENTION_TYPE, Document
from data.text import FoldedText
from eval.scoring.confidence import surest
from eval.scoring.faults import Fault
from eval.scoring.logprobs import Confidences
from eval.scoring.score import Scored

TITLE = 120  # characters of it, at most


def describe_documents(scored: Scored, faults: Sequence[Fault], confidences: Confidences | None = None) -> list[dict]:
    """[{"id", "title", "article", "answers": {task: status}, "items": as `describe_items`}]."""
    by_item = {(fault.document, fault.task, fault.kind, fault.item): fault for fault in faults}
    return [
        {
            "id": document.id,
            "title": title_of(document),
            "article": document.article,
            "answers": {task: scored.predictions[document.id, task].status for task in document.tasks},
            "items": list(describe_items(document, text, scored, by_item, confidences)),
        }
        for document, text in zip(scored.documents, scored.texts, strict=True)
    ]


def title_of(document: Document) -> str:
    """What it opens with: its title, where it has one on a line of its own."""
    first = document.article.strip().partition("\n")[0]
    return first if len(first) <= TITLE else first[:TITLE].rpartition(" ")[0] + " …"


def describe_items(
    document: Document, text: FoldedText, scored: Scored, faults: Mapping[tuple, Fault], confidences: Confidences | None
) -> Iterator[dict]:
    """{"task", "state": tp|fp|fn, "names", "fault", "near", "confidence", "places": [[start, end, "C" or "D"]]}."""
    units = utf16_offsets(document.article)
    for task in document.tasks:
        key = (document.id, task)
        sure = surest(scored.predictions[key].items, confidences[key]) if confidences else {}
        states = [("tp", item) for item in scored.right(key)] + [("fp", item) for item in scored.wrong(key)]
        for state, own in [*states, *(("fn", item) for item in scored.missed(key))]:
            item = (scored.gold if state == "fn" else scored.predicted)[key][own]
            fault = faults.get((*key, state, item))
            yield {
                "task": task,
                "state": state,
                "names": names_of(item),
                "fault": fault and fault.category,
                "near": fault and fault.near and names_of(fault.near),
                "confidence": round(sure[own], 4) if own in sure and state != "fn" else None,
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
