"""A real llama.cpp, in this process, that serves one GGUF file over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import xllamacpp


@contextmanager
def serve(gguf: Path, context: int = 2048) -> Iterator[httpx.Client]:
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.n_ctx = context
    settings.n_parallel = 1
    settings.port = 0
    settings.warmup = False
    settings.cpuparams.n_threads = 1
    server = xllamacpp.Server(settings)
    with httpx.Client(base_url=server.listening_address, timeout=120) as client:
        yield client


def ask(client: httpx.Client, path: str, **body: object) -> dict:
    answer = client.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def tokenize(client: httpx.Client, text: str, *, special: bool = False) -> list[int]:
    return ask(client, "/tokenize", content=text, add_special=special, parse_special=special)["tokens"]


def prompt_ids(client: httpx.Client, messages: list[dict]) -> list[int]:
    """What the server makes of a chat: its own template, then its own tokenizer."""
    return tokenize(client, ask(client, "/apply-template", messages=messages)["prompt"], special=True)


def complete(client: httpx.Client, ids: list[int], tokens: int, **settings: object) -> dict:
    return ask(client, "/completion", prompt=ids, n_predict=tokens, temperature=0, return_tokens=True, **settings)
