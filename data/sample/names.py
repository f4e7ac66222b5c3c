"""Invented names: chemicals, diseases and what stands beside them (genes, species, procedures, tissues, doses).

A name is a stem of two or three syllables in a form that its kind can be told by, most of the time: `chlortorvine`,
`acute melkinitis`, `TVK2`. Stems, codes and abbreviations belong either to the sample or to the text that the tiny base
model is pretrained on, by a hash of their letters, so that the two never share one. Nothing here is a real name on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

SIDES = ("pretraining", "sample")
ONSETS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z"]
RHYMES = ["al", "an", "ar", "el", "en", "ig", "im", "ol", "os", "ud", "ur", "yx"]

FORMS = {
    "chemical": (
        "chlor{s}ine", "meth{s}ol", "fluoro{s}ane", "cef{s}im", "bromo{s}ate", "nitro{s}ine", "oxy{s}one", "thio{s}ol",
        "sulfa{s}ine", "amino{s}ane", "carba{s}ol", "hydroxy{s}ine", "benz{s}ate", "pheno{s}al", "acetyl{s}ine",
        "iodo{s}azole", "cyclo{s}amine", "ethyl{s}urea", "sodium {s}ate", "potassium {s}ide", "calcium {s}ate",
        "N-methyl{s}amine", "alpha-{s}ine", "beta-{s}olol", "5-hydroxy{s}ane", "2,4-di{s}ol", "oxy{s}one-{n}",
        "chlor{s}ic acid", "{s}azole", "{code}-{nnn}", "{s}ia",
    ),
    "disease": (
        "hyper{s}emia", "hypo{s}emia", "dys{s}ia", "brady{s}ia", "tachy{s}ia", "neuro{s}opathy", "poly{s}itis",
        "myo{s}algia", "nephro{s}osis", "hepato{s}itis", "cardio{s}opathy", "dermato{s}itis", "arthr{s}algia",
        "encephal{s}itis", "leuko{s}emia", "thrombo{s}emia", "haemo{s}uria", "acute {s}itis", "chronic {s}osis",
        "severe {s}plegia", "familial {s}oma", "toxic {s}opathy", "juvenile {s}asthenia", "type {n} {s}emia",
        "post-{s}al tremor", "non-{s}al seizures", "hypo{s}algia of the {s}oid", "{s}opathy", "{S} syndrome",
        "{s}ia",
    ),
    "gene": (
        "cyto{s}in", "inter{s}in-{n}", "onco{s}ase", "proto{s}ase", "lipo{s}ase", "glyco{s}in", "ribo{s}ase", "mito{s}in",
        "kinase {CODE}{n}", "receptor {CODE}-{n}", "homeo{s}A{n}", "ubi{s}ase", "{CODE}{n}", "{CODE}-{nnn}", "{s}ase",
        "{s}ex",
    ),
    "species": (
        "Strepto{s}us {s}ensis", "Lacto{s}us {s}ata", "Myco{s}um {s}orum", "Entero{s}ella {s}ii", "wild {s}fish",
        "young {s} monkeys", "adult {s} mice", "female {s} rats", "white {s}birds", "Salmo{s} {s}ensis", "{s}fish",
        "{S}ella {s}ata", "{s}ia",
    ),
    "procedure": (
        "endo{s}oscopy", "lapar{s}otomy", "percutaneous {s}otomy", "crani{s}otomy", "angio{s}ography", "radio{s}ography",
        "ultra{s}ography", "partial {s}ectomy", "bilateral {s}oplasty", "open {s}ectomy", "electro{s}ography",
        "tomo{s} scan", "{s}ectomy", "{S} test",
    ),
    "tissue": (
        "peri{s}ium", "ventral {s}oid", "left {s}oid", "right {s}oid", "dorsal {s} gland", "inner {s} layer",
        "upper {s}al nerve", "lower {s}ic duct", "sub{s}oid", "supra{s}ium", "outer {s}al cortex",
        "medial {s}icular membrane", "{s}al nerve", "{s}ia",
    ),
    "cell": (
        "mono{s}ocytes", "pro{s}oblasts", "lympho{s}ocytes", "erythro{s}oblasts", "macro{s}ophages", "fibro{s}oblasts",
        "granulo{s}ocytes", "stem {s} cells", "giant {s} cells", "primary {s}ocytes", "micro{s}ophages", "{s}ocytes",
        "{CODE}-{n} cells",
    ),
    "dose": (
        "{n} mg/kg", "{nn} mg daily", "{n}.{n} ml/h", "{nn} units", "{nnn} micrograms", "{nn} mg twice a day",
    ),
}  # fmt: skip


@dataclass
class Source:
    """Where one text takes its names from: a random stream, its side, and what has been handed out already."""

    random: Random
    side: str
    used: set[str]


def side_of(stem: str) -> str:
    """Which of the two sides owns a stem, code or abbreviation, in any letter case."""
    return SIDES[crc32(stem.lower().encode()) & 1]


def _claim(source: Source, candidate: Callable[[Random], str]) -> str:
    """The first draw of `candidate` that is this side's and was not handed out before."""
    while True:
        stem = candidate(source.random)
        if side_of(stem) == source.side and stem.lower() not in source.used:
            source.used.add(stem.lower())
            return stem


def _stem(random: Random) -> str:
    return "".join(random.choice(ONSETS) + random.choice(RHYMES) for _ in range(random.choice((2, 2, 3))))


def _code(random: Random) -> str:
    return "".join(random.choices("ABCDEFGHKLMNPRSTVXZ", k=random.choice((3, 4, 4))))


def new_name(source: Source, kind: str) -> str:
    """A name of this kind whose stems no earlier name of the source has."""
    form = source.random.choice(FORMS[kind])
    values: dict[str, object] = {
        "n": source.random.randint(2, 9),
        "nn": source.random.randint(10, 95),
        "nnn": source.random.randint(101, 989),
    }
    while "{s}" in form or "{S}" in form:
        stem, slot = _claim(source, _stem), "{s}" if "{s}" in form else "{S}"
        form = form.replace(slot, stem if slot == "{s}" else stem.capitalize(), 1)
    if "code}" in form.lower():
        values |= dict.fromkeys(("CODE", "code"), _claim(source, _code))
    return form.format(**values)


def new_abbreviation(source: Source, name: str) -> str | None:
    """Two to four capitals for a name: of its words, or of its letters; None where all of those are taken."""
    words = [word for word in name.replace("-", " ").split() if word[0].isalpha()]
    letters = [letter for letter in "".join(words)[1:] if letter.isalpha()]
    for _ in range(20):
        if not words or len(letters) < 4:
            return None
        inner = sorted(source.random.sample(range(len(letters)), source.random.choice((2, 2, 3))))
        short = (words[0][0] + "".join(letters[i] for i in inner)).upper()
        if side_of(short) == source.side and short.lower() not in source.used:
            source.used.add(short.lower())
            return short
    return None
