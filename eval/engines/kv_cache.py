"""The rows of a batch in the middle of being answered: their key-value cache, who may look at what, and where each stands.

Columns are shared by all rows, so a row has holes: padding on the left of its prompt, and columns written while it had
nothing to read. The mask hides them, and merging leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "medner_grouped"
PROMPT_TOKENS = {"cpu": 2048}  # read at once: more of them push each other out of a processor's cache
PROMPT_TOKENS_ELSEWHERE = 16_384


def attend_grouped(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **settings
) -> tuple[torch.Tensor, None]:
    """Attention of one new token a row, where several query heads share a key head: those become the queries of that head.

    transformers repeats the whole cache for each of them instead, a third of the time of a step on a CPU.
    """
    rows, heads, new, width = query.shape
    shared = key.shape[1]
    if new > 1 or heads == shared:
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    grouped = query.view(rows, shared, heads // shared, width)
    seen = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=settings.get("scaling"))
    return seen.reshape(rows, 1, heads, width), None


@contextmanager
def attending_by(model: PreTrainedModel, name: str, attend: Callable) -> Iterator[None]:
    """Lets a model that attends through PyTorch's SDPA do so by `attend`, registered as `name`; leaves any other alone."""
    config = model.config
    if config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def grouped_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Lets a model answer by `attend_grouped`."""
    return attending_by(model, GROUPED, attend_grouped)


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, [rows, heads, columns, width], written into room taken once.

    transformers' own dynamic layer copies the whole cache at each token, its static one attends to the empty room too.
    """

    def __init__(self, room: int):
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(*states.shape[:2], self.room, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def part(self, rows: torch.Tensor | slice) -> RoomyLayer:
        """These rows: copied for an index, in the same memory for a slice."""
        layer = RoomyLayer(self.room)
        layer.dtype, layer.device, layer.is_initialized = self.dtype, self.device, True
        layer.keys, layer.values, layer.length = self.keys[rows], self.values[rows], self.length
        return layer


class Rows:
    """A batch that reads tokens and says what comes next, with room for so many columns."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[RoomyLayer], seen: torch.Tensor, length: int = 0):
        self.model, self.cache = model, Cache(layers=list(layers))
        self.seen = seen  # [rows, columns]: what a row's tokens may look at
        self.length = length  # columns written

    @classmethod
    def empty(cls, model: PreTrainedModel, count: int, room: int) -> Rows:
        layers = [RoomyLayer(room) for _ in range(model.config.num_hidden_layers)]
        return cls(model, layers, torch.zeros(count, room, dtype=torch.bool, device=model.device))

    def take(self, picked: Sequence[int]) -> Rows:
        """These rows, in this order, as a batch of their own with the same room."""
        index = torch.tensor(picked, device=self.seen.device)
        layers = [layer.part(index) for layer in self.cache.layers]
        return Rows(self.model, layers, self.seen[index], self.length)

    def view(self, start: int, end: int, length: int) -> Rows:
        """Rows from `start` to `end` in the same memory, going on at column `length`."""
        rows = Rows(self.model, [layer.part(slice(start, end)) for layer in self.cache.layers], self.seen[start:end], length)
        for layer in rows.cache.layers:
            layer.length = length
        return rows

    def write_to(self, length: int) -> None:
        """Says that columns up to `length` are written."""
        self.length = length
        for layer in self.cache.layers:
            layer.length = length

    def read(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Reads each row's next tokens (none for a row that is done). Returns the logits after them, [rows, vocabulary]."""
        width = max(map(len, ids))
        tokens = torch.tensor([[0] * (width - len(own)) + list(own) for own in ids])
        real = torch.tensor([[False] * (width - len(own)) + [True] * len(own) for own in ids])
        tokens, real = tokens.to(self.seen.device), real.to(self.seen.device)
        before = self.seen[:, : self.length].sum(1, keepdim=True)
        self.seen[:, self.length : self.length + width] = real
        self.length += width
        output = self.model(
            input_ids=tokens,
            attention_mask=self.seen[:, : self.length],
            position_ids=(before + real.cumsum(1) - 1).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


@dataclass
class Part:
    """Rows of a batch that go on in another one, where they first read `texts`, one each, or none of them does."""

    rows: Rows
    picked: Sequence[int]
    texts: Sequence[Sequence[int]] = ()

    @property
    def reading(self) -> int:
        return max(map(len, self.texts), default=0)


def merge(model: PreTrainedModel, parts: Sequence[Part], room: int) -> tuple[Rows, list[torch.Tensor]]:
    """One batch of the rows of `parts`, holes left out, with `room` for columns more, and what those that read say next.

    Each part is written so that it ends, with what it reads, at the same column: one copy, and no room between.
    """
    columns = [[part.rows.seen[row].nonzero()[:, 0] for row in part.picked] for part in parts]
    width = max(max(map(len, own)) + part.reading for part, own in zip(parts, columns, strict=True))
    rows = Rows.empty(model, sum(len(part.picked) for part in parts), width + room)
    template = next(layer for part in parts for layer in part.rows.cache.layers)
    for layer in rows.cache.layers:
        layer.lazy_initialization(*(t.new_empty(len(rows.seen), *t.shape[1:]) for t in (template.keys, template.values)))
    said, start = [], 0
    for part, own in zip(parts, columns, strict=True):
        end = width - part.reading
        for row, (old, kept) in enumerate(zip(part.picked, own, strict=True), start):
            _copy_row(rows, row, end, part.rows, old, kept)
        at_once = max(1, PROMPT_TOKENS.get(model.device.type, PROMPT_TOKENS_ELSEWHERE) // max(part.reading, 1))
        for first in range(0, len(part.texts), at_once):
            texts = part.texts[first : first + at_once]
            padding = part.reading - max(map(len, texts))
            said.append(rows.view(start + first, start + first + len(texts), end + padding).read(texts))
        start += len(own)
    rows.write_to(width)
    return rows, said


def _copy_row(rows: Rows, row: int, end: int, old_rows: Rows, old: int, kept: torch.Tensor) -> None:
    """Copies a row's columns `kept` so that they end at column `end`."""
    if not len(kept):
        return
    first, last = int(kept[0]), int(kept[-1]) + 1
    columns = slice(first, last) if last - first == len(kept) else kept  # most rows have no holes: copied in one piece
    rows.seen[row, end - len(kept) : end] = True
    for new, layer in zip(rows.cache.layers, old_rows.cache.layers, strict=True):
        new.keys[row, :, end - len(kept) : end] = layer.keys[old][:, columns]
        new.values[row, :, end - len(kept) : end] = layer.values[old][:, columns]
