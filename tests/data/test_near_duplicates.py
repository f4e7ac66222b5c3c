"""Near-duplicates: those of comparing every pair, linked by as few pairs as do, in time that many copies do not blow up."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from articles import cuts, invent, near_duplicates_plainly
from hypothesis import given
from hypothesis import strategies as st

from data.near_duplicates import group_articles, near_duplicates


@given(st.lists(cuts, max_size=12))
def test_near_duplicates_are_those_of_comparing_every_pair(articles):
    pairs, every = near_duplicates(articles), near_duplicates_plainly(articles)
    assert set(pairs) <= set(every) and pairs == sorted(pairs)
    groups = group_articles(len(articles), pairs)
    assert sorted(map(sorted, groups)) == sorted(map(sorted, group_articles(len(articles), every)))
    assert len(pairs) == len(articles) - len(groups)  # a pair less joins fewer


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
    assert sorted(map(sorted, group_articles(len(articles), near_duplicates(articles)))) == [[0, 2, 3], [1]]


def test_hyphenation_hides_no_near_duplicate():
    articles = [document.text for document in invent(40)]
    soft, broken = ("\u00ad".join(text) for text in articles), (text.replace("e", "-\n  e") for text in articles)
    assert near_duplicates([*articles, *soft]) == [(n, n + 40) for n in range(40)]
    assert near_duplicates([*articles, *broken]) == [(n, n + 40) for n in range(40)]


def test_copies_of_one_template_cost_no_more_than_their_text():
    """Five hundred of them make 124,750 pairs, and as many links as are needed are 499."""
    random, words = Random(0), [f"w{n}" for n in range(60)]
    articles = [" ".join([*words[:at], "x", *words[at + 1 :]]) for at in (random.randrange(60) for _ in range(500))]
    tracemalloc.start()
    pairs = near_duplicates(articles)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 499 and peak < 4e6
