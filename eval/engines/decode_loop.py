"""The decode loop of the transformers engine: greedy, over rows that leave as they finish and are replaced by waiting ones.

The key-value cache is kept across the turns of a conversation, with the generated ids in it, never re-tokenised text.
A row that ends its answer waits with its cache for its next question, and is seated again together with others.
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
class Answer:
    """What was generated for one turn, without the end token; `logprobs` are the model's own, before any grounding."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = "length"


@dataclass
class Seat:
    """A chat being held: its answers so far, the last of them in progress while `going`."""

    chat: Request
    answers: list[Answer] = field(default_factory=list)
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
        self.answers.append(Answer())
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


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)  # torch's words for it on a CPU


class Table:
    """The seats of the chats in progress and the batch of their rows: `seats[i]` is row i of `rows`."""

    def __init__(self, decoding: Decoding, most: int, openings: Openings):
        self.decoding, self.most, self.openings = decoding, most, openings
        self.opened: dict[tuple[str, ...], Rows] = {}  # a row that has read each opening
        self.seats: list[Seat] = []
        self.between: deque[tuple[list[Seat], Rows, list[int]]] = deque()  # those that wait for their next question
        self.arriving: list[Seat] = []  # those that read it now
        self.ended: list[Seat] = []  # those not handed on yet
        self.rows: Rows | None = None
        self.logits: torch.Tensor | None = None  # what each row says next

    def hold(self, waiting: deque[Request]) -> Iterator[list[Seat]]:
        """Takes chats from the left of `waiting`, the longest first, until none is left."""
        model = self.decoding.model
        while waiting or self.between or self.seats:
            training = model.training
            model.eval()
            try:
                with grouped_attention(model), torch.inference_mode():
                    while not self.ended:
                        self._fill(waiting)
                        self._step()
            finally:
                model.train(training)
            ended, self.ended = self.ended, []
            yield ended

    def interrupted(self) -> list[Request]:
        """The chats in progress."""
        between = itertools.chain(*(seats for seats, *_ in self.between))
        return [seat.chat for seat in (*self.seats, *between, *self.arriving)]

    def _fill(self, waiting: deque[Request]) -> None:
        """Seats those between turns and those waiting, once half of the seats are free: merging copies every row's cache."""
        longest = max(chat.positions for chat in (*self.interrupted(), *itertools.islice(waiting, 1)))
        places = max(1, min(self.most, self.decoding.batch_tokens // longest))
        free = places - len(self.seats)
        if free * 2 < places:
            return
        parts = [Part(self.rows, range(len(self.seats)))] if self.rows else []
        while self.between and len(self.between[0][0]) <= free - len(self.arriving):
            seats, rows, picked = self.between.popleft()
            self.arriving += seats
            parts.append(Part(rows, picked, [seat.ask(self.decoding) for seat in seats]))
        claimed = len(self.arriving) + sum(len(seats) for seats, *_ in self.between)
        fresh = [Seat(waiting.popleft()) for _ in range(min(free - claimed, len(waiting)))]
        fresh.sort(key=lambda seat: seat.tasks)
        self.arriving += fresh
        for tasks, group in itertools.groupby(fresh, lambda seat: seat.tasks):
            texts = [seat.ask(self.decoding)[len(self.openings[tasks]) :] for seat in group]
            parts.append(Part(self._open(tasks), [0] * len(texts), texts))
        if not self.arriving:
            return
        left = max(seat.left for seat in (*self.seats, *self.arriving))
        self.rows, said = merge(self.decoding.model, parts, left)
        self.logits = torch.cat([self.logits, *said] if self.seats else said)
        self.seats, self.arriving = self.seats + self.arriving, []

    def _open(self, tasks: tuple[str, ...]) -> Rows:
        if tasks not in self.opened:
            self.opened[tasks] = Rows.empty(self.decoding.model, 1, len(self.openings[tasks]))
            self.opened[tasks].read([self.openings[tasks]])
        return self.opened[tasks]

    def _step(self) -> None:
        """One token for every seat."""
        grounded = [seat.grounded if seat.going else None for seat in self.seats]
        tokens, chances = choose(self.decoding, self.logits, grounded)
        for seat, token, chance in zip(self.seats, tokens, chances, strict=True):
            if seat.going:
                seat.take(token, chance, self.decoding.stops)
        stay = [row for row, seat in enumerate(self.seats) if seat.going]
        if (len(self.seats) - len(stay)) * 4 >= len(self.seats):
            self._leave(stay)
            tokens = [tokens[row] for row in stay]
        if self.seats:
            self.logits = self.rows.read([[t] if s.going else [] for s, t in zip(self.seats, tokens, strict=True)])

    def _leave(self, stay: Sequence[int]) -> None:
        """Lets the rows that are done go, together once they are a quarter: it copies the cache of all others."""
        self.ended += [seat for seat in self.seats if seat.ended]
        between = [row for row, seat in enumerate(self.seats) if not seat.going and not seat.ended]
        if between:
            self.between.append(([self.seats[row] for row in between], self.rows, between))
        self.seats = [self.seats[row] for row in stay]
        self.rows = self.rows.take(stay) if stay else None


def hold_chats(decoding: Decoding, chats: Sequence[Request], kind: type = Table) -> Iterator[list[Seat]]:
    """Chats as they end, longest first. Where memory runs out, those in progress start again with half as many at a time."""
    waiting, most = deque(_longest_first(chats)), len(chats)
    alike = {chat.chat.tasks for chat in chats}
    openings = {tasks: common_opening([chat for chat in chats if chat.chat.tasks == tasks]) for tasks in alike}
    while waiting:
        table = kind(decoding, most, openings)
        try:
            yield from table.hold(waiting)
        except (MemoryError, RuntimeError) as error:
            started = table.interrupted()
            if len(started) < 2 or not _out_of_memory(error):
                raise
            most = len(started) // 2
            waiting = deque(_longest_first([*started, *waiting]))
        if table.ended:
            yield table.ended
        del table  # with its tensors, before the next one takes as much
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
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
