"""What was found in a text, typed: entities with all their places in the original text, and relations between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

from data.items import Item, normalise_item
from data.schema import MENTION_TYPE, TASKS, Document, InputError
from data.text import FoldedText, normalise
from eval.scoring.baselines import Dictionary
from eval.scoring.known_names import find_known_names
from pipeline.extract.windows import split_sentences

Kind = Literal["Chemical", "Disease"]
NOT_ASKED = "not asked for"  # the status of a task that the model was not trained to answer


@dataclass(frozen=True)
class Entity:
    """A name as the model wrote it, or as the text has it.

    `spans`: (start, end) of its whole-word occurrences in `Extraction.text`, in any letter case; none where it has none.
    `sentence`: the one of its first place. `confidence`: 0 to 1, None where the engine gave no log-probabilities.
    `known_name`: the model did not list it; it is a name of the corpus given as `known_names`.
    """

    name: str
    type: Kind
    spans: tuple[tuple[int, int], ...]
    sentence: str | None
    confidence: float | None
    known_name: bool = False


@dataclass(frozen=True)
class Influence:
    """The chemical causes or worsens the disease, as the text says. Its sides need not be among the entities."""

    chemical: str
    disease: str
    confidence: float | None


@dataclass(frozen=True)
class Extraction:
    """One document's result.

    `text`: title, line break and text; spans count its characters. `windows`: pieces it was read in. `faults`: by task,
    "malformed" or "truncated" where an answer could not be read whole, NOT_ASKED where there is none. `dropped`: how many items
    were left out, by reason.
    """

    id: str
    text: str
    title: str | None
    entities: tuple[Entity, ...]
    relations: tuple[Influence, ...]
    windows: int
    faults: Mapping[str, str]
    dropped: Mapping[str, int]

    @property
    def chemicals(self) -> tuple[Entity, ...]:
        return tuple(entity for entity in self.entities if entity.type == "Chemical")

    @property
    def diseases(self) -> tuple[Entity, ...]:
        return tuple(entity for entity in self.entities if entity.type == "Disease")


@dataclass(frozen=True)
class WindowAnswer:
    """A window's answer to one task: its items in order, each with its confidence; `status` as `parse_answer` gives it."""

    task: str
    items: tuple[Item, ...]
    confidences: tuple[float | None, ...]
    status: str


def build_extraction(
    document: Document,
    answers: Sequence[WindowAnswer],
    windows: int,
    *,
    keep_unwritten: bool,
    min_confidence: float,
    known_names: Dictionary | None = None,
) -> Extraction:
    """One result of all windows' answers: each item once, as sure as where it was surest.

    `keep_unwritten` keeps names that do not stand in the text; `min_confidence` leaves out what is less sure; of `known_names`,
    those that stand in the text and were not listed are added.
    """
    folded = FoldedText(document.article)
    sentences = split_sentences(document.article)
    stands = cache(folded.contains)  # each window of a book may answer the same names
    dropped = {"repeated": 0, "not in the text": 0, "under the confidence": 0}
    found: dict[str, dict[Item, tuple[Item, float | None]]] = {task: {} for task in TASKS}
    faults: dict[str, str] = {}
    for answer in answers:
        if answer.status in ("malformed", "truncated", NOT_ASKED):
            faults[answer.task] = answer.status
        for item, confidence in zip(answer.items, answer.confidences, strict=True):
            key, known = normalise_item(item), found[answer.task]
            if key in known:
                dropped["repeated"] += windows == 1
                confidence = max(filter(None, (confidence, known[key][1])), default=None)
                known[key] = known[key][0], confidence
            elif not keep_unwritten and not all(stands(name) for name in ([item] if isinstance(item, str) else item)):
                dropped["not in the text"] += 1
            else:
                known[key] = item, confidence
    for task in TASKS:
        unsure = [key for key, (_, confidence) in found[task].items() if confidence is not None and confidence < min_confidence]
        dropped["under the confidence"] += len(unsure)
        for key in unsure:
            del found[task][key]
    entities = [
        build_entity(name, MENTION_TYPE[task], confidence, folded, sentences)
        for task in MENTION_TYPE
        for name, confidence in found[task].values()
    ]
    if known_names:
        more = find_known_names(known_names, document.article, [place for entity in entities for place in entity.spans])
        added = [(name, MENTION_TYPE[task]) for task, names in more.items() for name in names]
        entities += [replace(build_entity(*one, None, folded, sentences), known_name=True) for one in added]
    relations = tuple(Influence(*pair, confidence) for pair, confidence in found["relations"].values())
    kept = {reason: count for reason, count in dropped.items() if count}
    return Extraction(document.id, document.article, document.title, tuple(entities), relations, windows, faults, kept)


def build_entity(
    name: str, kind: Any, confidence: float | None, text: FoldedText, sentences: Sequence[tuple[int, int]]
) -> Entity:
    """An entity at all places where the text has its name, with the sentence of the first; no place where it has none."""
    spans = tuple(text.places(name))
    sentence = next((text.text[start:end] for start, end in sentences if spans and start <= spans[0][0] < end), None)
    return Entity(name, kind, spans, sentence, confidence)


def to_json(extraction: Extraction) -> dict[str, Any]:
    """The JSON object of one line of output."""
    return asdict(extraction)


def from_json(row: Mapping[str, Any], where: str) -> Extraction:
    """The extraction that `to_json` wrote. Raises InputError where the row is none."""
    try:
        for name in ("id", "text"):
            row[name].encode()
        entities = tuple(
            Entity(
                e["name"], e["type"], tuple((s, t) for s, t in e["spans"]), e["sentence"], e["confidence"],
                e.get("known_name", False),
            )  # fmt: skip
            for e in row["entities"]
        )
        relations = tuple(Influence(r["chemical"], r["disease"], r["confidence"]) for r in row["relations"])
        facts = (row["windows"], dict(row["faults"]), dict(row["dropped"]))
        return Extraction(row["id"], row["text"], row["title"], entities, relations, *facts)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{where}: not a row that `medner extract` wrote; give another --out, or delete the file") from None


def related_ids(extraction: Extraction) -> Iterable[tuple[int, int, Influence]]:
    """(index of the chemical, index of the disease, relation) for relations whose sides are both among the entities."""
    index = {(entity.type, normalise(entity.name)): number for number, entity in enumerate(extraction.entities)}
    for relation in extraction.relations:
        sides = ("Chemical", normalise(relation.chemical)), ("Disease", normalise(relation.disease))
        if all(side in index for side in sides):
            yield index[sides[0]], index[sides[1]], relation
