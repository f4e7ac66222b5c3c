"""Names of train that a model's answers lack: what a dictionary knows and the model overlooked, added and told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data.items import index_items
from data.schema import MENTION_TYPE
from data.text import FoldedText, normalise
from eval.scoring.baselines import Dictionary
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import Scored


def places(text: FoldedText, name: str) -> list[tuple[int, int]]:
    """Where the name stands as a whole word, as it is written or else as scoring compares it."""
    return text.spans(name.strip()) or text.spans(normalise(name))


def find_known_names(dictionary: Dictionary, text: FoldedText, listed: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By task, the names of train that stand in the text and in no place of a listed name: each once, as the text writes it.

    >>> from data.schema import Document, Mention
    >>> from eval.scoring.baselines import learn_dictionary
    >>> train = Document("1", "Lithium and failure.", mentions=(Mention("Lithium", "Chemical"), Mention("failure", "Disease")))
    >>> find_known_names(learn_dictionary([train]), FoldedText("Renal failure after lithium."), ["renal failure"])
    {'chemicals': ('lithium',), 'diseases': ()}
    """
    taken = [place for name in listed for place in places(text, name)]
    found: dict[str, dict[str, str]] = {task: {} for task in MENTION_TYPE}
    for start, end, name in dictionary.index.find(text.text):
        if not any(first <= start and end <= last for first, last in taken):
            surface = text.text[start:end]
            found[dictionary.task_of[name]].setdefault(normalise(surface), surface)
    return {task: tuple(names.values()) for task, names in found.items()}


def add_known_names(scored: Scored, predictions: Mapping[tuple[str, str], Answer], dictionary: Dictionary) -> Predictions:
    """The scored documents' predictions: chemicals and diseases with names of train that they lack, relations as they are."""
    added = dict(predictions)
    for document, text in zip(scored.documents, scored.texts, strict=True):
        asked = [task for task in MENTION_TYPE if task in document.tasks]
        own = {task: [item for item in predictions[document.id, task].items if isinstance(item, str)] for task in asked}
        known = find_known_names(dictionary, text, [name for names in own.values() for name in names])
        for task, names in own.items():
            items = tuple(index_items([*names, *known[task]]).values())
            added[document.id, task] = Answer(items, "ok") if known[task] else predictions[document.id, task]
    return added
