"""Decoding through a model's own `generate`, for a model that Unsloth has patched.

Its forward takes one token at a time once there is a cache, and keeps buffers of its own, so that `decode_loop` cannot drive
it; `generate` is what it supports. Each turn is generated from all ids so far: the article is read once a turn, and rows do
not leave. The tokens are still chosen here, one logits processor taking the place of the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from eval.chats import Request
from eval.engines.decode_loop import ChatState, Decoding, Openings, choose


def is_patched(model: torch.nn.Module) -> bool:
    """Whether Unsloth has replaced the forward of the model or of a part of it."""
    return any(type(part).forward.__module__.startswith("unsloth") for part in model.modules())


class Calls:
    """One call of `generate` a turn, for chats of the same tasks; what `Scheduler` is to a model with a forward to drive."""

    def __init__(self, decoding: Decoding, most: int, openings: Openings):
        self.decoding, self.most = decoding, most
        self.states: list[ChatState] = []
        self.answered: list[ChatState] = []  # none that `run` has not handed on

    def run(self, waiting: deque[Request]) -> Iterator[list[ChatState]]:
        while waiting:
            places = max(1, min(self.most, self.decoding.batch_tokens // waiting[0].positions))
            tasks = waiting[0].chat.tasks
            while waiting and len(self.states) < places and waiting[0].chat.tasks == tasks:
                self.states.append(ChatState(waiting.popleft()))
            for _ in tasks:
                self._answer([state.read(self.decoding) for state in self.states])
                yield list(self.states)
            self.states = []

    def interrupted(self) -> list[Request]:
        return [state.chat for state in self.states]

    def _answer(self, read: Sequence[Sequence[int]]) -> None:
        """One turn of all chats, whose ids so far are `read`."""
        width, device = max(map(len, read)), self.decoding.model.device
        self.decoding.model.generate(
            input_ids=torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in read], device=device),
            attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in read], device=device),
            max_new_tokens=1 + max(state.left for state in self.states),
            do_sample=False,
            eos_token_id=sorted(self.decoding.stops),
            pad_token_id=min(self.decoding.stops),
            logits_processor=LogitsProcessorList([Follow(self.decoding, self.states)]),
        )


class Follow(LogitsProcessor):
    """Chooses each row's token and leaves `generate` no other; a row that is done is made to end."""

    def __init__(self, decoding: Decoding, states: Sequence[ChatState]):
        self.decoding, self.states = decoding, states

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        grounded = [state.grounded if state.going else None for state in self.states]
        tokens, chances = choose(self.decoding, scores, grounded)
        only = torch.full_like(scores, -torch.inf)
        for row, state in enumerate(self.states):
            token = tokens[row] if state.going else min(self.decoding.stops)
            if state.going:
                state.take(token, chances[row], self.decoding.stops)
            only[row, token] = 0
        return only
