"""How long a job's chats are, in tokens: counted before a model is loaded, and refused where something would be cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from data.prompts import Layout, answer_of
from data.schema import TASKS, Document, InputError
from eval.chat_template import read_template
from pipeline.config import Settings
from pipeline.training.loss_mask import encode_documents, owners_of
from pipeline.training.negatives import add_negatives

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Llama 3's tokens for each of the embedded tokenizer's: 0.64 to 0.66 on biomedical abstracts, rounded up.
TINY_SHARE = 0.68


@dataclass(frozen=True)
class Chats:
    """Of each chat of a split: tokens that are read, tokens of its gold answers with their ends, and its document's id."""

    read: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def whole(self) -> tuple[int, ...]:
        return tuple(read + answer for read, answer in zip(self.read, self.answered, strict=True))


@dataclass(frozen=True)
class Lengths:
    """What a plan knows of the data. `budgets`: tokens that an answer may take, by task; `budget`: all answers of a chat."""

    train: Chats
    validation: Chats = Chats()
    test: Chats = Chats()
    budgets: dict[str, int] = field(default_factory=dict)
    budget: int = 0

    @property
    def mean(self) -> float:
        """Tokens of an example of train on average."""
        return sum(self.train.whole) / max(1, len(self.train.whole))

    @property
    def longest_answering(self) -> int:
        """Positions of the longest chat of validation and test, its answers' budget included."""
        return max((*self.validation.read, *self.test.read), default=0) + self.budget

    @property
    def longest(self) -> int:
        """Positions of the longest chat of all, trained on or answered."""
        return max((*self.train.whole, *self.validation.whole, self.longest_answering))


def usual_lengths() -> Lengths:
    """The lengths of the BC5CDR abstracts, split 80/10/10: about 450 tokens, three questions and three answers of 30."""
    train, other = (Chats((465,) * count, (95,) * count, ("?",) * count) for count in (800, 100))
    return Lengths(train, other, other, dict.fromkeys(TASKS, 130), 390)


def estimate_lengths(split: Mapping[str, Sequence[Document]], settings: Settings) -> Lengths:
    """Counted by the model's own tokenizer where the model is on this machine, else about, by the embedded one's tokens."""
    from pipeline.model import load_tokenizer, model_path

    here = settings.model.name == "tiny" or Path(settings.model.name).expanduser().exists()
    tokenizer = load_tokenizer(model_path(settings.model.name if here else "tiny"))
    return count_lengths(tokenizer, split, settings, 1.0 if here else TINY_SHARE)


def count_lengths(
    tokenizer: PreTrainedTokenizerBase, split: Mapping[str, Sequence[Document]], settings: Settings, share: float = 1.0
) -> Lengths:
    """The lengths of the very examples that training reads.

    `split` may lack validation and test. `share`: the model's tokens for each of `tokenizer`'s, 1 for its own.
    """
    layout, chats = settings.train.layout, {}
    for name, given in split.items():
        documents = add_negatives(given, settings.train.negatives) if name == "train" else given
        examples = encode_documents(tokenizer, documents, layout)
        answered = tuple(ceil(share * sum(example["completion_mask"])) for example in examples)
        whole = (ceil(share * len(example["input_ids"])) for example in examples)
        read = tuple(length - answer for length, answer in zip(whole, answered, strict=True))
        chats[name] = Chats(read, answered, owners_of(documents, layout))
    found = answer_budgets(tokenizer, split["train"])
    budgets = {task: settings.eval.max_new_tokens or ceil(share * count) for task, count in found.items()}
    return Lengths(**chats, budgets=budgets, budget=chat_budget(budgets, layout))


def answer_budgets(tokenizer: PreTrainedTokenizerBase, train: Sequence[Document]) -> dict[str, int]:
    """By task, tokens enough for the longest answer of train and a quarter more, its end token included."""
    encode, budgets = read_template(tokenizer).encode, {}
    for task in TASKS:
        answers = [answer_of(document, task) for document in train if task in document.tasks]
        if answers:
            budgets[task] = ceil(1.25 * max(len(encode(answer)) for answer in answers)) + 8
    return budgets


def chat_budget(budgets: Mapping[str, int], layout: Layout) -> int:
    """The most positions that a chat's answers take: one that spent its budget is still ended before the next question."""
    if layout != "separate":
        return sum(budgets.values()) + max(len(budgets) - 1, 0)
    return max(budgets.values(), default=0)


def refuse_long(sizes: Sequence[int], owners: Sequence[str], limit: int, positions: int, budget: int = 0) -> None:
    """Raises InputError naming the documents of more than `limit` tokens; `positions`: those of the model.

    TRL would cut off their answers, and Unsloth what it reads.
    """
    long = sorted(((size, owner) for size, owner in zip(sizes, owners, strict=True) if size > limit), reverse=True)
    if not long:
        return
    named = ", ".join(f"{owner} ({size})" for size, owner in long[:5]) + (f" and {len(long) - 5} more" if len(long) > 5 else "")
    what = f"{len(long)} chats, {budget} tokens for their answers included," if budget else f"{len(long)} examples"
    of = f"model.max_length={limit} tokens" if limit < positions else f"the model's {limit} positions"
    cures = [f"raise it (--set model.max_length={long[0][0]})"] * (limit < positions)
    cures += ["set a lower eval.max_new_tokens"] * bool(budget) + ["take these documents out"]
    raise InputError(f"{what} are longer than {of}: {named}\n{' or '.join(cures)}")
