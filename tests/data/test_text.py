"""Names as scoring compares them, and where they stand in an article."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text import FoldedText, NameIndex, find_names, fold, is_word_edge, normalise

# what has gone wrong elsewhere: letters that fold to two, signs that fold to letters, marks that join the letter before
AWKWARD = "aAeEiI12 -+()[]{}|.,;:'\"ßẞİıſﬁﬂ™㎖½²⁺αΑςΣ\u0301\u0308\u0323\u0344\uff9e\u1100\u1161\u11a8"
texts = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters(exclude_categories=["Cs"])), max_size=30)
short_texts = st.text(st.sampled_from("aAb1 -(ßﬁ™㎖e\u0301"), max_size=24)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Naloxone", "naloxone"),
        ("  renal \t failure\u00a0", "renal failure"),
        ('"Naloxone," ', "naloxone"),
        ("«lithium»", "lithium"),
        ("lithium.", "lithium"),
        ("Na+", "na+"),
        ("(+)-catechin", "(+)-catechin"),
        ("(-)-[3H]QNB", "(-)-[3h]qnb"),
        ("5-HT(1A)", "5-ht(1a)"),
        ("5-HT(1A", "5-ht(1a"),  # only at the ends is a bracket unmatched beyond doubt
        ("1,2-dichloroethane", "1,2-dichloroethane"),
        ("(renal", "renal"),
        ("failure)", "failure"),
        ("renal failure (", "renal failure"),
        ("[failure)", "failure"),
        ("(acute) renal failure)", "(acute) renal failure"),
        ("((a)", "(a)"),
        ("(a))", "(a)"),
        ("(a) and (b)", "(a) and (b)"),
        ("- lithium", "- lithium"),  # a hyphen is no punctuation here: it may be a charge
        ("ﬁbrosis", "fibrosis"),
        ("Straße", "strasse"),
        ("H₂O", "h2o"),
        ("α-Methyldopa", "α-methyldopa"),
        ("Sjo\u0308gren", "sjögren"),
        ("İ", "i\u0307"),
        ("", ""),
        (").;(", ""),
        ("().;", "()"),
    ],
)
def test_normalise(name, expected):
    assert normalise(name) == expected


@pytest.mark.slow
def test_folding_settles_for_every_letter_there_is():
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) not in ("Cn", "Co", "Cs"):
            folded = fold(letter)
            assert folded == letter or fold(folded) == folded, hex(code)


@pytest.mark.parametrize(
    ("letter", "folded"),
    [("ǰ", "ǰ"), ("J\u030c", "ǰ"), ("ẗ", "ẗ"), ("ῶ", "ῶ"), ("Ω\u0342", "ῶ"), ("ῷ", "ῶι"), ("ΐ", "ΐ"), ("ẞ", "ss")],
)
def test_letters_that_folding_takes_apart_are_put_together_again(letter, folded):
    assert fold(letter) == folded
    assert FoldedText(f"x{folded} X{letter}").spans(f"x{letter}") == [
        (0, 1 + len(folded)),
        (2 + len(folded), 3 + len(folded) + len(letter)),
    ]


HEAPS = ["(" * 50_000, "(" * 20_000 + "a" + "]" * 20_000, "a" + "\u0301\u0323" * 25_000, "™" * 20_000, "\u0345" * 50_000]


@pytest.mark.slow
@pytest.mark.parametrize("heap", HEAPS)
def test_heaps_of_brackets_and_marks_take_time_that_grows_with_their_length(heap):
    began = time.process_time()
    assert normalise(normalise(heap)) == normalise(heap)
    assert FoldedText(heap).folded == fold(heap)
    assert NameIndex(["lithium", heap[:20]]).find(heap) is not None
    assert time.process_time() - began < 4  # each took minutes


def normalise_plainly(name):
    """One character taken from an end at a time, brackets counted anew each time."""
    name, closing = " ".join(fold(name).split()), {")": "(", "]": "[", "}": "{"}
    while name:
        depths = [sum((c == closing.get(name[-1])) - (c == name[-1]) for c in name[at:]) for at in range(len(name))]
        ahead = [sum((c == name[0]) - (closing.get(c) == name[0]) for c in name[: at + 1]) for at in range(len(name))]
        if name[0] in "\"'`´“”‘’„«»‹›.,;:)]}" or name[0] in "([{" and 0 not in ahead:
            name = name[1:].lstrip()
        elif name[-1] in "\"'`´“”‘’„«»‹›.,;:([{" or name[-1] in ")]}" and 0 not in depths:
            name = name[:-1].rstrip()
        else:
            break
    return name


@given(st.text(st.sampled_from("a ()[]{}\"'.;-"), max_size=14))
def test_ends_are_taken_away_as_if_one_by_one(name):
    assert normalise(name) == normalise_plainly(name)


@given(texts)
def test_normalising_again_changes_nothing(name):
    assert normalise(normalise(name)) == normalise(name)
    assert fold(fold(name)) == fold(name)


@given(texts)
def test_letter_case_and_composition_do_not_tell_names_apart(name):
    assert normalise(name.casefold()) == normalise(name)
    assert normalise(unicodedata.normalize("NFD", name)) == normalise(name)
    assert normalise(f' "{name}", ') == normalise(name)


@given(texts)
def test_folding_by_pieces_is_folding_the_whole(text):
    folded = FoldedText(text)
    assert folded.folded == fold(text)
    assert len(folded.origin) == len(folded.folded) + 1
    assert list(folded.origin) == sorted(folded.origin)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ca2+", "Ca2+ or CA2+, not xCa2+", ["Ca2+", "CA2+"]),
        ("strasse", "In der Straße, STRASSE", ["Straße", "STRASSE"]),
        ("Straße", "strasse", ["strasse"]),
        ("ras", "Straße", []),
        ("s", "ß", []),  # half of a letter is none
        ("i\u0307stanbul", "x İstanbul", ["İstanbul"]),
        ("i", "İ", []),
        ("fibrosis", "ﬁbrosis and Fibrosis", ["ﬁbrosis", "Fibrosis"]),
        ("f", "ﬁ", []),
        ("Sjögren", "Sjo\u0308gren, Sjögren", ["Sjo\u0308gren", "Sjögren"]),
        ("Sjo\u0308gren", "Sjo\u0308gren, Sjögren", ["Sjo\u0308gren", "Sjögren"]),
        ("x\u0323\u0301", "x\u0301\u0323", ["x\u0301\u0323"]),
        ("x", "x\u0301", []),
        ("aspirin", "Aspirin™ and xaspirin", ["Aspirin"]),
        ("5 ml", "5 ㎖", ["5 ㎖"]),
        ("(5-HT)", "serotonin (5-HT), 5-HT", ["(5-HT)"]),
        ("aa aa", "aa aa aa", ["aa aa", "aa aa"]),
        ("", "anything", []),
        ("tremor", "", []),
        ("α", "α-methyl, β", ["α"]),
    ],
)
def test_offsets_are_of_the_original_text(name, text, expected):
    assert [text[start:end] for start, end in FoldedText(text).spans(name)] == expected


@given(texts, texts, texts)
def test_a_word_of_the_text_is_found_where_it_stands(before, name, after):
    text = f"{before} {name.strip()} {after}"
    name = name.strip()
    spans = FoldedText(text).spans(name)
    for start, end in spans:
        assert fold(text[start:end]) == fold(name)
        assert is_word_edge(text, start) and is_word_edge(text, end)
    if name and not any(unicodedata.combining(unicodedata.normalize("NFKD", part)[0]) for part in (name[0], after[:1] or "x")):
        start = len(before) + 1
        assert (start, start + len(name)) in spans


def find_names_plainly(names, text):
    """Longest first, each whole word whose characters no longer name took."""
    taken, found = set(), []
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        for start, end in FoldedText(text).spans(name):
            if not taken & set(range(start, end)):
                taken |= set(range(start, end))
                found.append((start, end, name))
    return sorted(found)


@given(st.lists(short_texts, max_size=6), short_texts)
def test_many_names_are_found_as_one_after_the_other(names, text):
    assert find_names(names, text) == find_names_plainly(names, text)


@given(st.lists(short_texts, max_size=6), short_texts)
def test_names_cut_from_the_text_are_found_as_one_after_the_other(names, text):
    names += [text[start : start + size] for start in range(len(text)) for size in (1, 3, 7)]
    assert find_names(names, text) == find_names_plainly(names, text)


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (["failure", "renal failure"], "Renal failure, failure", [(0, 13, "renal failure"), (15, 22, "failure")]),
        (["aspirin"], "Aspirin™", [(0, 7, "aspirin")]),  # the sign folds to "tm" and would hide the word's end
        (["ml"], "5㎖", [(1, 2, "ml")]),
        (["(+)-catechin"], "a (+)-catechin", [(2, 14, "(+)-catechin")]),
        (["+"], "a + b", [(2, 3, "+")]),
        ([], "a", []),
    ],
)
def test_longest_names_win(names, text, expected):
    assert NameIndex(names).find(text) == expected


def test_a_name_stands_in_the_text_as_scoring_compares_it():
    text = FoldedText("Zinc was given (with copper).")
    assert text.contains("zinc.") and text.contains("copper)") and text.contains("ZINC")
    assert not text.contains("zin") and not text.contains("lead")
