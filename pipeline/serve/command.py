"""`medner serve --model X`: the page over one model, beside others where asked; or a Space that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.schema import InputError
from pipeline.extract.extractor import Extractor


def serve_models(
    model: str, others: Sequence[str], *, untuned: bool, host: str, port: int | None, settings: dict[str, Any]
) -> str:
    """Serve until interrupted; returns the address. `others`: models shown beside it; `untuned`: its base model too.

    Raises InputError for a model that cannot be asked, or a port that is taken.
    """
    require_gradio()
    from pipeline.extract.open_model import load_extractor
    from pipeline.serve.page import build_page, serve_page

    models: dict[str, Extractor] = {}
    for name in (model, *others):
        models[unused(Path(name).name or name, models)] = load_extractor(name, **settings)
    if untuned:
        models["untuned model"] = load_untuned(model, next(iter(models.values())), settings)
    page = build_page(models, f"medner: {Path(model).name or model}")
    try:
        return serve_page(page, host, port)
    except OSError as error:  # the port is taken
        raise InputError(f"--port {port}: {str(error).splitlines()[0]}") from None


def require_gradio() -> None:
    """Raises InputError, naming what to install, where Gradio is missing."""
    if find_spec("gradio") is None:
        raise InputError("medner serve needs Gradio: pip install 'medner[ui]' (or pip install -r requirements-ui.txt)")


def unused(name: str, taken: dict[str, Extractor]) -> str:
    """The name, with a number where two models are called alike."""
    return name if name not in taken else f"{name} ({len(taken) + 1})"


def load_untuned(model: str, tuned: Extractor, settings: dict[str, Any]) -> Extractor:
    """The base model of an adapter, asked as the adapter is. Raises InputError where `model` is no adapter."""
    import json

    from pipeline.extract.open_model import adapter_of, load_extractor
    from pipeline.model import model_path

    facts = adapter_of(Path(model)) / "medner.json"
    if not facts.is_file() or not (facts.parent / "adapter_config.json").is_file():
        raise InputError(f"--untuned: {model} is no run and no adapter, whose base could be shown")
    base = model_path(json.loads(facts.read_text(encoding="utf-8"))["base_model"])
    own = {"layout": tuned.asked.layout, "max_new_tokens": dict(tuned.asked.max_new_tokens)}
    return load_extractor(base, **{**settings, **own})
