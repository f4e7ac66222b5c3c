"""What answers a run's articles: its adapter, the model before tuning, or any other model on any engine, grounded or not.

A `Variant` is made by the command and passed as it is; what it stands for, with the hash of its weights, is written beside its
answers. Everything that can be wrong with it is found before anything is loaded, and nothing is loaded for no question.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.schema import TASKS, Document, InputError
from eval.chats import Chat, Engine, read_chat, refuse_too_long
from eval.completions import write_completions
from eval.engines.gguf_metadata import read_metadata
from eval.grounding.repeats import describe_grounding
from pipeline.config import Settings
from pipeline.run_folder import RunFolder
from pipeline.weights import hash_file, hash_folder, hash_own_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EngineName = Literal["transformers", "llama.cpp", "openai", "vllm"]
ADDRESS = ("http://", "https://")


@dataclass(frozen=True)
class Variant:
    """Who answers a run's articles, and how.

    `model`: a folder, a Hub id, a GGUF file or a server's address; None for what the run itself has for the engine.

    `untuned`: the base model without the adapter. `given_entities`: gold's names are given, and relations alone are asked.
    `logprobs`: keep the log-probability of each token with the answers.
    """

    engine: EngineName = "transformers"
    model: str | None = None
    untuned: bool = False
    grounded: bool = False
    listed_sides: bool = False
    given_entities: bool = False
    logprobs: bool = False

    @property
    def own(self) -> bool:
        """Whether the run's own model answers, loaded as training loads it."""
        return self.engine == "transformers" and self.model is None


def run_variant(settings: Settings, untuned: bool = False) -> Variant:
    """What the run's own evaluation asks: its adapter, or the untuned model."""
    return Variant(untuned=untuned, grounded=settings.eval.grounded, logprobs=settings.eval.logprobs and not untuned)


def variant_folder(run: RunFolder, variant: Variant) -> str:
    """The folder under eval/<split>/: "" for the run's own evaluation, "base", "grounded", "llama.cpp-NAME-1a2b3c4d-grounded".

    Two models never share one: the digits are of their weights' hash, or of the server's address.
    """
    parts = ["base"] if variant.untuned else []
    if not variant.own:
        source = describe_source(run, variant)
        name = re.sub(r"[^\w.-]+", "-", source["model"].rstrip("/").rpartition("/")[2].removesuffix(".gguf"))
        digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
        parts = [variant.engine, name, digest[:8]]
    grounded = variant.grounded and not (variant.own and run.settings.eval.grounded)
    return "-".join([*parts, *["grounded"] * grounded, *["listed"] * variant.listed_sides, *["given"] * variant.given_entities])


def ask_variant(run: RunFolder, variant: Variant, documents: Sequence[Document], path: Path) -> None:
    """Write the answers that `path` lacks, and beside them what produced them.

    Raises InputError for whatever is wrong with the variant or with the answers that are there.
    """
    budgets = run.settings.eval.max_new_tokens or run.manifest["max_new_tokens"]
    require_budgets(budgets, documents)
    provenance = describe_variant(run, variant)

    def engine(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        return open_variant(run, variant, chats)(chats)  # opened only where something is left to ask

    write_completions(
        engine,
        documents,
        path,
        layout=run.settings.train.layout,
        max_new_tokens=budgets,
        given_entities=variant.given_entities,
        provenance=provenance,
    )


def require_budgets(budgets: int | Mapping[str, int], documents: Sequence[Document]) -> None:
    """Raises InputError where a document asks for a task of which train has no answer, so nobody taught it."""
    for document in documents if not isinstance(budgets, int) else ():
        lacking = [task for task in document.tasks if task not in budgets]
        if lacking:
            raise InputError(
                f"document {document.id} asks for {lacking[0]}, of which train has no answer (it has {', '.join(budgets)}); "
                f"add {lacking[0]} to train, or take them out of what is evaluated"
            )


def describe_variant(run: RunFolder, variant: Variant) -> dict:
    """What stands in provenance.json: engine, model, hash of the weights, and the settings that change answers."""
    kept = {key: value for key, value in asdict(variant).items() if key not in ("model", "untuned")}
    if not variant.given_entities:  # so that answers written before there was this choice stay valid
        del kept["given_entities"]
    return {**kept, **describe_grounding(variant.grounded), **describe_source(run, variant)}


def describe_source(run: RunFolder, variant: Variant) -> dict:
    """{"model": its name or address, …} and what tells it from every other: sha256 of its weights, or the served name."""
    if variant.own:
        return describe_own(run, variant)
    model = variant.model or default_model(run, variant.engine)
    if variant.engine == "vllm" and find_spec("vllm") is None:
        raise InputError("--engine vllm: the package vllm is not installed (it needs a CUDA GPU): pip install vllm")
    if model.startswith(ADDRESS):
        if variant.engine in ("transformers", "vllm"):
            raise InputError(f"--model {model}: the {variant.engine} engine takes no address; use --engine openai or llama.cpp")
    elif variant.engine == "openai":
        raise InputError(f"--model {model}: the openai engine takes a server's address, such as http://localhost:8000/v1")
    return identify_model(model, variant.engine)


def describe_own(run: RunFolder, variant: Variant) -> dict:
    """The base model, how it is loaded, and the adapter's hash."""
    from pipeline.model import model_path

    model = run.settings.model
    path = Path(model_path(model.name))
    source = {"model": model.name, "revision": model.revision, "load_in_4bit": model.load_in_4bit, "dtype": model.dtype}
    weights = {"base_sha256": hash_folder(path)} if path.is_dir() else {}
    return {**source, **weights, "adapter_sha256": None if variant.untuned else hash_own_adapter(run)}


def identify_model(model: str, engine: str) -> dict:
    """{"model", "served", "served_meta"} of a server's address, or {"model", "sha256"} of files that `engine` reads.

    A Hub id stands as it is. Raises InputError where the server cannot be reached, or the files are missing or broken.
    """
    if model.startswith(ADDRESS):
        return {"model": model.rstrip("/"), **ask_served(model)}
    if engine == "llama.cpp":
        read_metadata(Path(model))  # refuses a broken one
        return {"model": Path(model).name, "sha256": hash_file(Path(model))}
    return identify_folder(model)


def identify_folder(model: str) -> dict:
    """A model's or an adapter's folder, or a Hub id as it stands."""
    folder = Path(model).expanduser()
    if not folder.exists() and not model.startswith((".", "/", "~")) and model.count("/") == 1:
        return {"model": model}
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(f"--model {model}: no config.json or adapter_config.json there; give a model's folder or a Hub id")
    return {"model": folder.resolve().name, "sha256": hash_folder(folder)}


def default_model(run: RunFolder, engine: str) -> str:
    """What the run itself has for an engine: its smallest GGUF file for llama.cpp, its adapter for vLLM."""
    if engine == "vllm":
        hash_own_adapter(run)
        return str(run.path / "adapter")
    ggufs = sorted((run.path / "export").glob("*.gguf"), key=lambda path: (path.stat().st_size, path.name))
    if engine != "llama.cpp" or not ggufs:
        raise InputError(f"--engine {engine}: say which with --model (a GGUF file, or a server's address)")
    return str(ggufs[0])


def ask_served(address: str) -> dict:
    """{"served": the name of the first model that a server lists, or None, "served_meta": what else it says of that model}.

    llama.cpp tells its size, by which another file behind the same address is known. Raises InputError where it cannot be
    reached.
    """
    from eval.engines.client import ask, offers, open_server

    url = address.rstrip("/").removesuffix("/v1") + "/v1"
    with open_server(url, timeout=10, attempts=1, key=os.environ.get("OPENAI_API_KEY")) as server:
        if not offers(server, f"{url}/models"):
            return {"served": None}
        listed = ask(server, "GET", "/models").get("data") or [{}]
        meta = listed[0].get("meta") or listed[0].get("root")
        return {"served": listed[0].get("id")} | ({"served_meta": meta} if meta else {})


def open_variant(run: RunFolder, variant: Variant, chats: Sequence[Chat]) -> Engine:
    """The engine that answers. Raises InputError, before weights are loaded, for a chat that is too long."""
    from pipeline.model import prepare_engine

    prepare_engine(run.path / "unsloth_compiled_cache")  # before transformers, which the engines import
    if variant.own:
        return open_own(run, variant, chats)
    import torch

    from eval.engines.open import open_engine

    settings, context = run.settings, run.settings.model.max_length + sum(run.manifest["max_new_tokens"].values())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = {
        "transformers": {"batch_tokens": settings.eval.batch_tokens, "device": device},
        "llama.cpp": {"context": context},
        "openai": {},
        "vllm": {"context": context},
    }[variant.engine]
    if variant.listed_sides:
        wanted["listed_sides"] = True
    model = variant.model or default_model(run, variant.engine)
    return open_engine(variant.engine, model, grounded=variant.grounded, logprobs=variant.logprobs, **wanted)


def open_own(run: RunFolder, variant: Variant, chats: Sequence[Chat]) -> Engine:
    """The run's own model as an engine, loaded as training loads it. Raises InputError, before that, for a chat too long."""
    from eval.engines.huggingface import transformers_engine
    from pipeline.model import load_model, load_tokenizer, model_path

    settings = run.settings
    adapter = None if variant.untuned else run.path / "adapter"
    revision = settings.model.revision if variant.untuned else None
    tokenizer = load_tokenizer(adapter or model_path(settings.model.name), revision)
    refuse_long_chats(tokenizer, chats, settings.model.max_length)
    return transformers_engine(
        load_model(settings, adapter=adapter),
        tokenizer,
        batch_tokens=settings.eval.batch_tokens,
        grounded=variant.grounded,
        listed_sides=variant.listed_sides,
        logprobs=variant.logprobs,
    )


def refuse_long_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], max_length: int) -> None:
    """Raises InputError for chats whose prompts and answers may exceed what the model is loaded for: Unsloth would cut them."""
    from eval.chat_template import read_template

    template = read_template(tokenizer)
    refuse_too_long([read_chat(template, chat) for chat in chats], max_length)


def as_trained(run: RunFolder, documents: Sequence[Document]) -> list[Document]:
    """The documents, asked every task of the run where its layout is one conversation: so its adapter was trained to answer."""
    budgets = run.manifest["max_new_tokens"]
    if run.settings.train.layout == "separate":
        return list(documents)
    return [replace(document, tasks=tuple(task for task in TASKS if task in budgets)) for document in documents]
