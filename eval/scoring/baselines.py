"""Baselines to print beside every score: a dictionary of the names seen in train, and co-occurrence for relations.

A model that does not beat these has learned nothing that a look-up does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data.items import Item
from data.schema import MENTION_TYPE, Document, JsonObject
from data.text import NameIndex, fold
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import Scored, match_others, score_tasks


@dataclass(frozen=True)
class Dictionary:
    """Train's names: the task each most often answers, and the index to look them up with."""

    task_of: dict[str, str]
    index: NameIndex
    pairs: frozenset[tuple[str, str]]


def learn_dictionary(train: Sequence[Document]) -> Dictionary:
    """The names of train's gold, without those that fewer than half of the train articles containing them list.

    Without that, "no" (nitric oxide) and "all" (a leukaemia) cost this baseline a dozen points.
    """
    votes: dict[str, Counter[str]] = {}
    for document in train:
        for task in MENTION_TYPE:
            for name in document.names(task):
                votes.setdefault(fold(name), Counter())[task] += 1
    task_of = {name: max(sorted(tasks), key=tasks.__getitem__) for name, tasks in votes.items()}
    found: Counter[str] = Counter()
    index = NameIndex(task_of)
    for document in train:
        found.update({name for _, _, name in index.find(document.article)})
    kept = {name: task for name, task in task_of.items() if 2 * votes[name][task] >= found[name]}
    pairs = {(fold(chemical), fold(disease)) for document in train for chemical, disease in document.pairs()}
    return Dictionary(kept, NameIndex(kept), frozenset(pairs))


def look_up(dictionary: Dictionary, document: Document) -> dict[str, tuple[str, ...]]:
    """The known names that stand in the article as whole words, longest first, as the article writes them."""
    found: dict[str, dict[str, None]] = {task: {} for task in MENTION_TYPE}
    for start, end, name in dictionary.index.find(document.article):
        found[dictionary.task_of[name]][document.article[start:end]] = None
    return {task: tuple(surfaces) for task, surfaces in found.items()}


def baseline_predictions(dictionary: Dictionary, documents: Sequence[Document], relations: str) -> Predictions:
    """Chemicals and diseases by look-up; of their pairs, those related in train ("dictionary") or all ("cooccurrence")."""
    predictions = {}
    for document in documents:
        names = look_up(dictionary, document)
        every = [(chemical, disease) for chemical in names["chemicals"] for disease in names["diseases"]]
        known = dictionary.pairs if relations == "dictionary" else {(fold(c), fold(d)) for c, d in every}
        related = tuple((c, d) for c, d in every if (fold(c), fold(d)) in known)
        items: dict[str, tuple[Item, ...]] = {**names, "relations": related}
        for task in document.tasks:
            predictions[document.id, task] = Answer(items[task], "ok" if items[task] else "empty")
    return predictions


def score_baselines(train: Sequence[Document], scored: Scored) -> dict[str, JsonObject]:
    """{"dictionary": figures by task, "cooccurrence": {"relations": figures}} on the scored documents, for metrics.json."""
    dictionary = learn_dictionary(train)
    looked_up, paired = (
        score_tasks(match_others(scored, baseline_predictions(dictionary, scored.documents, relations)))
        for relations in ("dictionary", "cooccurrence")
    )
    return {"dictionary": looked_up, "cooccurrence": {task: paired[task] for task in ("relations",) if task in paired}}
