"""What a model is asked: one chat a document and task, or one conversation a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.prompts import Layout, answer_of, group_tasks, render_next_prompt, render_prompt
from data.schema import Document, InputError

if TYPE_CHECKING:
    from eval.chat_template import ChatTemplate


@dataclass(frozen=True)
class Chat:
    """One conversation: the user says `prompts[i]`, the model answers `tasks[i]` in `budgets[i]` tokens or fewer.

    `given`: (task, answer) of turns before those, which are read and not asked; their prompts come first in `prompts`.
    """

    document: Document
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    budgets: tuple[int, ...]
    given: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Request:
    """A chat in token ids: `ids[i]` is all that the model reads between its answers i-1 and i, the end token first."""

    chat: Chat
    ids: tuple[tuple[int, ...], ...]

    @property
    def positions(self) -> int:
        """The most positions that prompts and answers can take."""
        return sum(map(len, self.ids)) + sum(self.chat.budgets)


def read_chat(template: ChatTemplate, chat: Chat) -> Request:
    """The chat in token ids."""
    return Request(chat, template.prompt_ids(chat.prompts, [answer for _, answer in chat.given]))


Engine = Callable[[Sequence[Chat]], Iterator[list[dict]]]


def plan_chats(
    documents: Sequence[Document],
    *,
    layout: Layout,
    tasks: Sequence[str] | None = None,
    max_new_tokens: int | Mapping[str, int],
    given_entities: bool = False,
) -> list[Chat]:
    """One chat a document and task (`separate`), or one a document.

    `given_entities`: gold's chemicals and diseases stand answered in a conversation that asks for relations only. Raises
    InputError where `max_new_tokens` lacks a task, since the model was not trained to answer it.
    """
    if given_entities:
        return [ask_relations(document, max_new_tokens) for document in documents]
    chats = []
    for document in documents:
        for group in group_tasks(document.tasks if tasks is None else tasks, layout):
            if isinstance(max_new_tokens, Mapping) and not max_new_tokens.keys() >= set(group):
                lacking = ", ".join(task for task in group if task not in max_new_tokens)
                raise InputError(f"document {document.id}: the model was not trained to list its {lacking}")
            first = render_prompt(document.article, group[0])
            budgets = tuple(max_new_tokens if isinstance(max_new_tokens, int) else max_new_tokens[task] for task in group)
            chats.append(Chat(document, group, (first, *map(render_next_prompt, group[1:])), budgets))
    return chats


def ask_relations(document: Document, max_new_tokens: int | Mapping[str, int]) -> Chat:
    """The last turn of a conversation whose lists of names are gold's."""
    names = ("chemicals", "diseases")
    budget = max_new_tokens if isinstance(max_new_tokens, int) else max_new_tokens["relations"]
    prompts = (render_prompt(document.article, names[0]), *map(render_next_prompt, (names[1], "relations")))
    given = tuple((task, answer_of(document, task)) for task in names)
    return Chat(document, ("relations",), prompts, (budget,), given)


def refuse_too_long(requests: Sequence[Request], limit: int) -> None:
    """Raises InputError naming the documents whose prompts and answers may take more positions than the model has."""
    long = [request for request in requests if request.positions > limit]
    if long:
        worst = max(long, key=lambda request: request.positions)
        raise InputError(
            f"document {worst.chat.document.id} needs {worst.positions} positions, {sum(worst.chat.budgets)} of them for "
            f"answers; the model has {limit}, too few for {len(long)} of {len(requests)} chats: shorten or lower max_new_tokens"
        )
