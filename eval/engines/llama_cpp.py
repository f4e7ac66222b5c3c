"""The llama.cpp engine: a GGUF file served from this process, or a llama-server elsewhere by its URL.

The model's own chat template and tokenizer make the prompt ids, cut into turns as for transformers. Ids are sent, never
text, and the generated ones are sent back in the next turn, so that the server finds all of them in its cache. Each chat
has a slot to itself, so that a server of this process answers alike whatever was asked before or beside it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from data.schema import InputError
from eval.chat_template import ChatTemplate, Message, build_template, placeholder_messages
from eval.chats import Chat, Engine, Request, read_chat, refuse_too_long
from eval.engines.client import Server, ask, offers, open_server, run_concurrently
from eval.engines.gguf_metadata import read_metadata
from eval.grounding.answer import Ground, GroundedAnswer, grounding
from eval.grounding.repeats import drop_repeats
from eval.grounding.states import Vocabulary, build_vocabulary, read_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from xllamacpp import Server as LocalServer

BIAS = 200.0  # lifts allowed tokens above all others, yet is small enough to keep their order
ORDINARY, BYTE = 1, 6  # the types of the tokens of a GGUF file that an answer may contain


@dataclass(frozen=True)
class Llama:
    """An open server and what every request to it shares; `local` is kept so that it lives as long, `slot` is a chat's own."""

    server: Server
    vocabulary: Vocabulary | None
    ground: Ground | None
    logprobs: bool
    local: LocalServer | None = None
    slot: int | None = None


def llama_cpp_engine(
    model: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    lora: str | Path | None = None,
    grounded: bool = False,
    listed_sides: bool = False,
    logprobs: bool = False,
    context: int = 4096,
    parallel: int = 2,
    threads: int | None = None,
    timeout: float = 600,
) -> Engine:
    """`model`: a GGUF file or a llama-server's address. `lora`: an adapter's GGUF file, laid over `model`'s.

    `context`: positions of one chat; `parallel`: chats at a time. Grounded decoding through an address needs the model's
    `tokenizer`; a GGUF file has its own.
    """
    remote = model.startswith(("http://", "https://"))
    if grounded and remote and tokenizer is None:
        raise InputError(f"{model}: grounded decoding needs the model's tokenizer beside the server's address")
    if remote and lora:
        raise InputError(f"{lora}: a server's adapter is given to that server; without it here")
    local = None if remote else start_server(Path(model), context * parallel, parallel, threads, lora and Path(lora))
    connect = partial(open_server, model if local is None else local.listening_address, timeout=timeout)
    vocabulary = None
    with connect() as server:
        if not offers(server, "/props"):
            raise InputError(f"{model}: not a llama-server; use the openai engine")
        if grounded:
            stop = read_server_template(server).end
            vocabulary = read_vocabulary(tokenizer, stop) if tokenizer else read_gguf_vocabulary(Path(model), stop)
    ground = grounding(vocabulary, listed_sides) if vocabulary else None
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(parallel):
        slots.put(slot)

    def run(llama: Llama, one: Request) -> list[dict]:
        if local is None:
            return _run_chat(llama, one)
        slot = slots.get()
        try:
            return _run_chat(replace(llama, slot=slot), one)
        finally:
            slots.put(slot)

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        with connect() as server:
            llama = Llama(server, vocabulary, ground, logprobs, local)
            template = read_server_template(server)
            requests = [read_chat(template, chat) for chat in chats]
            refuse_too_long(requests, ask(server, "GET", "/props")["default_generation_settings"]["n_ctx"])
            yield from run_concurrently(partial(run, llama), requests, parallel)

    return answer


def start_server(path: Path, context: int, parallel: int, threads: int | None, lora: Path | None = None) -> LocalServer:
    """A llama.cpp server in this process, on a free port of this machine.

    `lora`: an adapter's GGUF file, laid over the model's; its chat template, if it has one, is the one that is used.
    """
    import xllamacpp

    if not path.is_file():
        raise InputError(f"{path}: no such GGUF file")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.port, settings.warmup = context, parallel, 0, False
    settings.verbosity = 1  # errors; its log of every request would bury the run's own lines
    # Flash attention adds up in another order for two chats than for one; prompts kept beside the slots would take up to 8 GB.
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.cache_ram_mib = 0
    if lora:
        settings.chat_template = read_lora(lora, path).get("tokenizer.chat_template", "")
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
    threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)  # as torch takes it; its own default is every core
    if threads:
        settings.cpuparams.n_threads = threads
    return xllamacpp.Server(settings)


def read_lora(lora: Path, base: Path) -> dict[str, Any]:
    """The adapter's metadata. Raises InputError where the file is no adapter, or of another model's shape."""
    metadata, shapes = read_metadata(lora), {tensor.name: tensor.shape for tensor in read_metadata(base).tensors}
    if metadata.fields.get("general.type") != "adapter" or metadata.fields.get("adapter.type") != "lora":
        raise InputError(f"{lora}: no adapter; write one with medner export RUN --gguf-lora")
    for tensor in metadata.tensors:
        target, _, part = tensor.name.rpartition(".")
        width = tensor.shape[0 if part == "lora_a" else 1]
        if shapes.get(target, (None, None))[0 if part == "lora_a" else 1] != width:
            raise InputError(f"{lora}: {target} is of another shape in {base.name}; the adapter belongs to another base")
    return metadata.fields


def read_server_template(server: Server) -> ChatTemplate:
    """The server's own chat template and tokenizer."""

    def tokenize(text: str, **settings: bool) -> list:
        return ask(server, "POST", "/tokenize", {"content": text, **settings})["tokens"]

    def render(messages: Sequence[Message]) -> str:
        return begin + ask(server, "POST", "/apply-template", {"messages": messages})["prompt"]

    def encode(text: str) -> list[int]:
        return tokenize(text, add_special=False, parse_special=False)

    # The server takes the begin-of-text token off what it renders, to add it when it tokenises.
    begin = "".join(token["piece"] for token in tokenize("", add_special=True, with_pieces=True))
    special = {}
    for token in tokenize(render(placeholder_messages(2)), parse_special=True, with_pieces=True):
        text = token["piece"]
        if isinstance(text, str) and text not in special and encode(text) != tokenize(text, parse_special=True):
            special[text] = token["id"]
    return build_template(render, encode, special)


def _run_chat(llama: Llama, one: Request) -> list[dict]:
    read, rows = [], []
    if llama.slot is not None:  # what a slot remembers of another chat was computed in other steps: last digits would differ
        _complete(llama, list(one.ids[0]), 0, cache_prompt=False)
    for turn, (task, budget) in enumerate(zip(one.chat.tasks, one.chat.budgets, strict=True)):
        read += one.ids[turn]
        if llama.ground:
            answer = llama.ground(one.chat, turn, [row["completion"] for row in rows])
            ids, row = _answer_grounded(llama, read, answer)
            row = drop_repeats(row, task)
        else:
            ids, row = _answer(llama, read, budget)
        rows.append({"document": one.chat.document.id, "task": task, **row})
        read += ids
    return rows


def _answer(llama: Llama, read: list[int], budget: int) -> tuple[list[int], dict]:
    said = _complete(llama, read, budget)
    ended = said["stop_type"] == "eos"  # then the end token is the last of those said
    ids = said["tokens"][:-1] if ended else said["tokens"]
    row = {"completion": said["content"], "finish": "stop" if ended else "length"}
    if llama.logprobs:
        tokens = said["completion_probabilities"][: len(ids)]
        row["logprobs"] = pair_texts([bytes(token["bytes"]) for token in tokens], [token["logprob"] for token in tokens])
    return ids, row


def _answer_grounded(llama: Llama, read: list[int], answer: GroundedAnswer) -> tuple[list[int], dict]:
    """Token by token, since no grammar of llama.cpp can tell what was listed before; the server reads only what is new."""
    texts, ids, logprobs = llama.vocabulary.texts, [], []
    while True:
        allowed, said = answer.allowed().tolist(), {}
        if len(allowed) > 1 or llama.logprobs:
            said = _complete(llama, read + ids, 1, logit_bias=[[token, BIAS] for token in allowed])
            token = said["tokens"][0]
        else:
            token = allowed[0]
        answer.take(token)
        if token == llama.vocabulary.stop:
            break
        ids.append(token)
        # The server keeps a token that ends within a character to itself, and its probability with it.
        logprobs += [shown["logprob"] for shown in said.get("completion_probabilities", [{"logprob": 0.0}])[: llama.logprobs]]
    parts = [texts[token] for token in ids]
    row = {"completion": b"".join(parts).decode(), "finish": "stop"}
    return ids, {**row, "logprobs": pair_texts(parts, logprobs)} if llama.logprobs else row


def pair_texts(parts: Sequence[bytes], logprobs: Sequence[float]) -> list[list]:
    """[text, log-probability] of each token; the bytes of a split character count with its last."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(part) for part in parts]
    return [list(pair) for pair in zip(texts, logprobs, strict=True)]


def _complete(llama: Llama, ids: list[int], budget: int, **settings: object) -> dict:
    body = {"prompt": ids, "n_predict": budget, "temperature": 0, "top_k": 1, "cache_prompt": True, "return_tokens": True}
    if llama.slot is not None:
        body["id_slot"] = llama.slot
    return ask(llama.server, "POST", "/completion", {**body, "n_probs": int(llama.logprobs), **settings})


def read_gguf_vocabulary(path: Path, stop: int) -> Vocabulary:
    """The tokens of a GGUF file in bytes: byte-level BPE, or SentencePiece with byte tokens."""
    fields = read_metadata(path).fields
    kind, tokens, types = (fields[f"tokenizer.ggml.{name}"] for name in ("model", "tokens", "token_type"))
    ordinary = [
        (number, token) for number, (token, type_) in enumerate(zip(tokens, types, strict=True)) if type_ in (ORDINARY, BYTE)
    ]
    if kind == "gpt2":
        byte_of = byte_level()
        return build_vocabulary({number: bytes(byte_of[character] for character in token) for number, token in ordinary}, stop)
    if kind == "llama":
        return build_vocabulary({number: _sentencepiece_bytes(token, types[number]) for number, token in ordinary}, stop)
    raise InputError(f"{path}: grounded decoding does not know tokenizers of kind {kind!r}")


def _sentencepiece_bytes(token: str, type_: int) -> bytes:
    return bytes([int(token[1:-1], 16)]) if type_ == BYTE else token.replace("\u2581", " ").encode()


def byte_level() -> dict[str, int]:
    """The printable character by which byte-level BPE writes each byte: itself, or the next one from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}
