"""The openai engine: any server that speaks OpenAI's chat completions (vLLM, Ollama, llama-server, Unsloth Studio).

The server renders the chat template, so the served model must carry the one it was trained with. The key, where the
server wants one, is read from the environment: OPENAI_API_KEY. Text is all that such a server takes, so what looks like a
special token in it (`<|eot_id|>`, `</s>`) is broken by an invisible character, which is taken out of the answers again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from data.prompts import SYSTEM
from data.schema import InputError
from eval.chats import Chat, Engine
from eval.engines.client import Server, ask, offers, open_server, run_concurrently
from eval.grounding.grammar import lark_grammar
from eval.grounding.repeats import drop_repeats

# Special tokens of the usual families: <|...|>, <s>, <end_of_turn>, [INST]. The server does not say which ones it knows.
SPECIAL = re.compile(r"<(?=[^<>\s]{1,60}>)|\[(?=/?INST\])")
JOINER = "\u2060"  # word joiner: no width, no break, and in no special token


@dataclass(frozen=True)
class Served:
    """A model on a server, and what is asked of it beside the messages."""

    server: Server
    model: str
    grounded: bool
    logprobs: bool


def openai_engine(
    model: str,
    *,
    served_name: str | None = None,
    grounded: bool = False,
    logprobs: bool = False,
    concurrency: int = 16,
    timeout: float = 120,
    attempts: int = 5,
    pause: float = 1.0,
) -> Engine:
    """`model`: the server's address, with or without `/v1`; `served_name`: the model's name there, None for the first one.

    Grounded decoding is asked of vLLM alone, whose grammars can say what an item is; llama-server has an engine of its own.
    """
    if not model.startswith(("http://", "https://")):
        raise InputError(f"{model}: the openai engine takes a server's address, such as http://localhost:8000/v1")
    url = model.rstrip("/").removesuffix("/v1") + "/v1"
    key = os.environ.get("OPENAI_API_KEY")
    connect = partial(open_server, url, timeout=timeout, attempts=attempts, pause=pause, key=key)
    with connect() as server:
        if grounded:
            refuse_without_grammar(server, url)
        name = served_name or first_served(server, url)

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        with connect() as server:
            served = Served(server, name, grounded, logprobs)
            yield from run_concurrently(lambda chat: _answer_chat(served, chat), chats, concurrency)

    return answer


def first_served(server: Server, url: str) -> str:
    """The id of the first model that the server lists. Raises InputError where it lists none."""
    if not offers(server, f"{url}/models"):
        raise InputError(f"{url}: no list of models there; is this an OpenAI-compatible server? Name the model if it is")
    return ask(server, "GET", "/models")["data"][0]["id"]


def refuse_without_grammar(server: Server, url: str) -> None:
    """Raises InputError for a server other than vLLM's, whose /version it looks for."""
    root = url.removesuffix("/v1")
    if not offers(server, f"{root}/version"):
        hint = "use the llama.cpp engine" if offers(server, f"{root}/props") else "vLLM's does"
        raise InputError(f"{url}: this server takes no grammar that grounded decoding can use; {hint}")


def break_special(text: str) -> str:
    """The text with a word joiner within whatever looks like a special token."""
    return SPECIAL.sub(lambda found: found[0] + JOINER, text)


def _answer_chat(served: Served, chat: Chat) -> list[dict]:
    rows: list[dict] = []
    messages = [{"role": "system", "content": SYSTEM}]
    for prompt, (_, answer) in zip(chat.prompts, chat.given, strict=False):
        messages.append({"role": "user", "content": break_special(prompt)})
        messages.append({"role": "assistant", "content": break_special(answer)})
    own_joiners = JOINER in chat.prompts[0]  # then they are the article's
    for prompt, task, budget in zip(chat.prompts[len(chat.given) :], chat.tasks, chat.budgets, strict=True):
        messages.append({"role": "user", "content": break_special(prompt)})
        answer = ask(served.server, "POST", "/chat/completions", request_body(served, chat, task, messages, budget))
        row = _row(chat, task, answer["choices"][0], served.logprobs)
        messages.append({"role": "assistant", "content": break_special(row["completion"])})
        row = drop_repeats(row, task) if served.grounded else row
        rows.append(row if own_joiners else {**row, "completion": row["completion"].replace(JOINER, "")})
    return rows


def request_body(served: Served, chat: Chat, task: str, messages: Sequence[dict], budget: int) -> dict:
    """A greedy request for the answer to the last of `messages`."""
    body = {"model": served.model, "messages": list(messages), "max_tokens": budget, "temperature": 0, "seed": 0}
    if served.logprobs:
        body["logprobs"] = True
    if served.grounded:
        body["structured_outputs"] = {"grammar": lark_grammar(chat.document.article, task)}
    return body


def _row(chat: Chat, task: str, choice: dict, logprobs: bool) -> dict:
    text = choice["message"]["content"] or ""
    finish = "length" if choice["finish_reason"] == "length" else "stop"
    row = {"document": chat.document.id, "task": task, "completion": text, "finish": finish}
    if logprobs:
        tokens = (choice.get("logprobs") or {}).get("content")
        if tokens is None:
            raise InputError("this server gives no log-probabilities; ask without them")
        row["logprobs"] = [[token["token"], token["logprob"]] for token in tokens]
    return row
