"""An engine that finds the few names it knows: extraction and what shows it, tested without a model."""

from __future__ import annotations

import math

from data.prompts import render_answer
from data.schema import TASKS
from data.text import FoldedText
from pipeline.extract.extractor import Asked

KNOWN = {"chemicals": ("lithium", "β-carotene", "=cmd"), "diseases": ("tremor", "renal failure")}
ASKED = Asked("separate", dict.fromkeys(TASKS, 64))


def answer(chats):
    """An engine that knows a few names, says each, one of them twice, and one that is nowhere in the text."""
    for chat in chats:
        rows, found = [], {}
        for task in TASKS[:2]:
            found[task] = [name for name in KNOWN[task] if FoldedText(chat.document.article).spans(name)]
        found["relations"] = [(c, d) for c in found["chemicals"] for d in found["diseases"]]
        for task in chat.tasks:
            items = found[task] + found[task][:1] + (["neverium"] if task == "chemicals" else [])
            completion = render_answer(items)
            logprobs = [[character, math.log(0.9)] for character in completion]
            row = {"document": chat.document.id, "task": task, "completion": completion, "finish": "stop"}
            rows.append(row | {"logprobs": logprobs})
        yield rows
