"""The job and its command line; and `load_extractor`, a tuned model as a function from texts to what it finds there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.extract.open_model import load_extractor

__all__ = ["load_extractor"]


def __getattr__(name: str) -> Any:
    """`from pipeline import load_extractor`, imported when it is asked for: the command line starts without it."""
    if name == "load_extractor":
        from pipeline.extract.open_model import load_extractor

        return load_extractor
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
