"""The rows of a batch in the middle of being answered: their key-value cache, who may look at what, and where each stands.

Columns are shared by all rows, so a row has holes: padding on the left of its prompt, and columns written while it had
nothing to read. The mask hides them, and `SavedRow` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "medner_grouped"


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
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model that attends through PyTorch's SDPA do so by `attend_grouped`; leaves any other alone."""
    config = model.config
    if config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(GROUPED, attend_grouped)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    config._attn_implementation = GROUPED
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


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


@dataclass
class SavedRow:
    """One row's cache without its holes: for each layer keys and values, [heads, positions, width]."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    positions: int


class Rows:
    """A batch that reads tokens and says what comes next. Made by `join`; changed by `read` and `keep`."""

    def __init__(self, model: PreTrainedModel, count: int, room: int):
        self.model = model
        self.cache = Cache(layers=[RoomyLayer(room) for _ in range(model.config.num_hidden_layers)])
        self.seen = torch.zeros(count, room, dtype=torch.bool, device=model.device)  # [rows, columns]
        self.length = 0  # columns written

    @classmethod
    def join(cls, model: PreTrainedModel, saved: Sequence[SavedRow | None], room: int) -> Rows:
        """Rows that stand where `saved` ones stood (None: at the start), with room for as many columns more."""
        width = max((row.positions for row in saved if row), default=0)
        rows = cls(model, len(saved), width + room)
        if width:
            rows._fill(saved, width)
        return rows

    def _fill(self, saved: Sequence[SavedRow], width: int) -> None:
        for number, layer in enumerate(self.cache.layers):
            keys, values = saved[0].layers[number]
            layer.lazy_initialization(keys[None], values[None])
            layer.keys, layer.values = (t.new_zeros(len(saved), *t.shape[1:]) for t in (layer.keys, layer.values))
            layer.length = width
            for index, row in enumerate(saved):
                start = width - row.positions
                layer.keys[index, :, start:width], layer.values[index, :, start:width] = row.layers[number]
        for index, row in enumerate(saved):
            self.seen[index, width - row.positions : width] = True
        self.length = width

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

    def keep(self, rows: Sequence[int]) -> None:
        """Lets all other rows go."""
        index = torch.tensor(rows, device=self.seen.device)
        self.seen = self.seen[index]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]

    def save(self, row: int) -> SavedRow:
        """A copy of one row, for `join`."""
        columns = self.seen[row, : self.length].nonzero()[:, 0]
        layers = [(layer.keys[row][:, columns], layer.values[row][:, columns]) for layer in self.cache.layers]
        return SavedRow(layers, len(columns))
