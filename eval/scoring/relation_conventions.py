"""Relations under four conventions side by side, each named in a line, so that nobody compares one with another.

Published relation scores differ by twenty points for the same output, depending on what counts as the same relation. Reads
scored answers; concept ids are needed for two of the four, which are None with a reason where gold has none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from data.items import normalise_item, share
from data.schema import MENTION_TYPE, Document, JsonObject
from data.text import normalise
from eval.scoring.score import Items, Scored, count_sets, score_counts

Pair = tuple[str, str]
TYPES = tuple(MENTION_TYPE.values())

CONVENTIONS = {
    "exact": "exact strings: both names as the gold relation writes them, after normalisation",
    "alias": "alias-aware: each side may be any name the article has for the same concept; a gold relation is right once",
    "mesh": "MeSH ids: names become ids through a dictionary of train's names; a name not in it is wrong",
    "cooccurrence": "co-occurrence baseline: every gold chemical paired with every gold disease of the article",
}


def score_conventions(train: Sequence[Document], scored: Scored) -> dict[str, JsonObject]:
    """{convention: {"convention": its line, "figures": as in metrics.json or None, "reason": None or why there are none}}.

    "mesh" adds "ceiling": what gold's own names score through the same dictionary. "cooccurrence" adds "concepts": the same
    baseline over concept ids (the literature's), beside "figures", which are over exact strings.
    """
    asked = [document for document in scored.documents if "relations" in document.tasks]
    reason = without_ids(asked)
    found: dict[str, np.ndarray | None] = {
        "exact": scored.counts["relations"],
        "alias": None if reason else count_relations(scored, count_aliases),
        "cooccurrence": count_relations(scored, lambda document, _: count_sets(gold_names(document), every_pair(document))),
    }
    described = {name: convention_row(name, counts, scored.weights, reason) for name, counts in found.items()}
    concepts = (
        None if reason else count_relations(scored, lambda d, _: count_sets(gold_concepts(d), every_concept_pair(d)))
    )
    described["cooccurrence"]["concepts"] = None if concepts is None else score_counts(concepts, scored.weights)
    described["mesh"] = score_mesh(train, scored, reason)
    return {name: described[name] for name in CONVENTIONS}


def count_relations(scored: Scored, count: Callable[[Document, AbstractSet[Pair]], tuple[int, int, int]]) -> np.ndarray:
    """(tp, fp, fn) per document, [documents, 3], by `count(document, predicted pairs)`; zeros where none are asked."""
    counts = np.zeros((len(scored.documents), 3), dtype=np.int64)
    for i, document in enumerate(scored.documents):
        if "relations" in document.tasks:
            counts[i] = count(document, pairs_of(scored.predicted[document.id, "relations"]))
    return counts


def convention_row(name: str, counts: np.ndarray | None, weights: np.ndarray, reason: str | None) -> JsonObject:
    """{"convention", "figures", "reason"}: figures are None, with the reason, where `counts` are."""
    scored = None if counts is None else score_counts(counts, weights)
    return {"convention": CONVENTIONS[name], "figures": scored, "reason": reason if counts is None else None}


def without_ids(documents: Sequence[Document]) -> str | None:
    """Why relations cannot be compared as concepts, or None where they can."""
    relations = [(document.id, r) for document in documents for r in document.relations]
    bare = [(where, r) for where, r in relations if r.chemical_id is None or r.disease_id is None]
    if not relations:
        return "the gold has no relation"
    if bare:
        return f"{len(bare)} of {len(relations)} gold relations have no concept ids (the first in document {bare[0][0]!r})"
    return None


def pairs_of(items: Items) -> set[Pair]:
    """The relations among items."""
    return {item for item in items if not isinstance(item, str)}


def gold_names(document: Document) -> set[Pair]:
    """The normalised (chemical, disease) names of a document's relations."""
    return set(map(normalise_item, document.pairs()))


def gold_concepts(document: Document) -> set[Pair]:
    """The (chemical id, disease id) of a document's relations that have both."""
    return {(r.chemical_id, r.disease_id) for r in document.relations if r.chemical_id and r.disease_id}


def concept_forms(document: Document) -> dict[tuple[str, str], set[str]]:
    """By (type, concept id), the normalised names that the article's mentions give the concept."""
    forms: dict[tuple[str, str], set[str]] = defaultdict(set)
    for mention in document.mentions:
        for concept in mention.ids:
            forms[mention.type, concept].add(normalise(mention.text))
    return forms


def accepted_pairs(document: Document) -> dict[Pair, set[Pair]]:
    """By gold pair of names, every pair of names that states the same relation.

    Concept pairs that gold writes alike are one item, as in the exact convention, so gold scored against itself is 1.
    """
    forms, accepted = concept_forms(document), defaultdict[Pair, set[Pair]](set)
    for relation in document.relations:
        gold = normalise_item((relation.chemical, relation.disease))
        chemicals, diseases = forms[TYPES[0], relation.chemical_id or ""], forms[TYPES[1], relation.disease_id or ""]
        accepted[gold] |= {gold} | {(c, d) for c in chemicals for d in diseases}
    return accepted


def count_aliases(document: Document, predicted: AbstractSet[Pair]) -> tuple[int, int, int]:
    """(tp, fp, fn) of the largest one-to-one matching of predicted pairs and gold items.

    A gold item that one predicted pair has taken is taken: the same relation said again through another alias is a false
    positive, as under exact strings, or listing every alias would cost nothing.
    """
    accepted = accepted_pairs(document)
    tp = match_most({gold: names & predicted for gold, names in accepted.items()})
    return tp, len(predicted) - tp, len(accepted) - tp


def match_most(candidates: Mapping[Pair, AbstractSet[Pair]]) -> int:
    """Size of a maximum bipartite matching (augmenting paths) of the keys with their candidates, each used once."""
    taken: dict[Pair, Pair] = {}

    def place(key: Pair, tried: set[Pair]) -> bool:
        for candidate in candidates[key] - tried:
            tried.add(candidate)
            if candidate not in taken or place(taken[candidate], tried):
                taken[candidate] = key
                return True
        return False

    return sum(place(key, set()) for key in candidates)


def every_pair(document: Document) -> set[Pair]:
    """Each chemical with each disease that gold names in the document, normalised."""
    names = {kind: {normalise(m.text) for m in document.mentions if m.type == kind} for kind in TYPES}
    return {(chemical, disease) for chemical in names[TYPES[0]] for disease in names[TYPES[1]]}


def every_concept_pair(document: Document) -> set[Pair]:
    """Each chemical's id with each disease's id of a document's mentions."""
    concepts = {kind: {i for m in document.mentions if m.type == kind for i in m.ids} for kind in TYPES}
    return {(chemical, disease) for chemical in concepts[TYPES[0]] for disease in concepts[TYPES[1]]}


def learn_ids(train: Sequence[Document]) -> dict[tuple[str, str], tuple[str, ...]]:
    """By (type, normalised name), the concept ids that train's mentions give it most often (first in order where equal)."""
    votes: dict[tuple[str, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for document in train:
        for mention in document.mentions:
            if mention.ids:
                votes[mention.type, normalise(mention.text)][mention.ids] += 1
    return {name: max(sorted(ids), key=ids.__getitem__) for name, ids in votes.items()}


def to_ids(pairs: AbstractSet[Pair], ids: Mapping[tuple[str, str], tuple[str, ...]]) -> set[Pair]:
    """The pairs as pairs of ids; a name of several concepts gives each, and one that train lacks stays itself: never right."""
    return {
        (chemical_id, disease_id)
        for chemical, disease in pairs
        for chemical_id in ids.get((TYPES[0], chemical), (f"unknown: {chemical}",))
        for disease_id in ids.get((TYPES[1], disease), (f"unknown: {disease}",))
    }


def score_mesh(train: Sequence[Document], scored: Scored, reason: str | None) -> JsonObject:
    """The answers as ids through train's names, and the ceiling that gold's own names reach through them."""
    ids = {} if reason else learn_ids(train)
    if not reason and not ids:
        reason = "no mention of the train documents has a concept id"
    if reason:
        return convention_row("mesh", None, scored.weights, reason) | {"ceiling": None, "names": 0, "gold_in_dictionary": None}
    counts = count_relations(scored, lambda d, answer: count_sets(gold_concepts(d), to_ids(answer, ids)))
    ceiling = count_relations(scored, lambda d, _: count_sets(gold_concepts(d), to_ids(gold_names(d), ids)))
    pairs = [pair for (_, task), items in scored.gold.items() if task == "relations" for pair in pairs_of(items)]
    known = sum((TYPES[0], chemical) in ids and (TYPES[1], disease) in ids for chemical, disease in pairs)
    return convention_row("mesh", counts, scored.weights, None) | {
        "ceiling": score_counts(ceiling, scored.weights),
        "names": len(ids),
        "gold_in_dictionary": share(known, len(pairs)),
    }
