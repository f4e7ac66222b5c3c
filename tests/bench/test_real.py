"""The official figures of every system of a run, and the ceiling that names turned into ids by train have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.real import official_table, score_systems_officially
from data.corpus import read_corpus
from eval.scoring.parse import Answer

CORPUS = Path(__file__).parents[1] / "files" / "invented.PubTator.txt"


def test_systems_are_scored_officially_beside_the_names_of_gold():
    documents = list(read_corpus(CORPUS).documents)
    nothing = {(one.id, task): Answer((), "empty") for one in documents for task in one.tasks}
    found = score_systems_officially(documents, documents, {"says nothing": nothing})
    assert list(found) == ["says_nothing", "names_of_gold"]
    assert found["says_nothing"]["mention"]["both"]["f1"] == 0 < found["names_of_gold"]["mention"]["both"]["f1"]
    assert found["names_of_gold"]["relation"]["CID"]["recall"] == 1  # train has every name's ids: it is test itself
    unseen = score_systems_officially(documents[:1], documents, {})["names_of_gold"]
    assert unseen["id"]["both"]["recall"] < found["names_of_gold"]["id"]["both"]["recall"]
    assert [row[0] for row in official_table(found).rows] == ["says_nothing", "names_of_gold"]


def test_a_gold_without_offsets_or_ids_has_no_official_figures():
    documents = list(read_corpus(CORPUS).documents)
    bare = [replace(one, mentions=tuple(replace(m, start=None, end=None) for m in one.mentions)) for one in documents]
    assert score_systems_officially(documents, bare, {}) == {}
    idless = [replace(one, relations=tuple(replace(r, chemical_id=None) for r in one.relations)) for one in documents]
    assert score_systems_officially(documents, idless, {}) == {}
