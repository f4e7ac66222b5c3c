"""Whether the Hub can be reached at all, asked once and briefly: its own libraries try for half a minute, for each file."""

from __future__ import annotations

import os
import socket
import urllib.request
from functools import lru_cache
from urllib.parse import urlsplit

SECONDS = 5


def read_local_only() -> bool:
    """What `local_files_only` of the Hub's libraries is to be: without a network, what is on this machine counts at once."""
    return not is_reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@lru_cache
def is_reachable(endpoint: str) -> bool:
    """Whether a connection to the address can be made in `SECONDS`; behind a proxy it is taken to be."""
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return True  # the proxy knows
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        return False
    return True
