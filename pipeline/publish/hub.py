"""The Hugging Face Hub as an account that may write there: list, create, upload, with plain words for what went wrong.

Reads local files and the token of HF_TOKEN or the Hub login; writes to one repository. The token is never shown: whatever the
Hub or its client say is passed on without it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from data.schema import InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
WAITS = (1, 4, 16)  # seconds before each further try of a request for which the Hub client makes none itself
TRANSIENT = (408, 429, 500, 502, 503, 504)
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Hub:
    """A login: the client, the account's name, and the token, which must not be shown."""

    api: HfApi
    user: str
    token: str = field(repr=False)

    def without_token(self, text: str) -> str:
        return text.replace(self.token, "***")


class Upload(NamedTuple):
    """A file to be, or its bytes, and its path in the repository."""

    path: str
    content: Path | bytes


def log_in() -> Hub:
    """The Hub as the token's account. Raises InputError where there is no token, or none that may write."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()  # in a log they bury what went wrong
    token = get_token()
    if not token:
        raise InputError(f"No Hub token. Make one with write access at {TOKENS}, then set HF_TOKEN or run `hf auth login`.")
    hub = Hub(HfApi(token=token), "", token)
    account = call(hub, hub.api.whoami, "The token cannot be checked")
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(f"The Hub token of {account['name']} may only read. Make one with write access at {TOKENS}.")
    return Hub(hub.api, account["name"], token)


def list_files(hub: Hub, repo: str, then: str) -> list[str] | None:
    """The paths of the repository's files; None where there is no such repository."""
    from huggingface_hub.errors import RepositoryNotFoundError

    def listing() -> list[str] | None:
        try:
            return hub.api.list_repo_files(repo)
        except RepositoryNotFoundError:
            return None

    return call(hub, listing, f"{repo} cannot be listed", then)


def create(hub: Hub, repo: str, private: bool, then: str) -> None:
    """Makes the repository unless it is there. `then`: what to do, in the message of a failure."""
    call(hub, lambda: hub.api.create_repo(repo, private=private, exist_ok=True), f"{repo} cannot be created", then)


def upload(hub: Hub, repo: str, groups: Sequence[Sequence[Upload]], then: str) -> None:
    """Send each group as a commit of its own, in order.

    The client sends large files first, each again where the line was cut and none that is there already, and has the Hub check
    their hashes; of its requests it repeats all but the commit itself.
    """
    from huggingface_hub import CommitOperationAdd

    for group in groups:
        added = [CommitOperationAdd(path_in_repo=one.path, path_or_fileobj=one.content) for one in group]
        title = f"Add {group[0].path}" + (f" and {len(group) - 1} more" if group[1:] else "")
        failed = f"{group[0].path} could not be uploaded to {repo}"
        call(hub, partial(hub.api.preupload_lfs_files, repo, added, free_memory=False), failed, then, waits=())
        call(hub, partial(hub.api.create_commit, repo, added, commit_message=title), failed, then)


def call(
    hub: Hub, work: Callable[[], T], what: str, then: str = "the same command", waits: Sequence[int] = WAITS
) -> T:
    """Do `work`, again after each of the `waits` (seconds) where the Hub is busy or the line was cut; else say what failed.

    `then` is the command that goes on from here. Raises InputError for what the user must change, RuntimeError otherwise.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    for wait in (*waits, None):
        try:
            return work()
        except (HfHubHTTPError, httpx.TransportError, RuntimeError, ValueError) as error:
            status, retry_after, message = _read_error(error)
            if wait is not None and status in TRANSIENT:
                time.sleep(max(wait, retry_after))
                continue
            raise _explain(status, hub.without_token(f"{what}: {message}"), then) from None
    raise AssertionError("the last try returns or raises")


def _read_error(error: BaseException) -> tuple[int, float, str]:
    """(status, seconds the Hub asks to wait, its words). A line that was cut counts as 503; no answer at all as 0.

    The client wraps a failed upload of a large file in a RuntimeError, and refusals of the LFS batch in a ValueError.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    seen: BaseException | None = error
    while seen is not None:
        words = " ".join(str(seen).split())
        if isinstance(seen, HfHubHTTPError):
            after = seen.response.headers.get("retry-after", "")
            return seen.response.status_code, float(after) if after.isdigit() else 0.0, seen.server_message or words
        if isinstance(seen, httpx.TransportError):
            return 503, 0.0, f"the connection failed ({type(seen).__name__})"
        seen = seen.__cause__ or seen.__context__
    return 0, 0.0, words


def _explain(status: int, message: str, then: str) -> Exception:
    message = message.rstrip(". ")
    if status == 401:
        return InputError(f"{message}. The Hub refuses the token: make one with write access at {TOKENS} and set HF_TOKEN.")
    if any(word in message.lower() for word in ("quota", "storage limit", "storage space")):
        return RuntimeError(f"{message}. Free storage or raise the account's limit. Nothing is lost; go on with: {then}")
    if status == 403:
        return InputError(f"{message}. The token may not write there: name a repository of yours with --repo USER/NAME.")
    if status == 404:
        return InputError(f"{message}. There is no such user, organisation or repository: check --repo USER/NAME.")
    return RuntimeError(f"{message} (status {status}). Nothing is lost; go on with: {then}")
