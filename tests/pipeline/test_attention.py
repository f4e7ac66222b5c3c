"""Attention of training on a processor: the same figures and gradients as PyTorch's own, and only where it is meant to be."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import save_base
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipeline.training.attention import BY_MATRICES, attend_by_matrices, fast_attention


class Module(torch.nn.Module):
    num_key_value_groups, is_causal, training = 3, True, True


@pytest.mark.parametrize("tokens", [1, 2, 37])
def test_attention_and_its_gradients_are_those_of_pytorch(tokens):
    torch.manual_seed(0)
    leaves = [torch.randn(2, heads, tokens, 8, requires_grad=True) for heads in (6, 2, 2)]
    weights = torch.randn(2, tokens, 6, 8)
    found = []
    for attend in (attend_by_matrices, sdpa_attention_forward):
        seen, _ = attend(Module(), *leaves, None, scaling=0.3)
        found.append([seen, *torch.autograd.grad((seen * weights).sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_padded_batch_is_left_to_pytorch():
    query, key = torch.randn(1, 3, 4, 8), torch.randn(1, 1, 4, 8)
    mask = torch.tensor([[[[True, False, False, False]] * 4]])
    ours, _ = attend_by_matrices(Module(), query, key, key, mask)
    torch.testing.assert_close(ours, key[:, :, :1].expand(1, 3, 4, 8).transpose(1, 2))


@pytest.mark.parametrize(("dtype", "used"), [(torch.bfloat16, True), (torch.float32, False)])
def test_only_a_bfloat16_model_on_a_processor_is_given_it_and_only_meanwhile(dtype, used, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_base(tmp_path), dtype=dtype)
    ids = torch.arange(5, 25)[None]
    before = model(ids).logits
    with fast_attention(model):
        assert (model.config._attn_implementation == BY_MATRICES) is used
        torch.testing.assert_close(model(ids).logits, before, atol=0.05, rtol=0.05)
    assert model.config._attn_implementation == "sdpa"
