"""The run folder: what a run has done and with what, so that the same command goes on where it stopped.

manifest.json records the finished stages, versions, git commit, seed, data sha256, device and repository name; config.yaml the
resolved settings. A stage counts as done only once it is recorded here, after its files have their final names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_json
from data.schema import InputError
from pipeline import changes
from pipeline.config import Explicit, Settings, apply_settings, flatten, read_settings_file, write_settings
from pipeline.lock import LOCK_FILES, lock_run
from pipeline.training.distributed import count_processes

FORMAT = 1  # of the run folder; a later one is refused
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "unsloth", "bitsandbytes", "datasets", "llguidance", "gguf")

FIRST_FILES = ("config.yaml", "config.yaml.part", "manifest.json.part")


class RunFolder:
    """One run's folder. `manifest` is the content of manifest.json."""

    def __init__(self, path: Path, manifest: dict, settings: Settings):
        self.path, self.manifest, self.settings = path, manifest, settings

    @property
    def asked(self) -> Explicit:
        """The settings that the user's commands named, all of them where an earlier version made the run."""
        return self.manifest.get("asked", flatten(self.settings))

    def stage(self, name: str, work: Callable[[], dict | None]) -> bool:
        """Do `work` unless it is done; record it with its seconds and whatever facts it returns. Returns whether it ran.

        A stage that refuses a setting (InputError) is recorded as the one that did.
        """
        if self.done(name):
            return False
        started = time.monotonic()
        try:
            facts = work() or {}
        except InputError:
            self.record(refused=name)
            raise
        seconds = round(time.monotonic() - started, 2)
        self.manifest["stages"][name] = {"finished": now(), "seconds": seconds} | facts
        self.manifest.pop("refused", None)
        self.save()
        return True

    def done(self, name: str) -> bool:
        return name in self.manifest["stages"]

    def record(self, **facts: object) -> None:
        """Facts of the whole run: device, versions, repository."""
        self.manifest |= facts
        self.save()

    def save(self) -> None:
        write_json(self.path / "manifest.json", self.manifest)


def open_run(path: Path, explicit: Explicit, data_files: Mapping[str, Path], fresh: bool) -> RunFolder:
    """A new run folder, or an earlier one to go on with.

    Raises InputError where the folder has something else, or a run on other data, or one whose finished stages read other
    settings than these.
    """
    digest = hash_files(data_files.values())
    if fresh:
        remove_run(path)
    if (path / "manifest.json").exists():
        run = read_run(path)
        if run.manifest["stages"]:
            return go_on(run, explicit, digest)
        if run.manifest["data_sha256"] == digest and not changes.changed_names(run.asked, explicit):
            return run
    else:
        refuse_foreign(path)
    settings = apply_settings(explicit)
    manifest = {
        "format": FORMAT,
        "medner": importlib.metadata.version("medner"),
        "created": now(),
        "seed": settings.train.seed,
        "data": {name: str(file) for name, file in data_files.items()},
        "data_sha256": digest,
        "git_commit": git_commit(),
        "versions": versions(),
        "asked": changes.asked_to_json(explicit),
        "added": list(explicit),  # by the latest command that changed anything
        "stages": {},
    }
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, manifest, settings)
    write_settings(settings, path / "config.yaml")
    run.save()
    return run


def go_on(run: RunFolder, explicit: Explicit, digest: str) -> RunFolder:
    """An earlier run that finished a stage, with what may still be changed as it is asked for now."""
    stages = run.manifest["stages"]
    other = f"on other data ({', '.join(run.manifest['data'].values())})" if run.manifest["data_sha256"] != digest else None
    other = other or changes.find_conflict(run.settings, stages, explicit)
    if other:
        raise InputError(f"--out {run.path}: has a run {other}; name another --out, or start over with --fresh")
    take_back = run.manifest.get("added", ()) if "refused" in run.manifest else ()
    asked = changes.merge_asked(run.asked, explicit, stages, take_back)
    changed = [name for name in changes.changed_names(run.asked, asked) if not name.startswith("data.")]
    launched = describe_processes(stages)
    if not changed and not launched:
        return run
    training = (run.path / "checkpoints").exists() and not any(changes.is_read(name, ["train"]) for name in changed)
    training = training and not launched
    if launched or changes.needs_plan(changed):
        stages.pop("plan", None)
    fixed_by = [*stages, "train"] if training else [*stages]
    run.settings = changes.resolve_again(run.settings, asked, fixed_by, planned="plan" in stages)
    if not training:
        set_aside_checkpoints(run)
    run.manifest |= {"asked": changes.asked_to_json(asked), "added": [name for name in explicit if name in changed]}
    write_settings(run.settings, run.path / "config.yaml")
    run.save()
    print(f"changed since this run began: {', '.join([*changed, *launched])}", file=sys.stderr)
    return run


def describe_processes(stages: Mapping[str, dict]) -> list[str]:
    """Where training is still to come, how many processes it was planned for and has now, if they differ: each has its share of
    the effective batch, so that it must be planned again."""
    if "plan" not in stages or "train" in stages:
        return []
    planned, now = stages["plan"].get("processes", 1), count_processes()
    return [f"processes (planned for {planned}, now {now})"] if planned != now else []


def lock_existing(path: Path) -> AbstractContextManager[None]:
    """Locks a run that exists, while the block runs. Raises InputError where `path` is none, or another medner works in it."""
    read_manifest(path)
    return lock_run(path)


def set_aside_checkpoints(run: RunFolder) -> None:
    """Keep what was trained with other settings, under another name: training begins anew."""
    folder = run.path / "checkpoints"
    if run.done("train") or not folder.exists():
        return
    old = next(path for n in itertools.count(1) if not (path := run.path / f"checkpoints-{n}").exists())
    folder.replace(old)
    print(f"WARNING: training begins anew with other settings; what there was of it is kept in {old}", file=sys.stderr)


def read_run(path: Path) -> RunFolder:
    """An existing run. Raises InputError where `path` is none, or one that a later version made."""
    manifest = read_manifest(path)
    return RunFolder(path, manifest, apply_settings(read_settings_file(path / "config.yaml")))


def read_manifest(path: Path) -> dict:
    """manifest.json of a run. Raises InputError where there is none, it is broken, or a later version wrote it."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        manifest = None
    except json.JSONDecodeError as error:
        raise InputError(f"{path / 'manifest.json'}:{error.lineno}: broken JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path / 'manifest.json'}: broken: {error}") from None
    # other programs write a manifest.json too, and --fresh must not delete theirs
    if not isinstance(manifest, dict) or not {"stages", "data_sha256"} <= manifest.keys():
        raise InputError(f"{path}: not a run folder; name another, or make one with `medner run --out FOLDER`")
    require_shape(path / "manifest.json", manifest)
    refuse_later(path, manifest)
    return manifest


def require_shape(path: Path, manifest: dict) -> None:
    """Raises InputError for a manifest whose values are not of the kind that a run writes."""
    stages, data = manifest["stages"], manifest.get("data", {})
    kinds = {
        "format": isinstance(manifest.get("format", 0), int),
        "stages": isinstance(stages, dict) and all(isinstance(facts, dict) for facts in stages.values()),
        "data": isinstance(data, dict) and all(isinstance(file, str) for file in data.values()),
        "asked": isinstance(manifest.get("asked", {}), dict),
        "max_new_tokens": isinstance(manifest.get("max_new_tokens", {}), dict),
    }
    wrong = next((name for name, right in kinds.items() if not right), None)
    if wrong:
        raise InputError(f"{path}: {wrong!r} is not what a run writes; put the file back, or begin again in another folder")


def refuse_later(path: Path, manifest: dict) -> None:
    """Raises InputError for a run that a later medner made: its files may mean something else."""
    ours, theirs = importlib.metadata.version("medner"), str(manifest.get("medner", "0"))[:40]
    if manifest.get("format", 0) > FORMAT or _numbers(theirs) > _numbers(ours):
        raise InputError(f"{path}: was made by medner {theirs}, later than this one ({ours}); update medner to go on with it")


def _numbers(version: str) -> list[int]:
    """
    >>> _numbers("0.10.1rc1") > _numbers("0.9")
    True
    """
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def remove_run(path: Path) -> None:
    """Delete an earlier run for --fresh; anything that is not a run is left alone."""
    if not holds_something(path):
        return
    read_manifest(path)
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in LOCK_FILES:
            entry.unlink()


def refuse_foreign(path: Path) -> None:
    """Raises InputError where `path` is a folder with files, but no run."""
    if holds_something(path) and not (path / "manifest.json").exists():
        raise InputError(f"--out {path}: exists and is not a run folder; name another or empty it")


def holds_something(path: Path) -> bool:
    """Whether there is more than what a run leaves that was killed before its first manifest."""
    return path.is_file() or path.exists() and any(entry.name not in (*FIRST_FILES, *LOCK_FILES) for entry in path.iterdir())


def hash_files(files: Iterable[Path]) -> str:
    """One sha256 over the contents of all files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The installed versions of the packages that a result depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of this checkout, with "+" where files were changed; None outside of one, or without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40"]
    try:
        asked = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:  # a slim container has none
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def require_stage(run: RunFolder, name: str) -> None:
    """Raises InputError where the run has not come so far, or its adapter is no longer the one that was trained."""
    if not run.done(name):
        raise InputError(f"{run.path}: has not reached its stage {name!r}; finish it with medner run --out {run.path}")
    require_adapter(run)


def require_adapter(run: RunFolder) -> None:
    """Raises InputError where a file of adapter/ is missing, or not the one that training wrote."""
    trained = run.manifest["stages"].get("train", {}).get("adapter_sha256", {})
    for name, digest in trained.items():
        file = run.path / "adapter" / name
        if not file.is_file():
            fault = "is missing"
        elif hash_files([file]) != digest:
            fault = "is damaged: not the file that training wrote"
        else:
            continue
        raise InputError(f"{file}: {fault}; put back sha256 {digest[:12]}…, or train again with medner run --fresh")


def hash_adapter(folder: Path) -> dict[str, str]:
    """The sha256 of each file of an adapter, for the manifest."""
    return {file.name: hash_files([file]) for file in sorted(folder.iterdir()) if file.is_file() and file.name != "README.md"}
