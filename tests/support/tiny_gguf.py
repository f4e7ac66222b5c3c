"""The embedded model, untuned, as a GGUF file that says how it is asked, as `medner export` writes it; made in a second."""

from __future__ import annotations

from pathlib import Path

from data.schema import TASKS
from pipeline.base_model import TINY
from pipeline.export.gguf import convert_to_gguf

ASKED = {"medner.layout": "conversation", **{f"medner.max_new_tokens.{task}": "48" for task in TASKS}}


def make_tiny_gguf(folder: Path) -> Path:
    return convert_to_gguf(TINY, folder / "tiny.q8_0.gguf", "q8_0", ASKED)
