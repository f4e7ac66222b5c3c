"""Unsloth's half of `pipeline.model`: its patched base model and its fused LoRA kernels, every argument given by name.

Unsloth must be imported before transformers, which it patches: see `pipeline.model.prepare_engine`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base_model import model_path
from pipeline.config import PROJECTIONS, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_with_unsloth(settings: Settings, adapter: Path | None, trainable: bool) -> PreTrainedModel:
    """The base; with the adapter at `adapter`; or, if `trainable`, with a fresh LoRA in Unsloth's fused kernels.

    Every argument is given, since its defaults change.
    """
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(**unsloth_base_arguments(settings))
    if adapter:  # by PEFT: given the adapter's folder, Unsloth would look for the base by itself, and without its revision
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        model = FastLanguageModel.patch_peft_model(model, unsloth_checkpointing(settings))
    if adapter or not trainable:
        FastLanguageModel.for_inference(model)
        return model
    layers = settings.lora.adapted_layers(model.config.num_hidden_layers)
    model = FastLanguageModel.get_peft_model(model, layers_to_transform=layers, **unsloth_lora_arguments(settings))
    for warning in find_unfused(model, settings):
        print(f"WARNING: {warning}", file=sys.stderr)
    return model


def unsloth_base_arguments(settings: Settings) -> dict:
    """What FastLanguageModel.from_pretrained is given."""
    import torch

    return {
        "model_name": str(model_path(settings.model.name)),
        "use_exact_model_name": True,  # else it reads another repository, quantised before, and drops the revision
        "revision": settings.model.revision,
        "max_seq_length": settings.model.max_length,
        "dtype": getattr(torch, settings.model.dtype),
        "load_in_4bit": bool(settings.model.load_in_4bit),
        "load_in_8bit": False,
        "load_in_16bit": not settings.model.load_in_4bit,
        "full_finetuning": False,
        "fast_inference": False,
        "trust_remote_code": False,
        "use_gradient_checkpointing": unsloth_checkpointing(settings),
        "random_state": settings.train.seed,
        "max_lora_rank": settings.lora.r,
    }


def unsloth_lora_arguments(settings: Settings) -> dict:
    """What FastLanguageModel.get_peft_model is given beside the model and the layers to adapt."""
    lora = settings.lora
    return {
        "r": lora.r,
        "target_modules": list(lora.target_modules),
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "bias": lora.bias,
        "use_gradient_checkpointing": unsloth_checkpointing(settings),
        "random_state": settings.train.seed,
        "max_seq_length": settings.model.max_length,
        "use_rslora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "loftq_config": {},
    }


def unsloth_checkpointing(settings: Settings) -> str | bool:
    """The `use_gradient_checkpointing` to give: "unsloth" keeps each layer's input in the machine's memory."""
    return "unsloth" if settings.train.gradient_checkpointing else False


def find_unfused(model: PreTrainedModel, settings: Settings) -> list[str]:
    """A warning where Unsloth left its fused LoRA kernels, else none.

    It marks each layer that it gave them, and says nothing of others.

    Attention carries `apply_qkv` and `apply_o`, the feed-forward a `forward` of its own, all named apply_lora_*.
    """
    layers = [module for module in model.modules() if hasattr(module, "self_attn") and hasattr(module, "mlp")]
    fused = 0
    for layer in layers:
        kernels = [getattr(layer.self_attn, "apply_qkv", None), getattr(layer.self_attn, "apply_o", None), layer.mlp.forward]
        fused += all(_function_name(kernel).startswith("apply_lora") for kernel in kernels)
    if fused == (settings.lora.last_layers or len(layers)):
        return []
    reason = "; ".join(leaves_fused_path(settings)) or "this model has biases or layers that they do not know"
    return [f"Unsloth's fused LoRA kernels run in {fused} of {len(layers)} layers, so training is slower: {reason}"]


def leaves_fused_path(settings: Settings) -> Iterator[str]:
    """Settings with which Unsloth falls back from its fused LoRA kernels."""
    missing = [name for name in PROJECTIONS if name not in settings.lora.target_modules]
    if settings.lora.bias != "none":
        yield f"lora.bias={settings.lora.bias}: Unsloth's fused LoRA kernels need none"
    if missing:
        yield f"lora.target_modules lacks {', '.join(missing)}: Unsloth's fused LoRA kernels need all seven"
    if settings.model.dtype == "float32":
        yield "model.dtype=float32: Unsloth's fused LoRA kernels need 16-bit"


def _function_name(function: object) -> str:
    inner = getattr(function, "__func__", function)
    return getattr(getattr(inner, "func", inner), "__name__", "")
