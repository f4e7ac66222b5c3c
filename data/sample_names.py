"""Invented names: chemicals, diseases and what stands beside them (genes, species, procedures, tissues, doses).

A name is a stem of two or three syllables in a form that its kind can be told by, most of the time: `torvazole`,
`acute melkinitis`, `TVK2`. Stems, codes and abbreviations belong either to the sample or to the text that the tiny base
model is pretrained on, by a hash of their letters, so that the two never share one. Nothing here is a real name on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from zlib import crc32

SIDES = ("pretraining", "sample")
SYLLABLES = """
    ba bel bor bri cal cor cra dal den dor dra el fa fen flo fra ga gel gor gri hal hes hul ja jor kal kel kin kra la len
    lor lu mal mel mir mo nar nel nor nu ol or pal pel pra qua ral ren ros sa sel sor sta ta tel tor tri ul va vel vex vor
    vra wel wen xan ya yor za zel zor
""".split()  # noqa: SIM905
CLOSERS = "bcdfgklmnprstvxz"

FORMS = {
    "chemical": (
        "{s}azole", "{s}amine", "{s}olol", "meth{s}ol", "chlor{s}ine", "fluoro{s}ane", "cef{s}im", "{s}astatin",
        "{s}omycin", "{s}idone", "{s}oxine", "{s}ane",
        "{s}ine",
        "{s}azepam", "{s}icillin", "{s}afil", "{s}april", "{s}urea", "{s}ic acid", "{s}ium chloride", "sodium {s}ate",
        "{s}amide hydrochloride",
        "alpha-{s}ine", "N-methyl{s}amine", "5-hydroxy{s}ane", "2,4-di{s}ol", "{s}azole-{n}", "(+)-{s}ine",
        "{code}-{nnn}", "{s}ex",
        "{s}ia", "{s}in",
    ),
    "disease": (
        "{s}itis", "{s}osis", "{s}opathy", "{s}emia", "{s}algia", "{s}oma", "{s}plegia", "{s}uria", "hypo{s}emia",
        "dys{s}ia", "brady{s}ia", "neuro{s}opathy", "poly{s}itis", "{s}edema",
        "{s}asthenia",
        "acute {s}itis", "chronic {s}osis", "type {n} {s}emia", "{s}ic neuropathy", "{s}al failure", "{s}al haemorrhage",
        "{S} syndrome", "{S} disease", "{s} fever", "non-{s}al seizures", "post-{s}al tremor", "hyper{s}emia",
        "{s}al bleeding",
        "{s}algia of the {s}oid", "{s}ia", "{s}ex", "{s}in",
    ),
    "gene": ("{CODE}{n}", "{CODE}-{nnn}", "{CODE}", "{s}in-{n}", "{s}in receptor", "{s}ase", "cyto{s}in", "{s}ase kinase",
        "{S}{n}A", "{s}in", "{s}ex"),
    "species": ("{S}us {s}ensis", "{S}ella {s}ata", "{S}. {s}ii", "{s} mice", "{s}fish", "{S}ium {s}orum",
        "{s} monkeys", "{s}ia"),
    "procedure": ("{s}ectomy", "{s}oscopy", "{s}ography", "{s}oplasty", "endo{s}oscopy", "lapar{s}otomy",
        "{S} test", "{s} transplantation",
        "percutaneous {s}otomy", "{s}ex scan"),
    "tissue": ("{s}al cortex", "peri{s}ium", "ventral {s}oid", "{s}ic duct", "{s} gland", "left {s}oid",
        "{s}al nerve", "{s}icular membrane",
        "{s}oid", "{s}ia"),
    "cell": ("{s}ocytes", "mono{s}ocytes", "pro{s}oblasts", "{s}oblasts", "{s}ic cells", "{S} cells",
        "{CODE}-{n} cells", "{s}ophages"),
    "dose": ("{n} mg/kg", "{nn} mg daily", "{n}.{n} ml/h", "{nn} units", "{nnn} micrograms", "{nn} mg twice a day"),
}


@dataclass
class Source:
    """Where one text takes its names from: a random stream, its side, and what has been handed out already."""

    random: Random
    side: str
    used: set[str]


def side_of(stem: str) -> str:
    """Which of the two sides owns a stem, code or abbreviation, in any letter case."""
    return SIDES[crc32(stem.lower().encode()) & 1]


def _claim(source: Source, candidate) -> str:
    """The first draw of `candidate` that is this side's and was not handed out before."""
    while True:
        stem = candidate(source.random)
        if side_of(stem) == source.side and stem.lower() not in source.used:
            source.used.add(stem.lower())
            return stem


def _stem(random: Random) -> str:
    syllables = "".join(random.choices(SYLLABLES, k=random.choice((1, 1, 2))))
    return syllables + random.choice(CLOSERS) + random.choice("aeiou") + random.choice(CLOSERS)


def _code(random: Random) -> str:
    return "".join(random.choices("ABCDEFGHKLMNPRSTVXZ", k=random.choice((3, 4, 4))))


def new_name(source: Source, kind: str) -> str:
    """A name of this kind whose stems no earlier name of the source has."""
    form = source.random.choice(FORMS[kind])
    values = {"n": source.random.randint(2, 9), "nn": source.random.randint(10, 95), "nnn": source.random.randint(101, 989)}
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
