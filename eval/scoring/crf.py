"""A trained baseline: a linear-chain CRF over words, shapes, affixes and context (python-crfsuite), taught on train's names.

It is what a tagger of the 2000s reaches with the same articles in seconds on one core (Lafferty et al. 2001; the features are
those of the CRF taggers of BioCreative). A language model that beats the dictionary may still lose to it, and has to know.
Relations are its chemicals paired with its diseases, as far as they stand in one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data.items import Item
from data.schema import MENTION_TYPE, Document, JsonObject
from data.text import NameIndex, fold
from eval.scoring.parse import Answer, Predictions
from eval.scoring.score import Scored, match_others, score_tasks

WORD = re.compile(r"\w+|[^\w\s]")
SENTENCE_END = re.compile(r"[.!?]\s+(?=[A-Z0-9(\[])|\n+")
WINDOW = 2  # words of context on either side
L2 = 0.1  # swept on validation by bench/crf.py
# Measured on a fifth of the user's train and on validation articles: 60 cost 3 points of F1, 100 up to 0.9 for a third of the
# time, 400 gained none; to leave out features that are seen once (feature.minfreq) cost 2 to 4.
ITERATIONS = 150
MOST_ARTICLES = 2000  # of train, the first so many: training takes seconds for a thousand and grows with them


@dataclass(frozen=True)
class Word:
    """A run of letters, a run of digits or one sign of an article, with its place there."""

    text: str
    start: int
    end: int


def words_by_sentence(article: str) -> Iterator[list[Word]]:
    """The article's words, sentence by sentence."""
    edges = [0, *(match.end() for match in SENTENCE_END.finditer(article)), len(article)]
    for start, end in pairwise(edges):
        words = [Word(match[0], match.start(), match.end()) for match in WORD.finditer(article, start, end)]
        if words:
            yield words


def describe_words(words: Sequence[Word]) -> list[list[str]]:
    """The features of each word of a sentence, as the strings that the CRF learns weights for."""
    own = [describe_word(word.text) for word in words]
    described = []
    for i in range(len(words)):
        features = ["bias", *own[i]]
        for offset in range(-WINDOW, WINDOW + 1):
            there = 0 <= i + offset < len(words)
            if offset:
                features += [f"{offset}:{feature}" for feature in own[i + offset][:2]] if there else [f"{offset}:edge"]
        for offset in (-1, 0):
            if i + offset >= 0 and i + offset + 1 < len(words):
                features.append(f"{offset}:pair={own[i + offset][0]}|{own[i + offset + 1][0]}")
        described.append(features)
    return described


def describe_word(text: str) -> list[str]:
    """The word, its shape, and its first and last letters."""
    lower = text.lower()
    shape = re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", re.sub(r"\d", "0", text))
    short = re.sub(r"(.)\1+", r"\1+", shape)
    features = [f"word={lower}", f"shape={short}", f"length={min(len(text), 10)}"]
    for size in range(2, 6):
        if len(lower) > size:
            features += [f"prefix={lower[:size]}", f"suffix={lower[-size:]}"]
    return features


def label_words(words: Sequence[Word], names: Sequence[tuple[int, int, str]]) -> list[str]:
    """B, I and O labels of a sentence. `names`: (start, end, task) of the names in the article, none overlapping."""
    labels = []
    for word in words:
        name = next((name for name in names if name[0] <= word.start < name[1]), None)
        labels.append("O" if name is None else f"{'B' if word.start == name[0] else 'I'}-{name[2]}")
    return labels


def find_gold_names(document: Document) -> list[tuple[int, int, str]]:
    """Where gold's names stand in the article, longest first, as (start, end, task)."""
    task_of = {fold(name): task for task in MENTION_TYPE for name in document.names(task)}
    return [(start, end, task_of[name]) for start, end, name in NameIndex(task_of).find(document.article)]


def train_crf(train: Sequence[Document], path: Path, l2: float = L2) -> Path:
    """Teach a tagger on the train articles and write it to `path`, whole or not at all; equal articles give equal files."""
    import pycrfsuite

    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": 0.0, "c2": l2, "max_iterations": ITERATIONS, "feature.minfreq": 0})
    for document in train[:MOST_ARTICLES]:
        names = find_gold_names(document)
        for words in words_by_sentence(document.article):
            trainer.append(describe_words(words), label_words(words, names))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    trainer.train(str(partial))
    return partial.replace(path)


def open_crf(path: Path) -> Any:
    """The tagger (`pycrfsuite.Tagger`) in a file that `train_crf` wrote."""
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(path))
    return tagger


def score_crf(train: Sequence[Document], scored: Scored, path: Path) -> dict[str, JsonObject]:
    """{"crf": figures by task} on the scored documents, for metrics.json. Taught once: `path` keeps the tagger."""
    tagger = open_crf(path if path.exists() else train_crf(train, path))
    return {"crf": score_tasks(match_others(scored, predict_with_crf(tagger, scored.documents)))}


def tag_article(tagger: Any, article: str) -> list[tuple[int, int, str, int]]:
    """The names that the CRF finds, as (start, end, task, number of the sentence)."""
    found: list[tuple[int, int, str, int]] = []
    for number, words in enumerate(words_by_sentence(article)):
        for word, label in zip(words, tagger.tag(describe_words(words)), strict=True):
            kind, _, task = label.partition("-")
            if kind == "I" and found and found[-1][2:] == (task, number) and _adjoins(words, found[-1][1], word):
                found[-1] = (found[-1][0], word.end, task, number)
            elif kind != "O":
                found.append((word.start, word.end, task, number))
    return found


def _adjoins(words: Sequence[Word], end: int, word: Word) -> bool:
    """Whether `word` is the one after the word that ends at `end`."""
    return any(first.end == end and second == word for first, second in pairwise(words))


def predict_with_crf(tagger: Any, documents: Sequence[Document]) -> Predictions:
    """Chemicals and diseases as tagged, each name once; relations of those that stand in one sentence."""
    predictions: dict[tuple[str, str], Answer] = {}
    for document in documents:
        tagged = tag_article(tagger, document.article)
        items: dict[str, dict[Item, None]] = {task: {} for task in ("chemicals", "diseases", "relations")}
        first: dict[tuple[str, str], str] = {}
        for start, end, task, _ in tagged:
            name = document.article[start:end]
            items[task][first.setdefault((task, fold(name)), name)] = None
        for _, _, chemical, disease in _pairs(document.article, tagged):
            items["relations"][first["chemicals", fold(chemical)], first["diseases", fold(disease)]] = None
        for task in document.tasks:
            predictions[document.id, task] = Answer(tuple(items[task]), "ok" if items[task] else "empty")
    return predictions


def _pairs(article: str, tagged: Sequence[tuple[int, int, str, int]]) -> Iterator[tuple[int, int, str, str]]:
    for start, end, task, sentence in tagged:
        for other, stop, kind, number in tagged:
            if (task, kind) == ("chemicals", "diseases") and sentence == number:
                yield start, other, article[start:end], article[other:stop]
