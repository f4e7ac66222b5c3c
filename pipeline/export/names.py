"""What a model made here is called."""

from __future__ import annotations

import re
from datetime import UTC, datetime


def default_name(base: str) -> str:
    """Llama-3.2-3B-medical-ner-YYYYMMDD_HHMMSS for a 3B base, in universal time."""
    family = re.match(r"(?:Meta-)?(Llama-[\d.]+-\d+B)", base.rpartition("/")[2], re.IGNORECASE)
    stem = "Llama" + family[1][len("Llama") :] if family else "Llama"
    return f"{stem}-medical-ner-{datetime.now(UTC):%Y%m%d_%H%M%S}"
