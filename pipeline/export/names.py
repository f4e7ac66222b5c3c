"""What a model made here, its files and its repository are called."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

Quant = Literal["f16", "bf16", "q8_0", "q4_k_m", "q5_k_m", "q6_k"]
REPOSITORY = re.compile(r"[\w-][\w.-]{0,38}/[\w-][\w.-]{0,95}", re.ASCII)


def is_repository(name: str) -> bool:
    """Whether the Hub takes `name` for a repository: USER/NAME in letters, digits, '-', '_' and '.'."""
    return bool(REPOSITORY.fullmatch(name)) and ".." not in name and "--" not in name


def default_name(base: str) -> str:
    """Llama-3.2-3B-medical-ner-YYYYMMDD_HHMMSS for a 3B base, in universal time."""
    family = re.match(r"(?:Meta-)?(Llama-[\d.]+-\d+B)", base.rpartition("/")[2], re.IGNORECASE)
    stem = "Llama" + family[1][len("Llama") :] if family else "Llama"
    return f"{stem}-medical-ner-{datetime.now(UTC):%Y%m%d_%H%M%S}"
