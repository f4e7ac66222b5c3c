"""Predicted names put back to offsets in the article, so that any system that lists names gets official mention scores.

Every whole-word occurrence of a name is a mention, in any letter case; where names compete for the same characters, the
longest has them, chemical or disease. Reads documents and predicted items, writes `predictions.PubTator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.items import Item
from data.readers.pubtator import write_pubtator
from data.schema import MENTION_TYPE, Document, Mention, Relation
from data.text import FoldedText, find_names, fold, normalise


def locate_mentions(document: Document, chemicals: Iterable[str], diseases: Iterable[str]) -> tuple[Mention, ...]:
    """Where the names stand in the article, in its order, each mention with the article's own spelling.

    A name predicted as both types is a mention of both: the system said both, and pays for the wrong one.

    >>> document = Document("1", "Renal failure after lithium; lithium stopped.")
    >>> [(m.text, m.type, m.start) for m in locate_mentions(document, ["Lithium."], ["failure", "renal failure"])]
    [('Renal failure', 'Disease', 0), ('lithium', 'Chemical', 20), ('lithium', 'Chemical', 29)]
    """
    article = FoldedText(document.article)
    types: dict[str, list[str]] = {}
    for kind, names in (("Chemical", chemicals), ("Disease", diseases)):
        for name in names:
            spelling = spelling_in(article, name)
            if spelling and kind not in types.setdefault(spelling, []):
                types[spelling].append(kind)
    return tuple(
        Mention(document.article[start:end], kind, start, end)
        for start, end, spelling in find_names(types, document.article)
        for kind in types[spelling]
    )


def spelling_in(article: FoldedText, name: str) -> str | None:
    """The folded spelling under which a predicted name stands in the article, None where it does not.

    Without its surrounding punctuation first: "lithium." at the end of a sentence names lithium. Then as it is, for names
    that normalisation changes inside (a double space). A name of punctuation alone stands nowhere.
    """
    bare = normalise(name)
    return next((spelling for spelling in (bare, fold(name.strip())) if bare and article.spans(spelling)), None)


def write_mentions(
    documents: Sequence[Document],
    items_by_document: Mapping[str, Mapping[str, Sequence[Item]]],
    path: str | Path,
    ids: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
) -> dict[str, int]:
    """Write the predicted items of every document as PubTator, for official scores.

    `items_by_document[document id][task]` are names; a document without any is written without mentions. `ids`: by (type,
    normalised name), the concepts that a name stands for. Returns {"names_nowhere": names that stand nowhere in their article,
    "relations": those with ids for both names, "relations_without_ids"}: the first and the last have no line.
    """
    ids, located = ids or {}, []
    counts = {"names_nowhere": 0, "relations": 0, "relations_without_ids": 0}
    for document in documents:
        items = items_by_document.get(document.id, {})
        chemicals, diseases = (list(items.get(task, ())) for task in ("chemicals", "diseases"))
        article = FoldedText(document.article)
        counts["names_nowhere"] += sum(spelling_in(article, name) is None for name in chemicals + diseases)
        found = locate_mentions(document, chemicals, diseases)
        mentions = tuple(replace(m, ids=ids.get((m.type, normalise(m.text)), ())) for m in found)
        linked = [link(pair, ids) for pair in items.get("relations", ()) if not isinstance(pair, str)]
        counts["relations"] += sum(map(bool, linked))
        counts["relations_without_ids"] += sum(not one for one in linked)
        relations = tuple(dict.fromkeys(relation for one in linked for relation in one))
        located.append(replace(document, mentions=mentions, relations=relations))
    write_pubtator(located, path)
    return counts


def link(pair: tuple[str, str], ids: Mapping[tuple[str, str], tuple[str, ...]]) -> list[Relation]:
    """The relations between the concepts of two names; none where one of them has no known concept."""
    sides = (ids.get((kind, normalise(name)), ()) for kind, name in zip(MENTION_TYPE.values(), pair, strict=True))
    chemicals, diseases = sides
    return [Relation(*pair, chemical, disease) for chemical in chemicals for disease in diseases]


def for_pubtator(documents: Iterable[Document]) -> tuple[list[Document], dict[str, int]]:
    """The documents as PubTator can express them, and how much it cannot.

    Names without offsets get those of their whole-word occurrences, longest first; others are left out, as is a relation whose
    concepts have no ids.
    """
    written, lost = [], {"names that stand nowhere on their own": 0, "relations without concept ids": 0}
    for document in documents:
        mentions = document.mentions
        if any(mention.start is None for mention in mentions):
            mentions = locate_mentions(document, document.gold("chemicals"), document.gold("diseases"))
            found = {(mention.type, normalise(mention.text)) for mention in mentions}
            names = {(mention.type, normalise(mention.text)) for mention in document.mentions}
            lost["names that stand nowhere on their own"] += len(names - found)
        relations = tuple(r for r in document.relations if r.chemical_id and r.disease_id)
        lost["relations without concept ids"] += len(document.relations) - len(relations)
        written.append(replace(document, mentions=mentions, relations=relations))
    return written, lost
