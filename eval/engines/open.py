"""The engines by name, each a function from chats to rows of completions: see `eval.chats`."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any

from data.schema import InputError
from eval.chats import Engine

ENGINES = ("transformers", "llama.cpp", "openai", "vllm")


def open_engine(name: str, model: str, **settings: Any) -> Engine:
    """Opens `model` (a folder or Hub id, a GGUF file, a server's address) with the engine of that name.

    Raises InputError for an engine or a setting that there is not.
    """
    if name not in ENGINES:
        raise InputError(f"no engine {name!r}; there are {', '.join(ENGINES)}")
    opener = _opener(name)
    known = [setting for setting in inspect.signature(opener).parameters if setting != "model"]
    for setting in settings:
        if setting not in known:
            near = get_close_matches(setting, known, 1)
            raise InputError(f"the {name} engine has no setting {setting!r}" + (f"; {near[0]!r}?" if near else ""))
    return opener(model, **settings)


def _opener(name: str):
    if name == "transformers":
        from eval.engines.huggingface import open_transformers

        return open_transformers
    if name == "llama.cpp":
        from eval.engines.llama_cpp import llama_cpp_engine

        return llama_cpp_engine
    if name == "openai":
        from eval.engines.openai import openai_engine

        return openai_engine
    from eval.engines.vllm import vllm_engine

    return vllm_engine
