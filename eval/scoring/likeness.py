"""How two names can be nearly the same: a variant, a part, an abbreviation, one piece of a composite name.

For naming faults only. Scoring compares normalised names and nothing else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from data.text import normalise

WORD = re.compile(r"[^\W_]+")
COORDINATION = re.compile(r"\b(?:and|or|and/or)\b|, |(?<=[a-z])/(?=[a-z])")
LOOK_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    | dict.fromkeys("\u2018\u2019\u02bc\u2032`\u00b4", "'")
    | dict.fromkeys("\u201c\u201d\u2033", '"')
    | {"\u00ad": None}
)
SPELLINGS = (("ae", "e"), ("oe", "e"), ("our", "or"))


@functools.lru_cache(1 << 16)
def words_of(name: str) -> tuple[str, ...]:
    """Runs of letters and digits, in the letter case that scoring compares."""
    return tuple(WORD.findall(normalise(name)))


def is_abbreviation(name: str) -> bool:
    """A short name of one word, at least half of whose letters, and no fewer than two, are capitals.

    >>> [name for name in ("NSAIDs", "5-HT", "TdP", "lithium", "Li", "Ca2+", "N-acetylcysteine") if is_abbreviation(name)]
    ['NSAIDs', '5-HT', 'TdP']
    """
    letters = [character for character in name if character.isalpha()]
    capitals = sum(map(str.isupper, letters))
    return len(name.split()) == 1 and len(name) <= 10 and capitals >= max(2, len(letters) / 2)


def abbreviates(short: str, long: str) -> bool:
    """Whether the letters of `short` stand in `long` in order, the first at its start (after Schwartz and Hearst 2003).

    >>> abbreviates("TDP", "torsade de pointes"), abbreviates("NSAIDs", "aspirin")
    (True, False)
    """
    letters, name = "".join(words_of(short)), normalise(long)
    letters = letters[:-1] if letters.endswith("s") and short[-1:] == "s" else letters
    if len(letters) < 2 or len(letters) >= len(name) or name[:1] != letters[0]:
        return False
    rest = iter(name)
    return all(letter in rest for letter in letters)


@functools.lru_cache(1 << 16)
def look_alike_key(name: str) -> str:
    """The name with one spelling of each dash and quotation mark, and without soft hyphens.

    >>> look_alike_key("Crohn’s") == look_alike_key("Crohn's"), look_alike_key("5‑HT") == look_alike_key("5-HT")
    (True, True)
    """
    return name.translate(LOOK_ALIKE)


def variant_key(name: str) -> str:
    """What is left of a name without hyphens, spaces, brackets, plural endings and British spellings.

    >>> variant_key("Heart-attacks") == variant_key("heart attack"), variant_key("anaemia") == variant_key("anemia")
    (True, True)
    >>> variant_key("metastases") == variant_key("metastasis"), variant_key("virus") == variant_key("viral")
    (True, False)
    """
    key = "".join(map(_singular, words_of(name)))
    for british, american in SPELLINGS:
        key = key.replace(british, american)
    return key + "+" * name.count("+")


def _singular(word: str) -> str:
    if len(word) < 4:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "sis")):
        return word[:-2]
    if word.endswith("se") or word.endswith("s") and word[-2] not in "sui":
        return word[:-1]
    return word


def is_part(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words of `part` are a shorter, unbroken run of those of `whole`."""
    width = len(part)
    return 0 < width < len(whole) and any(whole[i : i + width] == part for i in range(len(whole) - width + 1))


def is_composite_part(part: str, whole: str) -> bool:
    """Whether `whole` joins several names and `part` is one of them, its words in order but perhaps apart.

    >>> is_composite_part("renal failure", "renal and hepatic failure"), is_composite_part("failure", "renal failure")
    (True, False)
    """
    words, rest = words_of(part), words_of(whole)
    if not COORDINATION.search(normalise(whole)) or not 0 < len(words) < len(rest):
        return False
    remaining = iter(rest)
    return all(word in remaining for word in words)
