"""4 bits: Unsloth's own kernels for NF4 against bitsandbytes' processor library, and a model that lost its 4 bits."""

from __future__ import annotations

import pytest
import torch
from quick_kernels import unpack, use_quick_kernels
from two_layer_job import answer, settings
from unsloth_step import compare, open_trainer

from data.files import read_jsonl
from data.schema import InputError


def test_loss_and_every_gradient_are_the_plain_4_bit_ones(reference, tokenizer, dtype, tmp_path):
    from pipeline.unsloth_model import find_unfused

    chosen = settings(reference / "base", dtype, model__load_in_4bit=True)
    trainer = open_trainer(chosen, reference, tokenizer, tmp_path)
    packed = {name for name, parameter in trainer.model.named_parameters() if type(parameter).__name__ == "Params4bit"}
    assert len(packed) == 14 and find_unfused(trainer.model, chosen) == []
    compare(trainer, reference, dtype, bits=4)


@pytest.mark.parametrize("shape", [(256, 128), (128, 256)])
def test_unpacked_weights_are_those_of_bitsandbytes_bit_for_bit(shape, dtype):
    import unsloth.kernels.utils as kernels
    from bitsandbytes.nn import Params4bit

    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    packed = Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4").to("cpu")
    assert torch.equal(kernels.fast_dequantize(packed, packed.quant_state), unpack(packed, packed.quant_state))
    assert torch.equal(kernels.fast_dequantize(packed.t(), packed.quant_state), unpack(packed.t(), packed.quant_state))
    row = torch.randn(1, 1, shape[1], generator=torch.Generator().manual_seed(1)).to(weight.dtype)
    product = kernels.fast_gemv(row, packed, packed.quant_state)
    torch.testing.assert_close(product, row @ unpack(packed, packed.quant_state).t(), atol=0.05, rtol=0.02)


def test_answers_in_4_bits_are_the_plain_ones(reference, tokenizer, tmp_path, monkeypatch):
    from pipeline.model import load_model

    use_quick_kernels(monkeypatch)
    model = load_model(settings(reference / "base", "float32", model__load_in_4bit=True), adapter=reference / "adapter")
    rows = answer(model, tokenizer, tmp_path / "answers.jsonl")
    wanted = {(row["document"], row["task"]): row["completion"] for _, row in read_jsonl(reference / "4bit/answers.jsonl")}
    assert {(row["document"], row["task"]): row["completion"] for row in rows} == wanted


def test_a_model_that_unsloth_loads_without_4_bits_is_refused(reference, monkeypatch):
    """As where bitsandbytes' CUDA library cannot be loaded: Unsloth prints a line and goes on in 16 bits."""
    import unsloth.models.loader as loader

    from pipeline.model import load_model

    monkeypatch.setattr(loader, "ALLOW_BITSANDBYTES", False)
    with pytest.raises(InputError, match="model.load_in_4bit=true: .* was loaded without a 4-bit layer"):
        load_model(settings(reference / "base", "float16", model__load_in_4bit=True), trainable=True)
