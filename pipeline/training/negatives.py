"""Texts that name nothing, made of the training articles, so that a model learns to list nothing."""

from __future__ import annotations

from collections.abc import Sequence

from data.schema import Document
from data.text import FoldedText
from pipeline.extract.windows import split_sentences


def add_negatives(train: Sequence[Document], every: int) -> list[Document]:
    """The articles, and after them the text without names of one article in `every`, where it has one; 0: none.

    >>> [document.id for document in add_negatives([Document("7", "We asked ten people. They said nothing.")], 1)]
    ['7', '7, sentences without names']
    """
    texts = [without_names(document) for document in train[::every]] if every else []
    return [*train, *(text for text in texts if text)]


def without_names(document: Document) -> Document | None:
    """The article's sentences in which none of its listed names stands, as a text with empty lists; None under two of them."""
    listed = {*document.names("chemicals"), *document.names("diseases"), *(side for pair in document.pairs() for side in pair)}
    sentences = [document.article[start:end] for start, end in split_sentences(document.article)]
    bare = [sentence for sentence in sentences if not any(map(FoldedText(sentence).contains, listed))]
    if len(bare) < 2:
        return None
    return Document(f"{document.id}, sentences without names", " ".join(bare), tasks=document.tasks)
