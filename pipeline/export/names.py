"""What a model made here, its files and its repository are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

Quant = Literal["f16", "bf16", "q8_0", "q4_k_m", "q5_k_m", "q6_k"]
REPOSITORY = re.compile(r"[\w-][\w.-]{0,38}/[\w-][\w.-]{0,95}", re.ASCII)

SIZED = re.compile(r"(.*?\d(?:\.\d+)?[BM])(?![a-z])", re.IGNORECASE)
LLAMA = re.compile(r"(?<![a-z])llama[-_ ]?(2|3\.[0-3]|3|4)(?![\d.])", re.IGNORECASE)


def is_repository(name: str) -> bool:
    """Whether the Hub takes `name` for a repository: USER/NAME in letters, digits, '-', '_' and '.'."""
    return bool(REPOSITORY.fullmatch(name)) and ".." not in name and "--" not in name


def default_name(base: str) -> str:
    """Llama-3.2-3B-medical-ner-YYYYMMDD_HHMMSS for a 3B base of that family, in universal time."""
    return f"{family_name(base)}-medical-ner-{datetime.now(UTC):%Y%m%d_%H%M%S}"


def family_name(base: str) -> str:
    """A base's family and size, as far as its name tells: `base` is a Hub id, a folder or a GGUF file.

    >>> family_name("unsloth/Llama-3.2-3B-Instruct"), family_name("/models/smollm2-135m-instruct.gguf"), family_name("tiny")
    ('Llama-3.2-3B', 'smollm2-135m', 'Llama')
    """
    if base == "tiny":
        return "Llama"  # the embedded model is built as Llamas are
    parts = [part for part in re.split(r"[/\\]|--", base.removesuffix(".gguf")) if part]
    sized = [found[1] for part in reversed(parts) if (found := SIZED.match(part))]
    stem = re.sub(r"[^\w.-]+", "-", (sized or parts[-1:] or ["model"])[0], flags=re.ASCII).strip("-.")[:40]
    return re.sub(r"^(?:meta-)?llama(?=-)", "Llama", stem, flags=re.IGNORECASE) or "model"


def published_base(adapter: Mapping) -> str:
    """What others know a base by: of an adapter's medner.json, the Hub id that its origin names, else its own name.

    >>> published_base({"base_model": "smollm2-135m", "origin": {"base_model": "HuggingFaceTB/SmolLM2-135M-Instruct"}})
    'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    return adapter.get("origin", {}).get("base_model") or adapter["base_model"]


def ollama_name(base: str) -> str | None:
    """What Ollama's library calls a base that has its adapters' architecture; None where it is not known here.

    >>> ollama_name("unsloth/Llama-3.2-3B-Instruct"), ollama_name("HuggingFaceTB/SmolLM2-135M-Instruct"), ollama_name("tiny")
    ('llama3.2:3b', 'smollm2:135m', None)
    """
    found = re.fullmatch(r"(llama-3\.[12]|smollm2)-([\d.]+[bm])", family_name(base).lower())
    return f"{found[1].replace('llama-', 'llama')}:{found[2]}" if found else None


def llama_version(base: str) -> str | None:
    """The version of Meta's Llama that a base is, "3.2" say; None for any other model, TinyLlama and the embedded one too."""
    found = [match[1] for part in re.split(r"[/\\]", base) if (match := LLAMA.search(part))]
    return found[-1] if found else None


def licence_of(base: str) -> str | None:
    """The Hub's word for the base's licence, where its family's models all have the same."""
    if version := llama_version(base):
        return f"llama{version}"
    name = re.split(r"[/\\]", base)[-1].lower()
    return "apache-2.0" if base == "tiny" or re.match(r"smollm|tinyllama|qwen3(?!\d)", name) else None
