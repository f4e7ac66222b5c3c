"""Every false positive and false negative in a category, with counts and examples; and what filtering alone would mend.

Reads scored answers. Each fault is in the first category of `CATEGORIES` that fits it, so counts add up to the fp
and fn of metrics.json. `near` is the item on the other side (gold for a false positive) that explains it, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data.items import Item, index_items, names_of
from data.schema import TASKS, Document, JsonObject
from data.text import FoldedText
from eval.scoring.likeness import (
    abbreviates,
    is_abbreviation,
    is_composite_part,
    is_part,
    look_alike_key,
    variant_key,
    words_of,
)
from eval.scoring.parse import Answer, Predictions
from eval.scoring.relation_conventions import accepted_pairs
from eval.scoring.score import Items, Scored, match_others, score_answers

Kind = Literal["fp", "fn"]
Answers = Mapping[str, Items]  # by task
EXAMPLES = 5
OTHER_TYPE = {"chemicals": "diseases", "diseases": "chemicals"}

CATEGORIES = {
    "unreadable": "the answer was malformed and counts as none",
    "no_verbatim": "gold that no verbatim reader can find: a name is no whole word of the article",
    "other_type": "right name, listed under the other type",
    "reversed": "a gold relation with its two sides exchanged",
    "alias": "a gold relation under other names of the same concepts",
    "look_alike": "differs only in characters that look alike: ' and ’, - and ‑ or –",
    "variant": "differs in hyphen, space, bracket, plural or spelling only",
    "composite": "part or whole of a composite name, such as 'renal and hepatic failure'",
    "not_in_text": "predicted, and not in the article as whole words",
    "shorter": "part of the longer name on the other side",
    "longer": "longer than the name on the other side, which it contains",
    "boundary": "overlaps the name on the other side",
    "abbreviation": "an abbreviation, or the full name of one",
    "wrong_chemical": "a relation of which the disease is right and the chemical is not",
    "wrong_disease": "a relation of which the chemical is right and the disease is not",
    "unrelated": "both names are gold names of the article, which does not relate them",
    "truncated": "the answer ran out of tokens before it",
    "name_missed": "a relation of which the model did not list a name either",
    "spurious": "in the article, and nothing like it in gold",
    "missed": "nothing like it predicted",
}


@dataclass(frozen=True)
class Fault:
    """One false positive or false negative, its item as gold or the model wrote it."""

    document: str
    task: str
    kind: Kind
    item: Item
    category: str
    near: Item | None = None


@dataclass(frozen=True)
class Sides:
    """What a fault is judged by: the other side's items, those of the other type, and the places of names in the article."""

    document: Document
    kind: Kind
    answer: Answer
    others: Items  # of the other side, wrong ones first
    other_type: frozenset[Item]
    known: frozenset[Item]  # names listed by the other side under chemicals and diseases
    spans: dict[str, list[tuple[int, int]]]
    text: FoldedText

    def places(self, name: str) -> list[tuple[int, int]]:
        if name not in self.spans:
            self.spans[name] = self.text.spans(name)
        return self.spans[name]


def find_faults(scored: Scored) -> list[Fault]:
    """Every fault, in the order of documents and tasks, false positives before false negatives."""
    pairs = zip(scored.documents, scored.texts, strict=True)
    return [fault for document, text in pairs for fault in document_faults(document, text, scored)]


def document_faults(document: Document, text: FoldedText, scored: Scored) -> Iterator[Fault]:
    """Every false positive and false negative of a document, each with its category and what it was taken for."""
    gold = {task: scored.gold[document.id, task] for task in document.tasks}
    predicted = {task: scored.predicted[document.id, task] for task in document.tasks}
    spans: dict[str, list[tuple[int, int]]] = {}
    for task in document.tasks:
        directions: tuple[tuple[Kind, Answers, Answers], ...] = (("fp", predicted, gold), ("fn", gold, predicted))
        for kind, own, other in directions:
            others = dict(sorted(other[task].items(), key=lambda pair: pair[0] in own[task]))
            sides = Sides(
                document,
                kind,
                scored.predictions[document.id, task],
                others,
                frozenset(other.get(OTHER_TYPE.get(task, ""), ())),
                frozenset(name for t in OTHER_TYPE for name in other.get(t, ())) | {n for o in others for n in names_of(o)},
                spans,
                text,
            )
            for item in (item for item in own[task] if item not in other[task]):
                category, near = categorise(item, sides)
                yield Fault(document.id, task, kind, own[task][item], category, near and others.get(near, near))


def categorise(item: Item, sides: Sides) -> tuple[str, Item | None]:
    """(category, nearest item of the other side) of a normalised item."""
    return categorise_name(item, sides) if isinstance(item, str) else categorise_relation(item, sides)


def unreachable(item: Item, sides: Sides) -> str | None:
    """The category of a fault that has nothing to do with the item's name: none of the model's choosing."""
    if sides.kind == "fn" and sides.answer.status == "malformed":
        return "unreadable"
    return "no_verbatim" if sides.kind == "fn" and not in_text(item, sides) else None


def in_text(item: Item, sides: Sides) -> bool:
    """Whether all names of an item stand in the document."""
    return all(sides.places(name) for name in names_of(item))


def categorise_name(name: str, sides: Sides) -> tuple[str, Item | None]:
    """(category, the name on the other side that it was likened to or None), the first of `CATEGORIES` that is true of it."""
    lost = unreachable(name, sides)
    if lost:
        return lost, None
    if name in sides.other_type:
        return "other_type", None
    near: dict[str | None, Item] = {}
    for other in sides.others:
        if isinstance(other, str):
            near.setdefault(likeness(name, other, sides), other)
    for category in ("look_alike", "variant", "composite", "not_in_text", "shorter", "longer", "boundary", "abbreviation"):
        if category in near:
            return category, near[category]
        if category == "not_in_text" and not in_text(name, sides):
            return category, None
    if sides.kind == "fp":
        return "spurious", None
    if is_short(name, sides):
        return "abbreviation", None
    return ("truncated" if sides.answer.status == "truncated" else "missed"), None


def likeness(name: str, other: str, sides: Sides) -> str | None:
    """How a normalised name comes near another one, or None."""
    if look_alike_key(name) == look_alike_key(other):
        return "look_alike"
    if variant_key(name) == variant_key(other) != "":
        return "variant"
    if is_composite_part(name, other) or is_composite_part(other, name):
        return "composite"
    words, rest = words_of(name), words_of(other)
    if is_part(words, rest):
        return "shorter"
    if is_part(rest, words):
        return "longer"
    if any(start < stop and begin < end for start, end in sides.places(name) for begin, stop in sides.places(other)):
        return "boundary"
    pairs = ((name, other), (other, name))
    return "abbreviation" if any(is_short(a, sides) and abbreviates(a, b) for a, b in pairs) else None


def is_short(name: str, sides: Sides) -> bool:
    """Whether the article writes the normalised name as an abbreviation."""
    return any(is_abbreviation(sides.document.article[start:end]) for start, end in sides.places(name)[:1])


def categorise_relation(pair: tuple[str, str], sides: Sides) -> tuple[str, Item | None]:
    """As `categorise_name`, for a pair: reversed, under an alias, by what its names differ in, or unrelated."""
    lost = unreachable(pair, sides)
    if lost:
        return lost, None
    if pair[::-1] in sides.others:
        return "reversed", pair[::-1]
    aliased = find_alias(pair, sides)
    if aliased:
        return "alias", aliased
    near = [other for other in sides.others if all(same(*names, sides) for names in zip(pair, other, strict=True))]
    if near:
        kinds = {likeness(*names, sides) for names in zip(pair, near[0], strict=True) if names[0] != names[1]}
        return next(category for category in CATEGORIES if category in kinds), near[0]
    if sides.kind == "fp" and not in_text(pair, sides):
        return "not_in_text", None
    if sides.kind == "fp" and sides.known.issuperset(pair):
        return "unrelated", None
    for category, side in (("wrong_chemical", 1), ("wrong_disease", 0)):
        near = [other for other in sides.others if other[side] == pair[side]]
        if near:
            return category, near[0]
    if sides.kind == "fp":
        return "spurious", None
    if sides.answer.status == "truncated":
        return "truncated", None
    return ("missed" if sides.known.issuperset(pair) else "name_missed"), None


def same(name: str, other: str, sides: Sides) -> bool:
    """Whether two sides of a relation are one name but for its form."""
    return name == other or likeness(name, other, sides) is not None


def find_alias(pair: tuple[str, str], sides: Sides) -> Item | None:
    """The other side's item that states the same relation between concepts; None too where gold has no ids."""
    if any(r.chemical_id is None or r.disease_id is None for r in sides.document.relations):
        return None
    accepted = accepted_pairs(sides.document)
    if sides.kind == "fn":
        return next((other for other in sides.others if other in accepted.get(pair, ())), None)
    return next((gold for gold, names in accepted.items() if pair in names), None)


def count_faults(faults: Sequence[Fault]) -> dict[str, JsonObject]:
    """{task: {"fp" | "fn": {category: {"count", "examples": [{"document", "item", "near"}]}}}}, the commonest first."""
    counted: dict[str, JsonObject] = {task: {"fp": {}, "fn": {}} for task in TASKS}
    for fault in faults:
        own = counted[fault.task][fault.kind].setdefault(fault.category, {"count": 0, "examples": []})
        own["count"] += 1
        if len(own["examples"]) < EXAMPLES:
            own["examples"].append({"document": fault.document, "item": fault.item, "near": fault.near})
    return {
        task: {kind: dict(sorted(own.items(), key=lambda pair: -pair[1]["count"])) for kind, own in kinds.items()}
        for task, kinds in counted.items()
    }


def filter_predictions(scored: Scored) -> Predictions:
    """The predictions without items that are not in the text or are said again: what needs no model to mend."""
    texts = {document.id: text for document, text in zip(scored.documents, scored.texts, strict=True)}
    filtered = {}
    for key in scored.gold:
        answer = scored.predictions[key]
        kept = index_items([item for item in answer.items if all(map(texts[key[0]].contains, names_of(item)))])
        filtered[key] = Answer(tuple(kept.values()), "empty" if answer.status == "ok" and not kept else answer.status)
    return filtered


def score_faults(scored: Scored, raw: JsonObject, faults: Sequence[Fault]) -> JsonObject:
    """{"categories": as `count_faults`, "names": CATEGORIES, "raw" and "filtered": {"tasks", "micro", "macro", "rates"}}.

    `raw`: what `score_answers` gives for the same answers. `faults`: what `find_faults` finds in them.
    """
    versions = {"raw": raw, "filtered": score_answers(match_others(scored, filter_predictions(scored)))}
    keys = ("tasks", "micro", "macro", "rates")
    return {"categories": count_faults(faults), "names": CATEGORIES} | {
        name: {key: own[key] for key in keys} for name, own in versions.items()
    }
