"""Attention of bfloat16 training on a processor: by two matrix products, which it does in bfloat16.

PyTorch's own runs there at float32's speed. Rows alone in their batch are attended to so; others, and answering, by PyTorch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from eval.engines.kv_cache import attending_by

BY_MATRICES = "medner_by_matrices"


def attend_by_matrices(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **settings
) -> tuple[torch.Tensor, None]:
    """Causal attention. query: [rows, heads, tokens, width]; key, value: [rows, shared heads, tokens, width], rotated."""
    rows, heads, tokens, width = query.shape
    shared = key.shape[1]
    if mask is not None or key.shape[2] != tokens or tokens == 1:
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    grouped = query.reshape(rows, shared, heads // shared * tokens, width) * (settings.get("scaling") or width**-0.5)
    scores = (grouped @ key.transpose(-1, -2)).view(rows, shared, heads // shared, tokens, tokens)
    later = torch.full((tokens, tokens), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    weights = (scores + later).softmax(-1)
    seen = weights.view(rows, shared, heads // shared * tokens, tokens) @ value
    return seen.view(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


def fast_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Lets a bfloat16 model on a processor train by `attend_by_matrices`; leaves any other alone."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return nullcontext()
    return attending_by(model, BY_MATRICES, attend_by_matrices)
