"""BioCreative V CDR scores, equal to the official program (BC5CDR_Evaluation 0.0.3) to the last count.

Reads a gold and a predicted file, each PubTator or BioC. Three evaluations, each on sets, micro precision, recall and F1:

    mention    (document, type, start, end)
    id         (document, type, concept id)
    relation   (document, "CID", chemical id, disease id)

As in the official program, a prediction is looked at only where gold has something of the evaluated types in the same
document, offsets are compared, never checked against the text, and an id of another namespace (CHEBI:…, mesh:…) is a wrong id.
"both" is the program run on `Chemical|Disease`, which may look at more documents than either type alone.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.readers.checks import TYPES
from data.table import Table, as_text
from eval.official.loose_reader import RELATION, Annotations, read_annotations

NAMED_TYPES = {kind: (kind,) for kind in TYPES} | {"both": TYPES}
EVALUATIONS = {"mention": NAMED_TYPES, "id": NAMED_TYPES, "relation": {RELATION: (RELATION,)}}
COUNTS, SCORES = ("tp", "fp", "fn"), ("precision", "recall", "f1")
OWN_NAMESPACES = ("MESH", "OMIM")
Key = tuple[str, ...]

IGNORED = {
    "unknown_document": "in documents that gold does not have",
    "document_without_gold": "in documents where gold has none of the type",
    "duplicate": "said twice, counted once",
    "bad_offset": "with an offset that is no whole number",
    "without_id": "names without a concept id: no part in the id evaluation",
    "part_of_composite": "parts of composite names: ids only, no mention",
    "several_locations": "in several places: ids only, no mention",
    "other_type": "of another type",
    "in_sentence_or_passage": "at a level where the official program does not look",
    "holds_a_marker": "lines taken for a title or text, since they contain |t| or |a|",
    "cdata": "CDATA sections, which the official program does not read",
    "broken_line": "lines that are no annotation",
}
WARNINGS = {
    "foreign_id": "ids of another namespace than MESH: or OMIM:, counted as wrong",
    "text_differs": "names that are not what gold's text has at their offsets, counted as they stand",
}


def score_official(gold_path: str | Path, prediction_path: str | Path) -> dict:
    """The official figures of a file of predictions.

    Raises InputError where a file is neither PubTator nor BioC.

    Returns {"mention": {"Chemical": {"tp", "fp", "fn", "precision", "recall", "f1"}, "Disease": …, "both": …}, "id": {…},
    "relation": {"CID": …}}, and counts of annotations: "ignored" (predicted, not looked at), "ignored_in_gold", and
    "warnings" (looked at, and likely a mistake in the file).
    """
    gold, predicted = read_annotations(gold_path), read_annotations(prediction_path)
    figures: dict = {
        evaluation: {
            name: _count(keys(gold, evaluation, types), keys(predicted, evaluation, types)) for name, types in named.items()
        }
        for evaluation, named in EVALUATIONS.items()
    }
    outside = _outside(gold, predicted)
    figures["ignored"] = _counts(IGNORED, predicted.ignored + _duplicates(predicted) + outside)
    figures["ignored_in_gold"] = _counts(IGNORED, gold.ignored + _duplicates(gold))
    figures["warnings"] = _counts(WARNINGS, _suspicious(gold, predicted))
    return figures


def keys(annotations: Annotations, evaluation: str, types: tuple[str, ...]) -> set[Key]:
    """What one evaluation compares: tuples that begin with the document and the type."""
    if evaluation == "relation":
        return {relation for relation in annotations.relations if relation[1] in types}
    found = [found for found in annotations.found if found.type in types]
    if evaluation == "id":
        return {(f.document, f.type, concept) for f in found for concept in f.concepts}
    return {(f.document, f.type, f.start, f.end) for f in found if f.start is not None}


def _count(gold: set[Key], predicted: set[Key]) -> dict[str, float]:
    documents = {key[0] for key in gold}
    seen = {key for key in predicted if key[0] in documents}
    tp = len(gold & seen)
    precision, recall = (tp / len(side) if side else 0.0 for side in (seen, gold))
    f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
    return {"tp": tp, "fp": len(seen) - tp, "fn": len(gold) - tp, "precision": precision, "recall": recall, "f1": f1}


def _said(annotations: Annotations) -> list[Key]:
    """Each mention and relation of the file, as often as it stands there."""
    return [(f.document, f.type, f.start, f.end) for f in annotations.found if f.start is not None] + annotations.relations


def _duplicates(annotations: Annotations) -> Counter[str]:
    said = _said(annotations)
    return Counter(duplicate=len(said) - len(set(said)))


def _outside(gold: Annotations, predicted: Annotations) -> Counter[str]:
    documents, answered = gold.lines, {key[:2] for key in _said(gold)}
    unknown = [key for key in _said(predicted) if key[0] not in documents]
    without = [key for key in _said(predicted) if key[0] in documents and key[:2] not in answered]
    return Counter(unknown_document=len(unknown), document_without_gold=len(without))


def _suspicious(gold: Annotations, predicted: Annotations) -> Counter[str]:
    concepts = [concept for found in predicted.found for concept in found.concepts]
    concepts += [concept for relation in predicted.relations for concept in relation[2:] if concept != "null"]
    foreign = sum(concept.split(":")[0] not in OWN_NAMESPACES for concept in concepts)
    placed = [found for found in predicted.found if found.start is not None and found.document in gold.articles]
    differ = sum(gold.articles[found.document][max(found.start, 0) : max(found.end, 0)] != found.text for found in placed)
    return Counter(foreign_id=foreign, text_differs=differ)


def _counts(names: dict[str, str], counter: Counter[str]) -> dict[str, int]:
    return {name: counter[name] for name in names}


def render_official(figures: dict) -> str:
    """For a terminal, with what was not looked at and what is worth a look."""
    rows = [
        (evaluation, name, *(f"{row[key]:,}" for key in COUNTS), *(f"{row[key]:.4f}" for key in SCORES))
        for evaluation in EVALUATIONS
        for name, row in figures[evaluation].items()
    ]
    noted = (
        ("Not looked at in the predictions", "ignored", IGNORED),
        ("Not looked at in gold", "ignored_in_gold", IGNORED),
        ("Worth a look in the predictions", "warnings", WARNINGS),
    )
    blocks = [as_text(Table(("evaluation", "of", *COUNTS, *SCORES), tuple(rows), words=("of",)))]
    for title, key, names in noted:
        counts = [f"  {figures[key][name]:,} {what}" for name, what in names.items() if figures[key][name]]
        blocks += ["\n".join([f"{title}:", *counts])] if counts else []
    return "\n\n".join(blocks)
