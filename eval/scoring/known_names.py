"""Names of train that a model's answers lack: what a dictionary knows and the model overlooked, added and told apart."""

from __future__ import annotations

from collections.abc import Sequence

from data.items import index_items
from data.schema import MENTION_TYPE
from data.text import normalise
from eval.scoring.baselines import Dictionary
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import Scored


def find_known_names(dictionary: Dictionary, text: str, taken: Sequence[tuple[int, int]]) -> dict[str, tuple[str, ...]]:
    """By task, the names of train that stand in the text outside the taken places (start, end): each once, as the text has it.

    >>> from data.schema import Document, Mention
    >>> from eval.scoring.baselines import learn_dictionary
    >>> train = Document("1", "Lithium and failure.", mentions=(Mention("Lithium", "Chemical"), Mention("failure", "Disease")))
    >>> find_known_names(learn_dictionary([train]), "Renal failure after lithium.", [(0, 13)])
    {'chemicals': ('lithium',), 'diseases': ()}
    """
    found: dict[str, dict[str, str]] = {task: {} for task in MENTION_TYPE}
    for start, end, name in dictionary.index.find(text):
        if not any(first <= start and end <= last for first, last in taken):
            surface = text[start:end]
            found[dictionary.task_of[name]].setdefault(normalise(surface), surface)
    return {task: tuple(names.values()) for task, names in found.items()}


def add_known_names(scored: Scored, dictionary: Dictionary) -> Predictions:
    """The predictions, chemicals and diseases with names of train that they lack, relations as they are."""
    added = dict(scored.predictions)
    for document, text in zip(scored.documents, scored.texts, strict=True):
        asked = [task for task in MENTION_TYPE if task in document.tasks]
        own = {task: [item for item in added[document.id, task].items if isinstance(item, str)] for task in asked}
        taken = [place for names in own.values() for name in names for place in text.places(name)]
        known = find_known_names(dictionary, document.article, taken)
        for task, names in own.items():
            if known[task]:
                items, status = index_items([*names, *known[task]]).values(), added[document.id, task].status
                added[document.id, task] = Answer(tuple(items), "ok" if status == "empty" else status)
    return added
