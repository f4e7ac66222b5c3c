"""The decode loop of the transformers engine: greedy, over rows that leave as they finish and are replaced by waiting ones.

The key-value cache is kept across the turns of a conversation, with the generated ids in it, never re-tokenised text.
A row that ends its answer waits with its cache for its next question, and joins the batch again together with others.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.chats import Request
from eval.engines.kv_cache import Part, Rows, grouped_attention, merge
from eval.grounding.answer import Ground, GroundedAnswer

Openings = Mapping[tuple[str, ...], tuple[int, ...]]  # the ids with which all chats of the same tasks open


@dataclass(frozen=True)
class Decoding:
    """All that stays the same from token to token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    batch_tokens: int
    ground: Ground | None = None
    logprobs: bool = False


@dataclass
class GeneratedAnswer:
    """What was generated for one turn, without the end token; `logprobs` are the model's own, before any grounding."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = "length"


@dataclass
class ChatState:
    """A chat in progress: its answers so far, the last of them in progress while `going`."""

    chat: Request
    answers: list[GeneratedAnswer] = field(default_factory=list)
    going: bool = False
    grounded: GroundedAnswer | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.chat.chat.tasks

    @property
    def ended(self) -> bool:
        return not self.going and len(self.answers) == len(self.chat.ids)

    @property
    def left(self) -> int:
        """Tokens that its present answer may still take."""
        return self.chat.chat.budgets[len(self.answers) - 1] - len(self.answers[-1].ids)

    def ask(self, decoding: Decoding) -> tuple[int, ...]:
        """Starts the next answer. Returns the ids to be read before it."""
        # A truncated answer's last token has not been read; the end token that closes it opens every later turn's ids.
        unread = self.answers[-1].ids[-1:] if self.answers and self.answers[-1].finish == "length" else []
        turn = len(self.answers)
        if decoding.ground:
            texts = [decode_text(decoding.tokenizer, answer.ids) for answer in self.answers]
            self.grounded = decoding.ground(self.chat.chat, turn, texts)
        self.answers.append(GeneratedAnswer())
        self.going = True
        return (*unread, *self.chat.ids[turn])

    def read(self, decoding: Decoding) -> list[int]:
        """Starts the next answer. Returns all ids to be read before it, from the first."""
        earlier: list[int] = []
        for answer, ids in zip(self.answers, self.chat.ids, strict=False):
            earlier += [*ids, *answer.ids]
        self.ask(decoding)
        return [*earlier, *self.chat.ids[len(self.answers) - 1]]

    def take(self, token: int, chance: float, stops: frozenset[int]) -> None:
        """Adds a token to the answer. The token that ends it, and the last one of a spent budget, will not be read."""
        if self.grounded:
            self.grounded.take(token)
        answer = self.answers[-1]
        if token in stops:
            answer.finish, self.going = "stop", False
            return
        answer.ids.append(token)
        answer.logprobs.append(chance)
        self.going = self.left > 0


def common_opening(chats: Sequence[Request]) -> tuple[int, ...]:
    """The ids with which all these chats open, each of them going on after that: read once for all."""
    first = [chat.ids[0] for chat in chats]
    return tuple(os.path.commonprefix(first)[: min(map(len, first)) - 1])


def _longest_first(chats: Sequence[Request]) -> list[Request]:
    return sorted(chats, key=lambda chat: chat.positions, reverse=True)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU or the machine had no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)  # torch's words for it on a CPU


class Scheduler:
    """Runs chats in one batch that rows join and leave: `states[i]` is row i of `rows`."""

    def __init__(self, decoding: Decoding, most: int, openings: Openings):
        self.decoding, self.most, self.openings = decoding, most, openings
        self.opened: dict[tuple[str, ...], Rows] = {}  # a row that has read each opening
        self.states: list[ChatState] = []
        self.between: deque[tuple[list[ChatState], Rows, list[int]]] = deque()  # those that wait for their next question
        self.arriving: list[ChatState] = []  # those that read it now
        self.answered: list[ChatState] = []  # those with an answer that was not handed on yet
        self.rows: Rows | None = None
        self.logits: torch.Tensor | None = None  # what each row says next

    def run(self, waiting: deque[Request]) -> Iterator[list[ChatState]]:
        """Takes chats from the left of `waiting`, the longest first, until none is left. Gives each as an answer of it ends."""
        model = self.decoding.model
        while waiting or self.between or self.states:
            training = model.training
            model.eval()
            try:
                with grouped_attention(model), torch.inference_mode():
                    while not self.answered:
                        self._fill(waiting)
                        self._step()
            finally:
                model.train(training)
            answered, self.answered = self.answered, []
            yield answered

    def interrupted(self) -> list[Request]:
        """The chats in progress."""
        between = itertools.chain(*(states for states, *_ in self.between))
        return [state.chat for state in (*self.states, *between, *self.arriving)]

    def _fill(self, waiting: deque[Request]) -> None:
        """Adds those between turns and those waiting, once half of the batch is free: merging copies every row's cache."""
        longest = max(chat.positions for chat in (*self.interrupted(), *itertools.islice(waiting, 1)))
        places = max(1, min(self.most, self.decoding.batch_tokens // longest))
        free = places - len(self.states)
        if free * 2 < places:
            return
        parts = [Part(self.rows, range(len(self.states)))] if self.rows else []
        while self.between and len(self.between[0][0]) <= free - len(self.arriving):
            states, rows, picked = self.between.popleft()
            self.arriving += states
            parts.append(Part(rows, picked, [state.ask(self.decoding) for state in states]))
        reserved = len(self.arriving) + sum(len(states) for states, *_ in self.between)
        fresh = [ChatState(waiting.popleft()) for _ in range(min(free - reserved, len(waiting)))]
        fresh.sort(key=lambda state: state.tasks)
        self.arriving += fresh
        for tasks, group in itertools.groupby(fresh, lambda state: state.tasks):
            texts = [state.ask(self.decoding)[len(self.openings[tasks]) :] for state in group]
            parts.append(Part(self._open(tasks), [0] * len(texts), texts))
        if not self.arriving:
            return
        left = max(state.left for state in (*self.states, *self.arriving))
        self.rows, said = merge(self.decoding.model, parts, left)
        self.logits = torch.cat([self.logits, *said] if self.states else said)
        self.states, self.arriving = self.states + self.arriving, []

    def _open(self, tasks: tuple[str, ...]) -> Rows:
        if tasks not in self.opened:
            self.opened[tasks] = Rows.empty(self.decoding.model, 1, len(self.openings[tasks]))
            self.opened[tasks].read([self.openings[tasks]])
        return self.opened[tasks]

    def _step(self) -> None:
        """One token for every chat of the batch."""
        grounded = [state.grounded if state.going else None for state in self.states]
        tokens, chances = choose(self.decoding, self.logits, grounded)
        for state, token, chance in zip(self.states, tokens, chances, strict=True):
            if state.going:
                state.take(token, chance, self.decoding.stops)
                if not state.going:
                    self.answered.append(state)
        stay = [row for row, state in enumerate(self.states) if state.going]
        if (len(self.states) - len(stay)) * 4 >= len(self.states):
            self._leave(stay)
            tokens = [tokens[row] for row in stay]
        if self.states:
            self.logits = self.rows.read([[t] if s.going else [] for s, t in zip(self.states, tokens, strict=True)])

    def _leave(self, stay: Sequence[int]) -> None:
        """Lets the rows that are done go, together once they are a quarter: it copies the cache of all others."""
        between = [row for row, state in enumerate(self.states) if not state.going and not state.ended]
        if between:
            self.between.append(([self.states[row] for row in between], self.rows, between))
        self.states = [self.states[row] for row in stay]
        self.rows = self.rows.take(stay) if stay else None


def run_chats(decoding: Decoding, chats: Sequence[Request], kind: type = Scheduler) -> Iterator[list[ChatState]]:
    """Chats as an answer of theirs ends, longest first. Where memory runs out, those in progress start again from their first
    question, with half as many at a time.
    """
    waiting, most = deque(_longest_first(chats)), len(chats)
    alike = {chat.chat.tasks for chat in chats}
    openings = {tasks: common_opening([chat for chat in chats if chat.chat.tasks == tasks]) for tasks in alike}
    while waiting:
        scheduler = kind(decoding, most, openings)
        try:
            yield from scheduler.run(waiting)
        except (MemoryError, RuntimeError) as error:
            started = scheduler.interrupted()
            if len(started) < 2 or not is_out_of_memory(error):
                raise
            most = len(started) // 2
            waiting = deque(_longest_first([*started, *waiting]))
        if scheduler.answered:
            yield scheduler.answered
        del scheduler  # with its tensors, before the next one takes as much
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def choose(
    decoding: Decoding, logits: torch.Tensor, grounded: Sequence[GroundedAnswer | None]
) -> tuple[list[int], list[float]]:
    """Each row's best token, of those allowed where it is grounded, and its log-probability where that is asked for."""
    best = logits.argmax(-1) if decoding.ground is None else _best_allowed(logits, grounded)
    chances = [0.0] * len(best)
    if decoding.logprobs:
        chances = logits.float().log_softmax(-1).gather(-1, best[:, None])[:, 0].tolist()
    return best.tolist(), chances


def _best_allowed(logits: torch.Tensor, grounded: Sequence[GroundedAnswer | None]) -> torch.Tensor:
    """Each row's best allowed token; any token for a row that is done."""
    allowed = [answer.allowed() if answer else numpy.zeros(1, numpy.int64) for answer in grounded]
    table = numpy.full((len(allowed), max(map(len, allowed))), -1)
    for row, ids in zip(table, allowed, strict=True):
        row[: len(ids)] = ids
    ids = torch.from_numpy(table).to(logits.device)
    scores = logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
    return ids.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of an answer's ids, special tokens left out, spaces as they are."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
