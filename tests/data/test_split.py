"""Splitting by article: near-duplicates together, the same members whatever the order, the process or the machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from articles import SYLLABLES, invent
from hypothesis import given, settings
from hypothesis import strategies as st

from data.readers.rows import join_rows, read_rows
from data.schema import SPLITS, Document
from data.split import CONTAINMENT, WORD, group_near_duplicates, near_duplicates, row_level_split, split_documents
from data.text import fold

TEST_IDS = "1621ba96"


def ids(split: dict[str, list[Document]]) -> dict[str, set[str]]:
    return {name: {document.id for document in split[name]} for name in SPLITS}


def near_duplicates_plainly(articles: list[str]) -> list[tuple[int, int]]:
    """Every pair compared: of the smaller set of runs of five words, half or more stand in the other."""
    runs = []
    for article in articles:
        words = WORD.findall(fold(article))
        width = min(5, len(words))
        runs.append({tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set())
    return [
        (i, j)
        for j in range(len(articles))
        for i in range(j)
        if runs[i] and runs[j] and len(runs[i] & runs[j]) >= CONTAINMENT * min(len(runs[i]), len(runs[j]))
    ]


# Texts cut from few sources share much; a few letters as words share runs by chance.
sources = [" ".join(Random(n).choices(SYLLABLES, k=40)).split() for n in range(3)]
cuts = st.builds(
    lambda source, start, length, more: " ".join([*sources[source][start : start + length], *more]),
    st.integers(0, 2), st.integers(0, 30), st.integers(0, 20), st.lists(st.sampled_from("abc"), max_size=12),
)  # fmt: skip


@given(st.lists(cuts, max_size=12))
def test_near_duplicates_are_those_of_comparing_every_pair(articles):
    assert near_duplicates(articles) == sorted(near_duplicates_plainly(articles))


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("a b c d e f", "A B, C D E F!", True),
        ("a b c d e f g h", "a b c d e f x y", True),  # two of four runs
        ("a b c d e f g h", "a b c d e x y z", False),  # one of four
        ("a b c d e", "x a b c d e y z v w", True),  # the smaller one stands whole in the other
        ("a b c", "a b c", True),
        ("a b c", "a b c d", False),
        ("a b c", "", False),
    ],
)
def test_half_of_the_smaller_article_makes_a_near_duplicate(one, other, near):
    assert bool(near_duplicates([one, other])) is near is bool(near_duplicates([other, one]))


def test_groups_join_what_is_near_to_the_same():
    articles = ["a b c d e f g h", "x y z v w", "e f g h i j k l", "a b c d e f g h i j k l"]
    assert sorted(map(sorted, group_near_duplicates(articles))) == [[0, 2, 3], [1]]


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
