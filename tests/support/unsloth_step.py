"""One training step of a model that Unsloth has loaded, and its comparison with the plain one of two_layer_job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from two_layer_job import short_examples


def load_with_reference_adapter(chosen, reference: Path):
    """The base with a fresh LoRA, whose weights are then those of the reference."""
    from safetensors.torch import load_file

    from pipeline.model import load_model

    model = load_model(chosen, trainable=True)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in load_file(reference / "adapter/adapter_model.safetensors").items():
            parameters[name.replace(".weight", ".default.weight")].copy_(weight)
    return model


def open_trainer(chosen, reference: Path, tokenizer, folder: Path):
    from pipeline.training.train import make_trainer

    model, examples = load_with_reference_adapter(chosen, reference), short_examples(tokenizer)
    return make_trainer(chosen, model, tokenizer, examples, examples[:2], folder)


def step(trainer) -> tuple[float, dict]:
    """Loss and unscaled gradients of the first optimiser step's batches."""
    model = trainer.model.train()
    batches, count = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), trainer.args.gradient_accumulation_steps, trainer.args.device
    )
    losses = [float(trainer.training_step(model, dict(batch), count)) for batch in batches]
    scale = trainer.accelerator.scaler.get_scale() if trainer.accelerator.scaler else 1.0
    return sum(losses), {name: p.grad.float() / scale for name, p in model.named_parameters() if p.requires_grad}


def compare(trainer, reference: Path, dtype: str, bits: int = 16) -> None:
    loss, gradients = step(trainer)
    wanted = torch.load(reference / f"{bits}bit/reference.pt")
    assert loss == pytest.approx(wanted["loss"], rel=1e-3 if dtype == "float16" else 1e-2)
    assert gradients.keys() == wanted["gradients"].keys() and len(gradients) == 28
    for name, gradient in gradients.items():
        other = wanted["gradients"][name]
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0)
        assert cosine > (0.9999 if dtype == "float16" else 0.99), (name, float(cosine))
        assert gradient.norm() / other.norm() == pytest.approx(1, abs=0.01 if dtype == "float16" else 0.05), name
