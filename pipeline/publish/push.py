"""A run's adapter, merged model, GGUF files and model card, put into a repository on the Hugging Face Hub.

Reads the run folder; writes the repository's name into its manifest.json before anything is sent, so that the same command
continues the same repository, and README.md, the model card. Adapter first: whatever fails later, the training is safe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from data.files import write_text
from data.schema import InputError
from pipeline.export.names import default_name, is_repository, llama_version, published_base
from pipeline.publish.card import write_card, write_eval_results
from pipeline.publish.hub import Hub, Upload, create, list_files, log_in, upload
from pipeline.run_folder import RunFolder, read_run, require_adapter
from pipeline.weights import hash_file

ADAPTER_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "medner.json",
)
OLLAMA_FILES = ("Modelfile", "template", "system", "params")  # the last three are what `ollama run hf.co/…` reads
KEPT_BY_THE_HUB = {".gitattributes"}  # made by the Hub itself in a new repository


def push(run: Path, repo: str | None, *, artifacts: Sequence[str], private: bool = True, force: bool = False) -> str:
    """Upload the run; the repository's address is returned.

    `repo` None: the repository of an earlier push, or a new one named after the base and the time. Raises InputError for what
    the user must change (token, name, a parity check that failed, another's repository), RuntimeError for what can be tried
    again; either way everything local is kept.
    """
    folder = read_run(run)
    require_adapter(folder)
    base = published_base(json.loads(_require(run / "adapter" / "medner.json").read_text(encoding="utf-8")))
    groups = plan_uploads(run, artifacts, base)
    if not force:
        require_parity(run, [one for group in groups for one in group])
    if repo:
        check_name(repo, base)
    hub = log_in()
    repo = repo or folder.manifest.get("repo") or f"{hub.user}/{default_name(base)}"
    then = f"medner push {run}" + (" --force" if force else "")
    prepare_repository(hub, folder, repo, private=private, force=force, then=then)
    write_text(run / "README.md", write_card(run))
    results = write_eval_results(run)
    figures = [Upload(".eval_results/medner.yaml", results.encode())] if results else []
    groups = [*groups, [Upload("README.md", (run / "README.md").read_bytes()), *figures]]
    upload(hub, repo, groups, then)
    return f"{hub.api.endpoint}/{repo}"


def plan_uploads(run: Path, artifacts: Sequence[str], base: str) -> list[list[Upload]]:
    """What goes where, in the order of sending; each group is one commit. Raises InputError for what is not there."""
    groups = []
    if "adapter" in artifacts:
        groups.append(adapter_uploads(run / "adapter", "", base))
    if "checkpoints" in artifacts:
        folders = sorted((run / "checkpoints").glob("checkpoint-*"))
        groups += [adapter_uploads(folder, f"checkpoints/{folder.name}/", base) for folder in folders]
    if "merged" in artifacts:
        merged = _require(run / "export" / "merged")
        # merge.json names local paths and says nothing to others.
        files = [file for file in sorted(merged.iterdir()) if file.name != "merge.json"]
        groups.append([Upload(f"merged/{file.name}", file) for file in files])
    if "gguf" in artifacts:
        models = sorted((run / "export").glob("*.gguf"))
        if not models:
            raise InputError(f"{run / 'export'}: no GGUF file to push. Make one with: medner export {run}")
        groups += [[Upload(file.name, file)] for file in models]
        groups.append(_present(run / "export", OLLAMA_FILES, ""))
    figures = {"eval/metrics.json": run / "eval/test/metrics.json", "eval/parity.json": run / "export/parity.json"}
    groups.append([Upload(path, file) for path, file in figures.items() if file.is_file()])
    return [group for group in groups if group]


def adapter_uploads(folder: Path, to: str, base: str) -> list[Upload]:
    """The adapter's files in `folder`, under `to`, with no path of this machine in them."""
    _require(folder / "adapter_model.safetensors")
    uploads = _present(folder, ADAPTER_FILES, to)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if Path(config.get("base_model_name_or_path") or "").is_absolute():
        # A path of this machine would load nowhere else; the run's own word for the base is said instead.
        content = json.dumps({**config, "base_model_name_or_path": base}, indent=2).encode() + b"\n"
        uploads = [Upload(one.path, content) if one.path.endswith("adapter_config.json") else one for one in uploads]
    return uploads


def _present(folder: Path, names: Sequence[str], to: str) -> list[Upload]:
    return [Upload(f"{to}{name}", folder / name) for name in names if (folder / name).is_file()]


def _require(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path} is missing, so it cannot be pushed. Finish the run first, or choose other artifacts.")
    return path


def require_parity(run: Path, uploads: Sequence[Upload]) -> None:
    """Refuse a GGUF file, or a merged model, that was not shown to answer as the adapter does, or a GGUF nobody compared."""
    path = run / "export" / "parity.json"
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}
    names = [one.path for one in uploads if one.path.endswith(".gguf")]
    for name in names:
        if name not in models:
            raise InputError(f"{name} was not compared with the adapter. Run: medner export {run}   (or push with --force)")
        if models[name]["sha256"] != hash_file(run / "export" / name):
            raise InputError(f"{name} has changed since it was compared. Run: medner export {run}   (or push with --force)")
    merged = ["merged"] if any(one.path.startswith("merged/") for one in uploads) else []
    failed = [name for name in [*names, *merged] if name in models and not models[name]["passed"]]
    if failed:
        raise InputError(f"{failed[0]} is not shown to answer as the adapter: see {path}. Push it all the same with --force.")


def check_name(repo: str, base: str) -> None:
    """USER/NAME, and a name that begins with Llama where the base is one: its licence asks for that."""
    if not is_repository(repo):
        raise InputError(f"--repo {repo}: expected USER/NAME in letters, digits, '-', '_' and '.'.")
    user, _, name = repo.partition("/")
    if llama_version(base) and not name.startswith("Llama"):
        raise InputError(f"--repo {repo}: by its licence, a model made from Llama is named so: --repo {user}/Llama-{name}")


def prepare_repository(hub: Hub, folder: RunFolder, repo: str, *, private: bool, force: bool, then: str) -> None:
    """Create the run's repository and record its name. Raises InputError for one that has files which this run did not send."""
    files = list_files(hub, repo, then)
    others = [path for path in files or () if path not in KEPT_BY_THE_HUB]
    if others and folder.manifest.get("repo") != repo and not force:
        raise InputError(f"{repo} already has other files ({others[0]}). Choose another --repo, or --force to add to it.")
    if folder.manifest.get("repo") != repo:
        folder.record(repo=repo)
    create(hub, repo, private, then)
    if files is not None and private and not hub.api.repo_info(repo).private:
        print(f"note: {repo} exists and is public; it is left so.", file=sys.stderr)
