"""Talking to the Hugging Face Hub so that it works in the end: retries, plain words for what went wrong, and a last comparison.

Reads local files and the token of HF_TOKEN or the Hub login; writes to one repository. The token is never shown: whatever the
Hub or its client say is passed on without it.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from data.schema import InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

T = TypeVar("T")
WAITS = (1, 4, 16)  # seconds before each further try, on top of the Hub client's own five tries where it makes them
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


@dataclass(frozen=True)
class Upload:
    """A file to be, or its bytes, and its path in the repository."""

    path: str
    content: Path | bytes

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def hashes(self) -> tuple[str, str]:
        """(sha256 as LFS counts it, sha1 as git counts a blob), both hexadecimal, in one reading."""
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for block in self._blocks():
            sha256.update(block)
            sha1.update(block)
        return sha256.hexdigest(), sha1.hexdigest()

    def _blocks(self) -> Iterable[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while block := file.read(1 << 20):
                yield block

    def is_in(self, files: Mapping[str, RepoFile]) -> bool:
        """Whether the repository holds exactly this."""
        file = files.get(self.path)
        if file is None or file.size != self.size:
            return False
        return file.lfs.sha256 == self.hashes[0] if file.lfs else file.blob_id == self.hashes[1]


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


def list_files(hub: Hub, repo: str, then: str) -> dict[str, RepoFile] | None:
    """The repository's files by path; None where there is no such repository."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    def listing() -> dict[str, RepoFile] | None:
        try:
            tree = list(hub.api.list_repo_tree(repo, recursive=True))
        except RepositoryNotFoundError:
            return None
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    return call(hub, listing, f"{repo} cannot be listed", then)


def create(hub: Hub, repo: str, private: bool, then: str) -> None:
    call(hub, lambda: hub.api.create_repo(repo, private=private, exist_ok=True), f"{repo} cannot be created", then)


def upload(hub: Hub, repo: str, groups: Sequence[Sequence[Upload]], then: str) -> None:
    """Send each group as a commit of its own, in order; what the repository holds already is not sent again."""
    from huggingface_hub import CommitOperationAdd

    files = list_files(hub, repo, then) or {}
    for group in groups:
        missing = [one for one in group if not one.is_in(files)]
        if not missing:
            continue
        title = f"Add {missing[0].path}" + (f" and {len(missing) - 1} more" if missing[1:] else "")

        def commit(missing: list[Upload] = missing, title: str = title) -> None:
            # An operation is spent once it was sent, so each try makes its own.
            added = [CommitOperationAdd(path_in_repo=one.path, path_or_fileobj=one.content) for one in missing]
            hub.api.create_commit(repo, added, commit_message=title)

        call(hub, commit, f"{missing[0].path} could not be uploaded to {repo}", then)


def verify(hub: Hub, repo: str, uploads: Iterable[Upload], then: str) -> None:
    """Compare sizes and hashes of what is there with what was sent. Raises RuntimeError naming the files that differ."""
    files = list_files(hub, repo, then) or {}
    wrong = [one.path for one in uploads if not one.is_in(files)]
    if wrong:
        raise RuntimeError(f"{repo} does not hold what was sent: {', '.join(wrong)}. Go on with: {then}")


def call(hub: Hub, work: Callable[[], T], what: str, then: str = "the same command") -> T:
    """Do `work`, again after a pause where the Hub is busy or the line was cut; else say in a line what failed.

    `then` is the command that goes on from here. Raises InputError for what the user must change, RuntimeError otherwise.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    for wait in (*WAITS, None):
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
