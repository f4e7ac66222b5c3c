"""The embedded model as a GGUF file that says how it is asked, as `medner export` writes it; made in a second, untrained."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from data.schema import TASKS
from pipeline.base_model import TINY
from pipeline.export.gguf import convert_to_gguf

ASKED = {"medner.layout": "conversation", **{f"medner.max_new_tokens.{task}": "16" for task in TASKS}}


def make_tiny_gguf(folder: Path, noise: float = 1.5) -> Path:
    """`noise`: in standard deviations of each matrix; at 1.5, grounded, it lists chance words of the text."""
    model = shutil.copytree(TINY, folder / "model")
    torch.manual_seed(0)
    weights = load_file(model / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() > 1:
            weights[name] = (weight + noise * weight.float().std() * torch.randn(weight.shape)).to(weight.dtype)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return convert_to_gguf(model, folder / "tiny.q8_0.gguf", "q8_0", ASKED)
