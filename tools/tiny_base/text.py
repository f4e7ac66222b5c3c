"""What the tiny base model reads before any fine-tuning: invented abstracts, and lists asked of them in the project's chat.

It is asked for genes, species, procedures, tissues, cells, doses, abbreviations, and for pairs that a verb joins, and so
learns to read, to copy and to write lists. It is never asked for chemicals, diseases or what links them: such names stand
in the text, with stems of their own, and are never listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from data.prompts import OPENING, SYSTEM, render_answer
from data.sample.build import Draft, Entity, new_entity, write_sentence
from data.sample.names import Source

PLURAL = {"gene": "genes", "species": "species", "procedure": "procedures", "tissue": "tissues", "cell": "cells",
"dose": "doses"}

LINKS = {  # what the pairs are called: (kind, kind, verbs as infinitive, third person, past, participle)
    "markings": ("gene", "tissue", ("mark marks marked marked", "stain stains stained stained",
        "label labels labelled labelled")),
    "colonisations": ("species", "tissue", ("invade invades invaded invaded", "colonise colonises colonised colonised")),
    "exposures": ("procedure", "tissue", ("expose exposes exposed exposed", "reach reaches reached reached",
        "show shows showed shown")),
    "bindings": ("gene", "cell", ("bind binds bound bound", "anchor anchors anchored anchored",
        "coat coats coated coated")),
    "entries": ("cell", "tissue", ("enter enters entered entered", "line lines lined lined",
        "populate populates populated populated")),
    "harvests": ("procedure", "cell", ("yield yields yielded yielded", "isolate isolates isolated isolated")),
    "transfers": ("species", "gene", ("carry carries carried carried", "acquire acquires acquired acquired")),
    "feeds": ("species", "cell", ("engulf engulfs engulfed engulfed", "eat eats ate eaten",
        "digest digests digested digested")),
    "signals": ("tissue", "gene", ("express expresses expressed expressed", "secrete secretes secreted secreted")),
    "preparations": ("dose", "procedure", ("precede precedes preceded preceded", "open opens opened opened")),
}
JOINED = (
    "{a} PAST {b} in {n} of {nn} [samples/sections/cases]", "{b} was PART by {a} [after/within] {n} [days/weeks]",
    "{a}-PART {b} was [seen/documented] by microscopy", "we [report/show] that {a} THIRD {b}",
    "{b} PART by {a} [was common/was found]",
    "[it appears that/as expected,] {a} THIRD {b}", "{a} was able to INF {b} [at week {n}/in {species}]", "{a} PAST {b}",
    "these [findings/data] suggest that {b} is PART by {a}", "{a}: {b} PART in {nn}% [of slides/of tests]",
)
JOINED_TWO = (
    "{a} PAST both {b} and {b2}", "{b} and {b2} were PART by {a}", "{b} was PART by {a} and {a2}",
    "{a} as well as {a2} PAST {b}", "either {a} or {a2} PAST {b}", "structures PART by {a} [were/included] {b} and {b2}",
)
DENIED = (
    "{a} did not INF {b}", "no {b} was PART by {a}", "there was no [sign/evidence] that {a} THIRD {b}",
    "{a} never PAST {b}",
    "{b} was not PART by {a}", "{a} failed to INF {b}", "{b} was found with and without {a}",
    "{b} was independent of {a}",
    "{a} was not associated with {b}", "{a} was excluded and {b} unrelated",
)
OTHERWISE = (
    "{a} was [compared with/measured alongside] {b}", "{a} [replaced/resembled/ignored] {b} in {nn} [records/slides]",
    "{b} was [chosen/used] for {a}", "{a} is [often/widely] [filed/studied] with {b}",
    "{a} and {b} were [scored/recorded]",
    "{b} [fell/improved] [without help of/before] {a}", "[subjects/samples] with {b} were [assigned to/started on] {a}",
    "the [benefit/role] of {a} in {b} was [reviewed/assessed] over {nn} weeks", "{a} protected {b}",
)
ALONE = {
    "gene": ("[the gene/variants of/expression of] {x} [fell/was seen]",
        "{x} was [measured/sequenced] in {n} centres", "[mutations/variants] of {x} are [rare/common]",
        "activity of {x} [rose/fell]"),
    "species": ("[the host/samples from/groups of] {x} [were tested/followed]",
        "{x} were [kept/housed/bred] in groups of {n}", "[blood/urine] of {x} was [tested/pooled]",
        "all {x} were female"),
    "procedure": ("[patients underwent/results of/after] {x} [and rest/were good]",
        "{x} was [normal/repeated/unremarkable] at week {n}", "{x} was done [by hand/at night]",
        "[results/risk] of {x} varied"),
    "tissue": ("the {x} was [weighed/removed/examined]", "[pressure/flow] in the {x} [doubled/did not change]",
        "{x} [was/is] [large/small]"),
    "cell": ("[cultures of/counts of/lines of] {x} [grew/were kept]", "{x} were [counted/cultured] for {nn} hours",
        "[most/few] {x} were [dead/alive]",
        "the [number/size] of {x} [fell/doubled]"),
    "dose": ("{x} was [given/infused] [by mouth/overnight]", "patients [received/were given] {x}",
        "at {x} [nothing/little] changed"),
}
OTHER = (
    "[patients/women/men] with {disease} were [studied/enrolled/excluded]", "{disease} was [present/absent] at baseline",
    "a history of {disease} was [noted/rare]", "{chemical} was [given/stopped/injected] on day {n}",
    "levels of {chemical} [peaked/fell]",
    "all were treated with {chemical}",
    "[the mean age was {nn} years/further studies are needed/{nn} charts were reviewed]",
    "{disease} and {disease} were frequent", "{chemical} and {chemical} were infused at {dose}",
    "{disease} was managed with {chemical}",
    "{gene} was seen in {cell}", "{procedure} of the {tissue} [was performed/was normal]", "{species} lack {gene}",
)
TITLES = (
    "{x} and {y}: a [study/review] of {nn} [patients/samples]", "[effect/effects/role] of {x} on {y}", "{x} in {y}",
    "a survey of {x}",
    "{x}, {disease} and {chemical}", "{chemical} in {disease}: [a case report/results]", "{y} [after/during/without] {x}",
)
LEADS = ("", "", "", "[in this study/in our series/in contrast/however/moreover/overall/in addition/at follow-up], ")
Request = tuple[str, str, list]


def _conjugate(template: str, verb: str) -> str:
    for word, form in zip(("INF", "THIRD", "PAST", "PART"), verb.split(), strict=True):
        template = template.replace(word, form)
    return template


def _state(draft: Draft, source: Source, verbs: tuple[str, ...], left: list[Entity], right: list[Entity]) -> None:
    """One sentence about two or three of the article's entities: joined by the link's verb, denied, or otherwise together."""
    random = source.random
    a, b = random.choice(left), random.choice(right)
    entities = {"a": a, "b": b, "a2": random.choice(left), "b2": random.choice(right)}
    pool = random.choices((JOINED, JOINED_TWO, DENIED, OTHERWISE), weights=(5, 2, 3, 3))[0]
    template = random.choice(pool)
    if pool is JOINED_TWO and (("{a2}" in template and entities["a2"] is a) or ("{b2}" in template and entities["b2"] is b)):
        pool, template = JOINED, random.choice(JOINED)
    write_sentence(draft, random.choice(LEADS) + _conjugate(template, random.choice(verbs)), entities, source)
    if pool in (JOINED, JOINED_TWO):
        lefts = [entities[slot] for slot in ("a", "a2") if f"{{{slot}}}" in template]
        draft.pairs += [(x, entities[slot]) for x in lefts for slot in ("b", "b2") if f"{{{slot}}}" in template]


def new_snippet(source: Source) -> tuple[Draft, str, list[Entity]]:
    """A sentence or three without a title, the link they speak of, and their concepts: easy reading to begin with."""
    random, draft = source.random, Draft()
    link = random.choice(list(LINKS))
    left_kind, right_kind, verbs = LINKS[link]
    left = [new_entity(source, left_kind, 0.1) for _ in range(random.choice((1, 1, 2)))]
    right = [new_entity(source, right_kind, 0.1) for _ in range(random.choice((1, 1, 2)))]
    if random.random() < 0.5:
        _state(draft, source, verbs, left, right)
    for entity in random.sample(left + right, 2):
        write_sentence(draft, random.choice(ALONE[entity.kind]), {"x": entity}, source)
    draft.text = draft.text.rstrip()
    return draft, link, left + right


def new_article(source: Source) -> tuple[Draft, str, list[Entity]]:
    """An invented abstract, the link it speaks of, and its concepts."""
    random, draft = source.random, Draft()
    link = random.choice(list(LINKS))
    left_kind, right_kind, verbs = LINKS[link]
    left = [new_entity(source, left_kind) for _ in range(random.choice((0, 1, 2, 2, 2, 3, 3)))]
    right = [new_entity(source, right_kind) for _ in range(random.choice((0, 1, 2, 2, 2, 3, 3)))]
    named = left + right
    x = random.choice(named) if named and random.random() < 0.8 else new_entity(source, random.choice(list(PLURAL)))
    y = random.choice([entity for entity in named if entity is not x] or [new_entity(source, random.choice(list(PLURAL)))])
    write_sentence(draft, random.choice(TITLES), {"x": x, "y": y}, source, "\n")
    sentences = ["state"] * (random.choice((2, 3, 4)) if left and right else 0) + ["other"] * random.choice((1, 2, 3))
    sentences += [entity for entity in named if random.random() < (0.3 if left and right else 0.9)]
    random.shuffle(sentences)
    for sentence in sentences:
        if sentence == "state":
            _state(draft, source, verbs, left, right)
        elif sentence == "other":
            write_sentence(draft, random.choice(LEADS) + random.choice(OTHER), {}, source)
        else:
            write_sentence(draft, random.choice(LEADS) + random.choice(ALONE[sentence.kind]), {"x": sentence}, source)
    draft.text = draft.text.rstrip()
    return draft, link, [*{id(entity): entity for entity in [x, y, *named]}.values()]


def _requests(draft: Draft, link: str, entities: list[Entity]) -> list[Request]:
    """What can be asked of the article: (request, what the list is called, the list)."""
    surfaces = {kind: [draft.text[a:b] for k, a, b in draft.mentions if k == kind] for kind in PLURAL}
    asked = {kind: (f"Create a list only of the {PLURAL[kind]} mentioned.", PLURAL[kind], surfaces[kind]) for kind in PLURAL}
    left, right, _ = LINKS[link]
    pairs = [(a.first, b.first) for a, b in draft.pairs]
    between = f"Create a list only of the {link} between the {PLURAL[left]} and {PLURAL[right]} mentioned."
    short = [(e.abbreviation, e.first) for e in entities if e.abbreviation and e.first and f"({e.abbreviation})" in draft.text]
    short.sort(key=lambda pair: draft.text.index(f"({pair[0]})"))
    return [
        asked[left], asked[right], (between, link, pairs),
        ("Create a list only of the long forms of the abbreviations mentioned.", "long forms", short),
        *(asked[kind] for kind in PLURAL if kind not in (left, right)),
    ]  # fmt: skip


def new_conversation(random: Random) -> list[dict[str, str]]:
    """One article, with one to three lists asked of it: often two kinds and the pairs between them, as fine-tuning will."""
    draft, link, entities = new_article(Source(random, "pretraining", set()))
    requests = _requests(draft, link, entities)
    shape = random.random()
    if shape < 0.6:
        asked = requests[:3]
    else:
        asked = random.sample(requests, 3) if shape < 0.8 else [requests[random.choice((0, 1, 2, 2, 3))]]
    messages = [{"role": "system", "content": SYSTEM}]
    for turn, (request, called, items) in enumerate(asked):
        prompt = f"{request}\n\nList of extracted {called}:"
        if not turn:
            prompt = f"{OPENING} {request}\n\n{draft.text}\n\nList of extracted {called}:"
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": render_answer(list(dict.fromkeys(items)))})
    return messages


def new_exercise(random: Random) -> list[tuple[str, str]]:
    """A snippet with two or three lists asked of it and little else said, as (question, answer) pairs."""
    draft, link, entities = new_snippet(Source(random, "pretraining", set()))
    requests = _requests(draft, link, entities)
    return _ask(draft, random.sample(requests[:3], 2) + random.sample(requests[4:], 1) * (random.random() < 0.2))


def new_reading(random: Random) -> list[tuple[str, str]]:
    """The same of a whole article, with five lists asked of it."""
    draft, link, entities = new_article(Source(random, "pretraining", set()))
    return _ask(draft, random.sample(_requests(draft, link, entities), 5))


def _ask(draft: Draft, asked: list[Request]) -> list[tuple[str, str]]:
    questions = [f"List of extracted {called}:" for _, called, _ in asked]
    answers = [render_answer(list(dict.fromkeys(items))) for *_, items in asked]
    return list(zip([f"{draft.text}\n\n{questions[0]}", *questions[1:]], answers, strict=True))


def endless(new: Callable, seed: int) -> Iterator:
    """What `new` makes of one stream of random numbers after the other, the same for the same seed."""
    random = Random(seed)
    while True:
        yield new(random)


exercises, readings, conversations = (partial(endless, new) for new in (new_exercise, new_reading, new_conversation))
