"""Requests to a server that generates: retried where trying again may help, several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from data.schema import InputError

WORTH_RETRYING = {408, 409, 425, 429}  # and every status from 500 on
LONGEST_PAUSE = 30.0  # seconds


@dataclass(frozen=True)
class Server:
    """A server's address with the client that talks to it; `pause`: seconds before the second attempt, doubled each time."""

    client: httpx.Client
    attempts: int = 5
    pause: float = 1.0


@contextmanager
def open_server(url: str, *, timeout: float, attempts: int = 5, pause: float = 1.0, key: str | None = None) -> Iterator[Server]:
    """A client of a server, closed after the block.

    `timeout`: seconds without an answer after which a request is tried again; `key` is sent as a bearer token.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    waits = httpx.Timeout(timeout, connect=min(timeout, 10))
    with httpx.Client(base_url=url, headers=headers, timeout=waits) as client:
        yield Server(client, attempts, pause)


def ask(server: Server, method: str, path: str, body: dict | None = None) -> dict:
    """The server's answer to a JSON body, and JSON itself. Raises what `send` raises."""
    return send(server, method, path, json=body).json()


def send(server: Server, method: str, path: str, **content: Any) -> httpx.Response:
    """The server's answer. Raises InputError where it refuses the request, ConnectionError where it stays silent or fails."""
    where, fault = f"{server.client.base_url}{path.lstrip('/')}", ""
    for attempt in range(server.attempts):
        if attempt:
            time.sleep(min(server.pause * 2 ** (attempt - 1), LONGEST_PAUSE))
        try:
            answer = server.client.request(method, path, **content)
        except httpx.TransportError as error:
            fault = f"{type(error).__name__}: {error}"
            continue
        if answer.is_success:
            return answer
        fault = f"{answer.status_code} {answer.text[:200]}"
        if answer.status_code < 500 and answer.status_code not in WORTH_RETRYING:
            raise InputError(f"{where} refused the request: {fault}")
    raise ConnectionError(f"{where} gave no answer in {server.attempts} attempts, the last: {fault}")


def offers(server: Server, path: str) -> bool:
    """Whether the server has this page at all; asked once, without retries."""
    try:
        return server.client.get(path).is_success
    except httpx.TransportError as error:
        raise InputError(f"{server.client.base_url} cannot be reached ({type(error).__name__}: {error})") from None


def run_concurrently(run: Callable[[Any], list[dict]], chats: Sequence[Any], workers: int) -> Iterator[list[dict]]:
    """The rows of each chat as it ends, `workers` chats at a time; the first failure stops all."""
    pool = ThreadPoolExecutor(workers)
    try:
        for done in as_completed([pool.submit(run, chat) for chat in chats]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)
