"""The run folder: what a run has done and with what, so that the same command goes on where it stopped.

manifest.json holds the finished stages, versions, git commit, seed, data sha256, device and repository name; config.yaml the
resolved settings. A stage counts as done only once it is recorded here, after its files have their final names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_json
from data.schema import InputError
from pipeline.config import Explicit, Settings, apply_settings, flatten, read_settings_file, write_settings

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "unsloth", "bitsandbytes", "datasets", "llguidance", "gguf")

FIRST_FILES = ("config.yaml", "config.yaml.part", "manifest.json.part")


class RunFolder:
    """One run's folder. `manifest` is what manifest.json holds."""

    def __init__(self, path: Path, manifest: dict, settings: Settings):
        self.path, self.manifest, self.settings = path, manifest, settings

    def stage(self, name: str, work: Callable[[], dict | None]) -> bool:
        """Do `work` unless it is done; record it with its seconds and whatever facts it returns. Returns whether it ran."""
        if self.done(name):
            return False
        started = time.monotonic()
        facts = work() or {}
        seconds = round(time.monotonic() - started, 2)
        self.manifest["stages"][name] = {"finished": now(), "seconds": seconds} | facts
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

    Raises InputError where the folder holds something else, or a run on other data or of other explicit settings.
    """
    digest = hash_files(data_files.values())
    if fresh:
        remove_run(path)
    if (path / "manifest.json").exists():
        run = read_run(path)
        other = find_difference(run, explicit, digest)
        if not other:
            return run
        if run.manifest["stages"]:
            raise InputError(f"--out {path}: holds a run {other}; name another --out, or start over with --fresh")
    elif holds_something_else(path):
        raise InputError(f"--out {path}: exists and is not a run folder; name another or empty it")
    settings = apply_settings(explicit)
    manifest = {
        "medner": importlib.metadata.version("medner"),
        "created": now(),
        "seed": settings.train.seed,
        "data": {name: str(file) for name, file in data_files.items()},
        "data_sha256": digest,
        "git_commit": git_commit(),
        "versions": versions(),
        "stages": {},
    }
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, manifest, settings)
    write_settings(settings, path / "config.yaml")
    run.save()
    return run


def read_run(path: Path) -> RunFolder:
    """An existing run. Raises InputError where `path` is none."""
    manifest = read_manifest(path)
    return RunFolder(path, manifest, apply_settings(read_settings_file(path / "config.yaml")))


def read_manifest(path: Path) -> dict:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        manifest = None
    except json.JSONDecodeError as error:
        raise InputError(f"{path / 'manifest.json'}:{error.lineno}: broken JSON: {error.msg}") from None
    # other programs write a manifest.json too, and --fresh must not delete theirs
    if not isinstance(manifest, dict) or not {"stages", "data_sha256"} <= manifest.keys():
        raise InputError(f"{path}: not a run folder; name another, or make one with `medner run --out FOLDER`")
    return manifest


def find_difference(run: RunFolder, explicit: Explicit, digest: str) -> str | None:
    """How an earlier run differs from what is asked for now, in words; None where it can be gone on with."""
    if run.manifest["data_sha256"] != digest:
        return f"on other data ({', '.join(run.manifest['data'].values())})"
    saved = flatten(run.settings)
    for name, value in explicit.items():
        is_file = name.startswith("data.") and name != "data.seed"  # their content was compared
        if value is not None and not is_file and saved[name] != value:
            return f"with {name}={saved[name]}, not {value}"
    return None


def remove_run(path: Path) -> None:
    """Delete an earlier run for --fresh; anything that is not a run is left alone."""
    if holds_something_else(path):
        read_manifest(path)
        shutil.rmtree(path)


def holds_something_else(path: Path) -> bool:
    """Whether there is more than what a run leaves that was killed before its first manifest."""
    return path.is_file() or path.exists() and any(entry.name not in FIRST_FILES for entry in path.iterdir())


def hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of this checkout, with "+" where files were changed; None outside of one."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40"]
    asked = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def require_stage(run: RunFolder, name: str) -> None:
    if not run.done(name):
        raise InputError(f"{run.path}: has not reached its stage {name!r}; finish it with medner run --out {run.path}")
