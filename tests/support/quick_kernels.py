"""PyTorch's own arithmetic in the place of Unsloth's slowest interpreted kernels, for tests that need many tokens.

What stands in: RMS norm, rotary embedding, and the unpacking of 4-bit weights (bitsandbytes' processor library).
tests/unsloth/test_training.py and test_four_bit.py run the kernels themselves.
"""

from __future__ import annotations

import torch


def normalise(layernorm, X, gemma=False, save_output=False, reuse_grad=False):
    wide = X.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + layernorm.variance_epsilon)
    return layernorm.weight * scaled.to(layernorm.weight.dtype)


def rotate(Q, K, cos, sin, rope_embedding_indices=None):
    """Q and K: (batch, heads, tokens, width); cos and sin: a row a position."""
    batch, _, tokens, width = Q.shape
    places = torch.arange(tokens) if rope_embedding_indices is None else rope_embedding_indices.long()
    places = places.reshape(-1, tokens)
    cos, sin = (part.squeeze()[places][:, None].to(Q.dtype) for part in (cos, sin))

    def turn(x):
        half = torch.cat((-x[..., width // 2 :], x[..., : width // 2]), dim=-1)
        return x * cos + half * sin

    return turn(Q), turn(K)


def unpack(W, quant_state, out=None, use_global_buffer=False):
    """The 16-bit weight; transposed where the packed one was given so, as Unsloth's own does."""
    from bitsandbytes.functional import dequantize_4bit

    packed = W.data if W.shape[0] != 1 else W.data.t()
    weight = dequantize_4bit(packed.contiguous(), quant_state)
    if out is not None:
        weight = out.copy_(weight)
    return weight.t() if W.shape[0] == 1 else weight


def multiply_row(X, W, quant_state, out=None):
    product = torch.matmul(X, unpack(W, quant_state).t())
    return product if out is None else out.copy_(product)


def use_quick_kernels(monkeypatch) -> None:
    import unsloth.kernels.utils as kernels
    import unsloth.models.llama as llama

    monkeypatch.setattr(llama, "fast_rms_layernorm", normalise)
    monkeypatch.setattr(llama, "fast_rope_embedding", rotate)
    monkeypatch.setattr(kernels, "_USE_NF4_KERNELS", False)
    monkeypatch.setattr(kernels, "_fast_dequantize_ctypes", unpack)
    monkeypatch.setattr(kernels, "_fast_gemv_ctypes", multiply_row)
