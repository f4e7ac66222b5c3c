"""A LoRA adapter merged into its 16-bit base: safetensors in, safetensors out, one tensor in memory at a time.

Reads the base (a folder, or a Hub repository's id) and the adapter folder that PEFT saved. Writes a folder that transformers,
vLLM and the GGUF converter load: the base's shards with the adapted matrices overwritten in place, the base's configuration,
the adapter's tokenizer and chat template, and `merge.json`, which says what was merged into what.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from data.schema import InputError
from pipeline.export.whole_files import require_space, whole_folder
from pipeline.weights import ADAPTER, hash_file

if TYPE_CHECKING:
    import torch
    from safetensors import safe_open

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "medner.json")
BASE_FILES = ("config.json", "model.safetensors.index.json")
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PREFIX = "base_model.model."


def merge_adapter(base: str | Path, adapter: Path, out: Path, revision: str | None = None) -> Path:
    """Merge `adapter` into `base` and write the whole model to `out`; the base's number type is kept.

    `revision`: of a base on the Hub.
    A finished merge of the same two is kept as it is. Raises InputError for a base or an adapter that cannot be merged so,
    and where the disk has no room.
    """
    settings = read_adapter_settings(adapter)
    base = find_base(base, revision)
    source = {"base": str(base), "adapter_sha256": hash_file(adapter / ADAPTER)}
    if _read_json(out / "merge.json") == source:
        return out
    shards = find_shards(base)
    require_space(out, sum(shard.stat().st_size for shard in shards), f"The merged model {out.name}")
    with whole_folder(out) as partial:
        _merge_shards(shards, adapter, settings, partial)
        _copy_settings(base, adapter, partial)
        (partial / "merge.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    return out


def find_base(base: str | Path, revision: str | None = None) -> Path:
    """The folder of the base's 16-bit weights: `base` itself, or what the Hub client has or fetches under that id."""
    folder = Path(base)
    if not (folder / "config.json").exists():
        folder = _download_base(str(base), revision)
    if "quantization_config" in (_read_json(folder / "config.json") or {}):
        raise InputError(
            f"{base}: this base is quantised and an adapter cannot be merged into it. "
            "Name the 16-bit base instead, for example meta-llama/Llama-3.2-3B-Instruct."
        )
    return folder


def _download_base(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from pipeline.hub_reach import read_local_only

    try:
        wanted = ["config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json"]
        ignored, local = ["original/*"], read_local_only()
        found = snapshot_download(
            repo, revision=revision, allow_patterns=wanted, ignore_patterns=ignored, local_files_only=local
        )
        return Path(found)
    except HFValidationError as error:
        raise InputError(f"{repo}: neither a folder with a config.json nor a Hub repository's id (USER/NAME).") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise InputError(f"{repo}: the Hub answers {status}. Check the name, and that your login may read it.") from error
    except LocalEntryNotFoundError as error:
        raise RuntimeError(f"{repo}: not on this machine, and the Hub cannot be reached. Run again when it can.") from error


def find_shards(model: Path) -> list[Path]:
    """The model's safetensors files, in the index's words where there are several."""
    index = _read_json(model / "model.safetensors.index.json")
    names = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
    climbing = [name for name in names if Path(name).name != name]
    if climbing:
        raise InputError(f"{model}: its index names a file outside of it, {climbing[0]!r}; fetch the model anew")
    missing = [name for name in names if not (model / name).is_file()]
    if missing:
        raise InputError(f"{model}: weight file {missing[0]} is missing. Only safetensors are read; fetch the model anew.")
    return [model / name for name in names]


def read_adapter_settings(adapter: Path) -> dict:
    """The adapter's `adapter_config.json`, refused where W + scale * B A would not be the whole of what was trained."""
    settings = _read_json(adapter / "adapter_config.json")
    if settings is None or not (adapter / "adapter_model.safetensors").is_file():
        raise InputError(f"{adapter}: no adapter here (adapter_config.json and adapter_model.safetensors). Train one first.")
    refused = {
        "peft_type": settings.get("peft_type", "LORA") != "LORA",
        "use_dora": bool(settings.get("use_dora")),
        "bias": settings.get("bias", "none") != "none",
        "modules_to_save": bool(settings.get("modules_to_save")),
        "alpha_pattern": bool(settings.get("alpha_pattern")),
        "fan_in_fan_out": bool(settings.get("fan_in_fan_out")),
    }
    for name, refuse in refused.items():
        if refuse:
            raise InputError(f"{adapter}: {name}={settings[name]!r} cannot be merged. Train a plain LoRA (bias none, no DoRA).")
    return settings


def read_header(shard: Path) -> tuple[dict[str, dict], int]:
    """A safetensors file's table {tensor: {"dtype", "shape", "data_offsets"}} and where in the file its data begin."""
    with shard.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header, 8 + size


def _merge_shards(shards: list[Path], adapter: Path, settings: dict, out: Path) -> None:
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
        targets = adapted_tensors(weights.keys(), adapter)
        for shard in shards:
            # The layout of the file stays what it was, so a copy with some matrices overwritten is the merged shard.
            written = Path(shutil.copyfile(shard, out / shard.name))
            for name in _merge_shard(written, targets, weights, settings):
                del targets[name]
    if targets:
        raise InputError(f"{adapter}: the base has no tensor {next(iter(targets))}. This adapter belongs to another base.")


def adapted_tensors(names: list[str], adapter: Path) -> dict[str, tuple[str, str]]:
    """Base tensor -> the names of its A and B in the adapter."""
    pairs = {}
    for name in names:
        module, matrix, _ = name.removeprefix(PREFIX).partition(".lora_A.weight")
        if matrix:
            pairs[f"{module}.weight"] = (name, name.replace(".lora_A.", ".lora_B."))
    unread = set(names) - {name for pair in pairs.values() for name in pair}
    if unread:
        raise InputError(f"{adapter}: tensor {min(unread)} is no LoRA matrix and would be lost by merging.")
    return pairs


def _merge_shard(shard: Path, targets: dict[str, tuple[str, str]], weights: safe_open, settings: dict) -> list[str]:
    """Add the low-rank update to the shard's adapted matrices, in place; gives their names."""
    header, start = read_header(shard)
    names = [name for name in header if name in targets]
    with shard.open("r+b") as file:
        for name in names:
            lora_a, lora_b = (weights.get_tensor(part).float() for part in targets[name])
            begin, end = header[name]["data_offsets"]
            file.seek(start + begin)
            merged = add_update(name, header[name], file.read(end - begin), _scale(settings, len(lora_a)) * lora_b, lora_a)
            file.seek(start + begin)
            file.write(merged)
    return names


def add_update(name: str, entry: dict, data: bytes, lora_b: torch.Tensor, lora_a: torch.Tensor) -> bytearray:
    """W + B A for the matrix W whose table entry and bytes are given, B already scaled: computed in float32, rounded once."""
    import torch

    if entry["dtype"] not in DTYPES:
        raise InputError(f"The base's tensor {name} has type {entry['dtype']}: merging needs a 16-bit or 32-bit base.")
    rows, columns = entry["shape"]
    if (len(lora_b), lora_a.shape[1]) != (rows, columns):
        adapted = f"{len(lora_b)} x {lora_a.shape[1]}"
        raise InputError(f"{name} is {rows} x {columns} in the base and {adapted} in the adapter: it belongs to another base.")
    merged = bytearray(data)
    weight = torch.frombuffer(merged, dtype=getattr(torch, DTYPES[entry["dtype"]])).view(rows, columns)
    weight.copy_(weight.float() + lora_b @ lora_a)
    if not torch.isfinite(weight).all():
        raise RuntimeError(f"Merging {name} gives numbers beyond {DTYPES[entry['dtype']]}: the adapter has diverged.")
    return merged


def _scale(settings: dict, rank: int) -> float:
    """alpha / r (Hu et al., 2021, section 4.1), or alpha / sqrt(r) where the adapter was trained rank-stabilised."""
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _copy_settings(base: Path, adapter: Path, out: Path) -> None:
    if not (adapter / "tokenizer.json").exists():
        raise InputError(f"{adapter}: tokenizer.json is missing. Save the tokenizer and its chat template beside the adapter.")
    for name in TOKENIZER_FILES:
        if (adapter / name).exists():
            shutil.copyfile(adapter / name, out / name)
    for name in BASE_FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, out / name)
    generation = _read_json(base / "generation_config.json") or {}
    # The base samples at temperature 0.6; lists are read greedily, and servers take this file's word for it.
    kept = {key: value for key, value in generation.items() if key.endswith("token_id")}
    (out / "generation_config.json").write_text(json.dumps({**kept, "do_sample": False}, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
