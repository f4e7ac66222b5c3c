"""The embedded sample: invented abstracts with their chemicals, diseases and relations, as rows in the user's shape.

`python -m data.sample.build` writes `data/sample.jsonl`, always the same bytes. Each article has names of its own, so that
however articles are split, the names of one split are unseen in the others: what a model gets right there, it read.
Articles contain abbreviations with their long forms, letter-case variants, names that only their context tells apart,
treated, denied and uncaused pairs, articles with no relation, no chemical or no disease, and genes, species and procedures that
are neither.

Gold follows the user's rows: every distinct surface once, in the order of the text; a relation names the first mention of
each side, counting the title.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from data.prompts import render_answer, render_prompt
from data.sample import sentences as words
from data.sample.names import FORMS, Source, new_abbreviation, new_name
from data.schema import TASKS, Document, Mention, MentionType, Relation

PATH = Path(__file__).parents[1] / "sample.jsonl"
ARTICLES = 1040
SEED = 20
SLOT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
ENTITY = re.compile(r"[a-z]\d?")


@dataclass
class Entity:
    """One concept of one article: its name, its abbreviation if it has one, and what the text called it first."""

    kind: str
    name: str
    abbreviation: str | None = None
    first: str | None = None


Said = tuple[str, dict[str, Entity]]  # a sort of statement, and the entities that it is about


@dataclass
class Draft:
    """An article as it is written: its text so far, its mentions as (kind, start, end), its related pairs of entities."""

    text: str = ""
    mentions: list[tuple[str, int, int]] = field(default_factory=list)
    pairs: list[tuple[Entity, Entity]] = field(default_factory=list)

    def mention(self, kind: str, surface: str) -> None:
        self.mentions.append((kind, len(self.text), len(self.text) + len(surface)))
        self.text += surface


def new_entity(source: Source, kind: str, abbreviated: float = 0.3) -> Entity:
    """A concept with a new name; one in `abbreviated` of the long names has an abbreviation."""
    name = new_name(source, kind)
    short = new_abbreviation(source, name) if len(name) > 7 and source.random.random() < abbreviated else None
    return Entity(kind, name, short)


def name_entity(draft: Draft, entity: Entity, source: Source, capital: bool = False) -> None:
    """Write the entity: its name, with the abbreviation in brackets the first time, and either of them afterwards."""
    random, surface = source.random, entity.name
    if entity.first and entity.abbreviation and random.random() < 0.7:
        surface = entity.abbreviation
    elif entity.first and random.random() < 0.06:
        surface = surface.upper() if random.random() < 0.3 else surface[0].swapcase() + surface[1:]
    if capital:
        surface = surface[0].upper() + surface[1:]
    introduced = None if entity.first else entity.abbreviation
    entity.first = entity.first or surface
    draft.mention(entity.kind, surface)
    if introduced:
        draft.text += " ("
        draft.mention(entity.kind, introduced)
        draft.text += ")"


def write_sentence(draft: Draft, template: str, entities: dict[str, Entity], source: Source, end: str = ". ") -> None:
    """Add one sentence: choices made, entities and other names filled in, a capital first and `end` last."""
    random = source.random
    while choice := CHOICE.search(template):
        template = template[: choice.start()] + random.choice(choice[1].split("/")) + template[choice.end() :]
    for index, piece in enumerate(SLOT.split(template)):
        capital = index == 1 and template.startswith("{")
        if index % 2 == 0:
            draft.text += piece[:1].upper() + piece[1:] if index == 0 else piece
        elif ENTITY.fullmatch(piece) and piece in entities:
            name_entity(draft, entities[piece], source, capital)
        elif piece in FORMS:
            name = new_name(source, piece)
            draft.mention(piece, name[0].upper() + name[1:] if capital else name)
        else:
            draft.text += str(random.randint(2, 9) if piece == "n" else random.randint(12, 97))
    draft.text += end


def _plan(source: Source) -> list[tuple[str, dict[str, Entity]]]:
    """What the article will say, in order: (sort of sentence, its entities). The first one also makes the title."""
    random = source.random
    chemicals = [new_entity(source, "chemical") for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3)))]
    diseases = [new_entity(source, "disease") for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3)))]
    says = []
    pairs = [(c, d) for c in chemicals for d in diseases]
    for c, d in random.sample(pairs, min(len(pairs), random.choice((1, 2, 2, 3)))):
        sort = random.choice(("causes", "causes", "causes", "treats", "denies"))
        says.append((sort, {"c": c, "d": d}))
    stated = {id(entity) for _, entities in says for entity in entities.values()}
    says += [("chemical", {"c": c}) for c in chemicals if id(c) not in stated or random.random() < 0.25]
    says += [("disease", {"d": d}) for d in diseases if id(d) not in stated or random.random() < 0.25]
    random.shuffle(says)
    return says


def _unstated(entities: dict[str, Entity], says: Sequence[Said]) -> list[Entity]:
    """Entities of other statements that no statement joins to these: what a wider statement may take in."""
    joined = {id(other) for _, more in says if any(e in entities.values() for e in more.values()) for other in more.values()}
    return [other for _, more in says for other in more.values() if id(other) not in joined]


def _widen(
    sort: str, entities: dict[str, Entity], says: Sequence[Said], random: Random
) -> tuple[tuple[str, ...], dict[str, Entity]]:
    """The templates for one statement; a causing one may take in a second disease or chemical of the article."""
    if sort == "causes" and random.random() < 0.35:
        for other in _unstated(entities, says):
            if other.kind == "disease" and other is not entities["d"]:
                return words.CAUSES_TWO_DISEASES, entities | {"d2": other}
            if other.kind == "chemical" and other is not entities["c"]:
                return words.CAUSES_TWO_CHEMICALS, entities | {"c2": other}
    return getattr(words, sort.upper()), entities


def _relate(draft: Draft, entities: dict[str, Entity]) -> None:
    for c in (entities[slot] for slot in ("c", "c2") if slot in entities):
        for d in (entities[slot] for slot in ("d", "d2") if slot in entities):
            draft.pairs.append((c, d))


def write_article(source: Source) -> tuple[Draft, int]:
    """One invented article, and the length of its title."""
    random, draft, says = source.random, Draft(), _plan(source)
    sort, entities = random.choice(says) if says and random.random() < 0.8 else ("neutral", {})
    write_sentence(draft, random.choice(words.TITLES[sort]), entities, source, "\n")
    if sort == "causes" and not draft.text.startswith("Does"):
        _relate(draft, entities)
    title = len(draft.text) - 1
    body = [(sort, *_widen(sort, entities, says, random)) for sort, entities in says]
    body += [("neutral", words.NEUTRAL, {}) for _ in range(max(2, 7 - len(body)))]
    if random.random() < 0.7:
        random.shuffle(body)
    for sort, templates, entities in body:
        write_sentence(draft, random.choice(words.LEADS) + random.choice(templates), entities, source)
        if sort == "causes":
            _relate(draft, entities)
    draft.text = draft.text.rstrip()
    return draft, title


def new_document(source: Source, number: int) -> Document:
    """One invented article with its gold."""
    draft, title = write_article(source)
    types: dict[str, MentionType] = {"chemical": "Chemical", "disease": "Disease"}
    mentions = tuple(Mention(draft.text[a:b], types[kind], a, b) for kind, a, b in draft.mentions if kind in types)
    relations = dict.fromkeys(Relation(c.first or c.name, d.first or d.name) for c, d in draft.pairs)
    return Document(f"sample-{number}", draft.text[title + 1 :], draft.text[:title], mentions, tuple(relations))


def sample_documents(articles: int = ARTICLES, seed: int = SEED) -> list[Document]:
    """The sample's articles; no two of them share a name."""
    source = Source(Random(seed), "sample", set())
    return [new_document(source, number) for number in range(articles)]


def rows(document: Document) -> list[dict[str, str]]:
    """The document as the user's rows: one a task; an empty list is a dash and a blank, as in the user's file."""
    answers = {task: render_answer(document.gold(task)) if document.gold(task) else "- " for task in TASKS}
    return [{"prompt": render_prompt(document.article, task) + "\n", "completion": answers[task]} for task in TASKS]


def render_sample() -> str:
    """The sample file's text."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for document in sample_documents() for row in rows(document))


def main() -> None:
    """Writes sample.jsonl anew: python -m data.sample.build."""
    PATH.write_text(render_sample(), encoding="utf-8")


if __name__ == "__main__":
    main()
