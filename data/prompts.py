"""Every prompt the model sees and every answer it gives: document -> chat messages -> answer text, and back.

    - clonidine
    - alpha-methyldopa

is the answer to "chemicals"; a relation is `- chemical | disease`; an empty list is a lone `-`. Texts are written already
trimmed, because chat templates trim them. Three layouts: `separate` asks each task in a conversation of its own, as in the
user's rows; `conversation` reads the article once and asks the three tasks in turn; `relations-first` does, relations first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from data.items import Item, index_items
from data.schema import TASKS, Document

Layout = Literal["separate", "conversation", "relations-first"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

SYSTEM = "You read biomedical articles and list exactly what is asked for, one item per line, in the article's own words."
OPENING = "The following article contains technical terms including diseases, drugs and chemicals."
ASKED = {  # the user's rows say "influences" for relations, here and nowhere else
    "chemicals": "chemicals",
    "diseases": "diseases",
    "relations": "influences",
}
REQUEST = {
    "chemicals": "Create a list only of the chemicals mentioned.",
    "diseases": "Create a list only of the diseases mentioned.",
    "relations": "Create a list only of the influences between the chemicals and diseases mentioned.",
}
EMPTY = "-"
NONE = re.compile(
    r"(none|n/a|not applicable|\[\s*\])( (are |were )?(mentioned|found|listed|identified|present))?\W*"
    r"|(there (are|were) )?no (specific )?(chemicals|diseases|influences|relations|items)\b.{0,60}",
    re.IGNORECASE,
)
MARKED_UP = re.compile(r"\*\*.*\*\*|`.*`|\d{1,3}[.)]\s.*|[\[{]\s*[\"'].*")  # bold, code, a number, JSON
SENTENCE = re.compile(r"chemical\s+(\S+(?:\s+\S+)*?)\s+influences\s+disease\s+(\S.*)", re.IGNORECASE)


def render_prompt(article: str, task: str) -> str:
    """The user's turn of the `separate` layout, and the shape of the user's own rows (which end in a line break)."""
    return f"{OPENING} {REQUEST[task]}\n\n{article.strip()}\n\nList of extracted {ASKED[task]}:"


def render_next_prompt(task: str) -> str:
    """A later user's turn of the `conversation` layout: the article has been read already."""
    return f"{REQUEST[task]}\n\nList of extracted {ASKED[task]}:"


def render_answer(items: Sequence[Item]) -> str:
    """The assistant's turn.

    >>> render_answer([("lithium", "tremor"), ("lithium", "goitre")])
    '- lithium | tremor\\n- lithium | goitre'
    >>> render_answer([])
    '-'
    """
    lines = (item if isinstance(item, str) else " | ".join(item) for item in items)
    return "\n".join(f"- {line}" for line in lines) or EMPTY


def answer_of(document: Document, task: str) -> str:
    """The answer that is taught: each name once, in its first spelling.

    Corpora list a name in each letter case that its article has. Scoring takes these for one, and a model that is taught to
    write "- Naloxone" after "- naloxone" learns to repeat itself: docs/recipe.md.

    >>> from data.schema import Mention
    >>> answer_of(Document("7", "Li or li.", mentions=(Mention("Li", "Chemical"), Mention("li", "Chemical"))), "chemicals")
    '- Li'
    """
    return render_answer(list(index_items(document.gold(task)).values()))


def is_name(text: str) -> bool:
    """Whether the text can be a name: on one line, without `|`, nothing that says "none", and not marked up.

    Other text is no item of an answer, and the readers of corpora refuse it for a name, since no answer could give it back.

    >>> [is_name(text) for text in ("(+)-catechin", "*", "None", "N/A", "[]", "No chemicals mentioned.", "**Li**", "1. Li")]
    [True, True, False, False, False, False, False, False]
    """
    return is_side(text) and not says_none(text)


def is_side(text: str) -> bool:
    """As `is_name`, for a side of a relation: beside a name, "None" is one too (the user's rows have such a disease)."""
    return len(text.splitlines()) == 1 and "|" not in text and not MARKED_UP.fullmatch(text.strip())


def says_none(text: str) -> bool:
    """Whether the text says that there is nothing to list, in words instead of by a lone `-`."""
    return NONE.fullmatch(text.strip()) is not None


def read_line(line: str, task: str) -> Item | None:
    """One line of an answer as an item, or None where it is none: no bullet, no name, or a relation without its two sides."""
    bullet, _, text = line.strip().partition(" ")
    text = text.strip()
    return read_item(text, task) if bullet in ("-", "*", "•") and text else None


def read_item(text: str, task: str) -> Item | None:
    """What stands behind the bullet as an item, or None where it is none."""
    if task != "relations":
        return text if is_name(text) else None
    if "|" in text:
        sides = tuple(side.strip() for side in text.split("|"))
    else:
        sentence = SENTENCE.fullmatch(text)
        sides = sentence.groups() if sentence else ()
    if len(sides) != 2 or not all(map(is_side, sides)) or all(map(says_none, sides)):
        return None
    return sides[0], sides[1]


def read_answer(answer: str, task: str) -> tuple[list[Item], list[str]]:
    """The items of an answer, in order and with repeats, and the lines that are no item. Both relation spellings are read.

    >>> read_answer("- a | b\\n- Chemical c influences disease d\\nSo it is.", "relations")
    ([('a', 'b'), ('c', 'd')], ['So it is.'])
    """
    lines = [line for line in answer.strip().split("\n") if line.strip()]
    if [line.strip() for line in lines] in ([], [EMPTY]):
        return [], []
    read = [(line, read_line(line, task)) for line in lines]
    return [item for _, item in read if item is not None], [line for line, item in read if item is None]


def order_tasks(tasks: Collection[str], layout: Layout) -> tuple[str, ...]:
    """The tasks in the order in which they are asked.

    >>> order_tasks(("chemicals", "relations"), "separate"), order_tasks(("chemicals", "relations"), "relations-first")
    (('chemicals', 'relations'), ('relations', 'chemicals'))
    """
    order = ("relations", "chemicals", "diseases") if layout == "relations-first" else TASKS
    return tuple(task for task in order if task in tasks)


def group_tasks(tasks: Collection[str], layout: Layout) -> list[tuple[str, ...]]:
    """The tasks of each chat of a document, in the order in which they are asked.

    >>> group_tasks(("chemicals", "relations"), "separate"), group_tasks(("chemicals", "relations"), "relations-first")
    ([('chemicals',), ('relations',)], [('relations', 'chemicals')])
    """
    asked = order_tasks(tasks, layout)
    return [(task,) for task in asked] if layout == "separate" else [asked] if asked else []


def conversations(document: Document, layout: Layout) -> list[list[dict[str, str]]]:
    """The document's chats with their gold answers: one a task, or one with a turn a task.

    Each is a list of {"role", "content"} starting with the system's turn; answers are the assistant's turns.
    """
    return [_conversation(document, group) for group in group_tasks(document.tasks, layout)]


def _conversation(document: Document, tasks: Sequence[str]) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": SYSTEM}]
    for turn, task in enumerate(tasks):
        prompt = render_next_prompt(task) if turn else render_prompt(document.article, task)
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": answer_of(document, task)})
    return messages
