"""What a recipe of `bench.recipe` trains on where no setting of `medner train` makes it of the same articles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from data.items import index_items
from data.prompts import Layout, conversations, order_tasks, render_answer
from data.schema import MENTION_TYPE, TASKS, Document
from data.text import FoldedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OVERLOOKED = 0.25  # of a noisy list's names


@dataclass(frozen=True)
class Texts:
    """`every_spelling`: lists have a name in each letter case.

    `noisy_lists`: one article in so many also gives a conversation whose lists of names have errors; its relations are right,
    and they alone are learnt from it. 0: none.

    `titles`: without, an article is learnt from and answered as instruct rows have it.
    """

    every_spelling: bool = False
    noisy_lists: int = 0
    titles: bool = True


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], layout: Layout, texts: Texts
) -> list[dict[str, list[int]]]:
    """As `encode_documents`; where `texts` changes nothing, the same."""
    from eval.chat_template import read_template
    from pipeline.training.loss_mask import encode_messages

    template, examples, documents = read_template(tokenizer), [], as_shown(documents, texts)
    for document in documents:
        every = iter([render_answer(document.gold(task)) for task in order_tasks(document.tasks, layout)])
        for chat in conversations(document, layout):
            own = answer_again(chat, every) if texts.every_spelling else chat
            examples.append(encode_messages(template, own, document.id))
    for document, chat in noisy_chats(documents, texts.noisy_lists):
        example = encode_messages(template, chat, document.id)
        examples.append(example | {"completion_mask": last_answer_only(example["completion_mask"])})
    return examples


def as_shown(documents: Sequence[Document], texts: Texts) -> Sequence[Document]:
    """The articles as a model reads them."""
    return documents if texts.titles else [without_title(document) for document in documents]


def without_title(document: Document) -> Document:
    """The document with its text's names alone. Relations stay, as instruct rows have them, though some name the title's."""
    shift, text, kept = len(document.article) - len(document.text), FoldedText(document.text), []
    for mention in document.mentions:
        if mention.start is None or mention.end is None:
            kept += [mention] if text.contains(mention.text) else []
        elif mention.start >= shift:
            kept.append(replace(mention, start=mention.start - shift, end=mention.end - shift))
    return replace(document, title=None, mentions=tuple(kept))


def answer_again(chat: Sequence[dict[str, str]], answers: Iterator[str]) -> list[dict[str, str]]:
    """The chat with the next of other answers."""
    return [one if one["role"] != "assistant" else one | {"content": next(answers)} for one in chat]


def noisy_chats(documents: Sequence[Document], every: int) -> Iterator[tuple[Document, list[dict[str, str]]]]:
    """Of one document in `every`, a conversation with right relations behind lists of names that have errors.

    A list has the names of all documents that stand in the article, so wrong ones too; a quarter of them is left out.
    """
    from eval.scoring.baselines import learn_dictionary, look_up

    if not every:
        return
    dictionary = learn_dictionary(documents)
    for document in documents[::every]:
        drawn, found = Random(document.id), look_up(dictionary, document)
        lists = []
        for task in MENTION_TYPE:
            names = index_items(sorted(found[task], key=document.article.index)).values()
            lists.append([name for name in names if drawn.random() >= OVERLOOKED])
        (chat,) = conversations(replace(document, tasks=TASKS), "conversation")
        yield document, answer_again(chat, iter([*map(render_answer, lists), chat[-1]["content"]]))


def last_answer_only(mask: Sequence[int]) -> list[int]:
    """The loss mask with 1 on the last run of ones alone.

    >>> last_answer_only([0, 1, 1, 0, 0, 1, 1])
    [0, 0, 0, 0, 0, 1, 1]
    """
    start = len(mask) - list(reversed(mask)).index(0)
    return [int(place >= start) for place in range(len(mask))]
