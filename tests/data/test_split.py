"""Splitting by article: near-duplicates together, the same members whatever the order, the process or the machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from articles import cuts, invent, near_duplicates_plainly
from hypothesis import given, settings
from hypothesis import strategies as st

from data.readers.rows import join_rows, read_rows
from data.schema import SPLITS, Document
from data.split import row_level_split, split_documents

TEST_IDS = "1621ba96"
TITLED_TEST_IDS = "2e12aeeb"


def ids(split: dict[str, list[Document]]) -> dict[str, set[str]]:
    return {name: {document.id for document in split[name]} for name in SPLITS}


@settings(max_examples=30)
@given(st.integers(0, 30), st.integers(0, 5), st.randoms(use_true_random=False))
def test_every_article_is_in_one_split_whatever_the_order(count, seed, random):
    documents = invent(count)
    split = split_documents(documents, seed)
    assert sorted(d.id for name in SPLITS for d in split[name]) == sorted(d.id for d in documents)
    shuffled = documents[:]
    random.shuffle(shuffled)
    assert ids(split_documents(shuffled, seed)) == ids(split)
    assert all(split[name] == [d for d in documents if d in split[name]] for name in SPLITS)


@settings(max_examples=50)
@given(st.lists(cuts, min_size=1, max_size=25))
def test_near_duplicates_never_part(articles):
    split = split_documents([Document(str(n), article) for n, article in enumerate(articles)], 42)
    home = {int(document.id): name for name in SPLITS for document in split[name]}
    assert all(home[i] == home[j] for i, j in near_duplicates_plainly(articles))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, (0, 0, 0)), (1, (1, 0, 0)), (4, (4, 0, 0)), (6, (4, 1, 1)), (10, (8, 1, 1)), (24, (20, 2, 2)), (100, (80, 10, 10))],
)
def test_sizes(count, sizes):
    split = split_documents(invent(count), 42)
    assert tuple(len(split[name]) for name in SPLITS) == sizes


def test_a_group_too_large_for_test_goes_to_train():
    same = [Document(f"s{n}", "a b c d e f g") for n in range(15)]
    split = split_documents(invent(15) + same, 42)
    assert {name: len(split[name]) for name in SPLITS} == {"train": 24, "validation": 3, "test": 3}
    assert set(same) <= set(split["train"])


def digest_of_test_ids(seed: int) -> str:
    names = sorted(document.id for document in split_documents(invent(200), seed)["test"])
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]


@pytest.mark.slow
def test_machines_and_processes_agree():
    """Python hashes strings differently in every process, and nothing of that may show."""
    assert digest_of_test_ids(42) == TEST_IDS
    assert digest_of_test_ids(43) != TEST_IDS
    for seed in ("0", "1"):
        asked = [sys.executable, "-c", "from test_split import digest_of_test_ids; print(digest_of_test_ids(42))"]
        here = Path(__file__).parent
        path = os.pathsep.join(map(str, [here, here.parent / "support", here.parents[1]]))
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        assert subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout.strip() == TEST_IDS


def test_texts_without_hyphenation_are_split_as_before_it_was_looked_through():
    documents = [document for seed in range(3) for document in invent(100, seed)]
    documents = [Document(f"{n}", d.text, d.text[:20]) for n, d in enumerate(documents)]
    names = sorted(d.id for d in split_documents(documents, 7)["test"])
    assert hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8] == TITLED_TEST_IDS


@pytest.mark.parametrize(
    ("syllable", "broken"), [("(?=.)", "\u00ad"), (r"(?<=\w)(?=ta|mi|re)", "-\n"), (r"ol(?=\w)", "ol\u2010 \r\n")]
)
def test_hyphenation_parts_no_near_duplicates(syllable, broken):
    documents = invent(40)
    twins = [Document(f"t{n}", re.sub(syllable, broken, d.text)) for n, d in enumerate(documents)]
    home = {d.id: name for name, part in split_documents(documents + twins, 42).items() for d in part}
    assert len(set(home.values())) == 3 and all(home[f"d{n}"] == home[f"t{n}"] for n in range(40))


@pytest.mark.slow
def test_the_users_file_is_split_by_article(shared_data):
    rows = read_rows(shared_data / "both_rel_instruct_all.jsonl")
    documents = join_rows(rows)
    split = split_documents(documents, 42)
    assert [len(split[name]) for name in SPLITS] == [800, 100, 100]
    assert [sum(len(d.tasks) for d in split[name]) for name in SPLITS] == [2400, 300, 300]
    Random(1).shuffle(rows)
    assert ids(split_documents(join_rows(rows), 42)) == ids(split)


def test_a_split_by_rows_has_its_sizes_and_is_the_same_again():
    names = row_level_split(100, 42)
    assert {name: names.count(name) for name in SPLITS} == {"train": 80, "validation": 10, "test": 10}
    assert names == row_level_split(100, 42) != row_level_split(100, 43)
