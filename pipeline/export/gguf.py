"""A merged Llama written as a GGUF file that llama.cpp and Ollama run, with the `gguf` package alone: no compiler.

Reads a model folder (config.json, safetensors, tokenizer.json, tokenizer_config.json, chat template) and writes one file in
f16, bf16 or q8_0. What is done to the weights follows llama.cpp's own `convert_hf_to_gguf.py`: the rows of the query and key
matrices are reordered, because llama.cpp rotates neighbouring pairs where transformers rotates halves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.schema import InputError
from pipeline.export.gguf_tokenizer import add_tokenizer
from pipeline.export.merge import find_shards, read_header
from pipeline.export.whole_files import require_space, whole_file

if TYPE_CHECKING:
    import numpy
    from gguf import GGMLQuantizationType, GGUFWriter

Quant = Literal["f16", "bf16", "q8_0"]
QUANTS = ("f16", "bf16", "q8_0")
ARCHITECTURE = "LlamaForCausalLM"
OUTSIDE_BLOCKS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def convert_to_gguf(
    model: Path, out: Path, quant: Quant, metadata: Mapping[str, str], *, tokenizer: Path | None = None
) -> Path:
    """Write the model folder as the GGUF file `out`. `metadata` are whole GGUF keys, such as `general.license`.

    `tokenizer`: the folder of tokenizer and chat template, where it is another one.

    Raises InputError for a model that is no Llama or whose tokenizer llama.cpp does not know, or where the
    disk has no room, RuntimeError where a weight does not fit the number type.
    """
    import gguf
    import numpy

    if quant not in QUANTS:
        raise InputError(f"quant {quant!r} is unknown here: {', '.join(QUANTS)}.")
    config = read_config(model)
    tensors = {name: (shard, entry["shape"]) for shard in find_shards(model) for name, entry in read_header(shard)[0].items()}
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)  # a copy of the embeddings: llama.cpp reads those where there is no output matrix
    types = {name: _stored_type(shape, quant) for name, (_, shape) in tensors.items()}
    sizes = {name: _stored_bytes(shape, types[name]) for name, (_, shape) in tensors.items()}
    require_space(out.parent, sum(sizes.values()), f"The GGUF file {out.name}")
    with whole_file(out) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        add_settings(writer, config, quant)
        add_tokenizer(writer, tokenizer or model, config["vocab_size"])
        _add_metadata(writer, metadata)
        frequencies = rope_factors(config)
        if frequencies is not None:
            writer.add_tensor_info("rope_freqs.weight", frequencies.shape, frequencies.dtype, frequencies.nbytes)
        for name, (_, shape) in tensors.items():
            writer.add_tensor_info(tensor_name(name), shape, numpy.float32, sizes[name], raw_dtype=types[name])
        _write(writer, frequencies, _stored_tensors(tensors, types, config))
    return out


def read_config(model: Path) -> dict:
    """The model's `config.json`, with rotary settings under one name whichever version of transformers wrote it."""
    path = model / "config.json"
    if not path.is_file():
        raise InputError(f"{model}: no model here (config.json is missing). Merge the adapter first.")
    config = json.loads(path.read_text(encoding="utf-8"))
    found = (config.get("architectures") or ["none"])[0]
    if found != ARCHITECTURE or config.get("attention_bias") or config.get("mlp_bias"):
        raise InputError(
            f"{model}: architecture {found} is not converted here, only {ARCHITECTURE} without biases. "
            "Name a llama.cpp checkout with export.llama_cpp=DIR and its own converter is used."
        )
    theta = {"rope_theta": config.get("rope_theta", 10000.0)}
    rope = config.get("rope_parameters") or {**theta, **(config.get("rope_scaling") or {})}
    rope_type = rope.get("rope_type", "default")
    if rope_type not in ("default", "llama3"):
        raise InputError(f"{model}: rotary scaling {rope_type!r} is not converted here, only Llama 3's.")
    heads = config["num_attention_heads"]
    defaults = {"num_key_value_heads": heads, "head_dim": config["hidden_size"] // heads}
    return {**defaults, **{key: value for key, value in config.items() if value is not None}, "rope": rope}


def add_settings(writer: GGUFWriter, config: dict, quant: Quant) -> None:
    """What llama.cpp must know to compute with the weights."""
    from gguf import LlamaFileType

    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_quantization_version(2)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{quant.upper()}"])


def rope_factors(config: dict) -> numpy.ndarray | None:
    """Llama 3's rotary scaling as float32 [head_dim / 2]: what each rotation frequency is divided by; None where unscaled.

    Long wavelengths are stretched by `factor`, short ones left alone, those between interpolated ("The Llama 3 Herd of
    Models", 2024, and transformers' `_compute_llama3_parameters`).
    """
    import numpy

    rope = config["rope"]
    if rope.get("rope_type", "default") != "llama3":
        return None
    size, context = config["head_dim"], rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (numpy.arange(0, size, 2) / size)
    smooth = ((context / wavelengths - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(numpy.float32)


def tensor_name(name: str) -> str:
    """transformers' name of a weight in llama.cpp's words.

    >>> tensor_name("model.layers.3.self_attn.q_proj.weight")
    'blk.3.attn_q.weight'
    """
    if name in OUTSIDE_BLOCKS:
        return OUTSIDE_BLOCKS[name]
    layer, _, part = name.removeprefix("model.layers.").partition(".")
    part = part.removesuffix(".weight")
    if part not in IN_BLOCK:
        raise InputError(f"Tensor {name} is not part of a plain Llama: it cannot be converted here.")
    return f"blk.{layer}.{IN_BLOCK[part]}.weight"


def _add_metadata(writer: GGUFWriter, metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        writer.add_string(key, str(value))
    if any(key.startswith("general.base_model.0.") for key in metadata):
        writer.add_base_model_count(1)


def _stored_type(shape: list[int], quant: Quant) -> GGMLQuantizationType:
    """Vectors stay float32, as llama.cpp wants them; rows that q8_0's blocks of 32 do not divide are kept in f16."""
    from gguf import GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType["F16" if quant == "q8_0" and shape[-1] % 32 else quant.upper()]


def _stored_bytes(shape: list[int], stored: GGMLQuantizationType) -> int:
    from gguf.quants import quant_shape_to_byte_shape

    return math.prod(quant_shape_to_byte_shape(tuple(shape), stored))


def _stored_tensors(tensors: Mapping, types: Mapping, config: dict) -> Iterator[numpy.ndarray]:
    """Each weight as the bytes to write, read only when its turn comes."""
    from gguf import GGMLQuantizationType, quants
    from safetensors import safe_open

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, (shard, _) in tensors.items():
        with safe_open(shard, framework="pt") as file:
            weight = file.get_tensor(name).float().numpy()
        projection = name.removesuffix(".weight").rpartition(".")[2]
        if projection in heads:
            weight = interleave(weight, heads[projection])
        if types[name] == GGMLQuantizationType.F16 and abs(weight).max() > 65504:
            raise RuntimeError(f"{name} has a value beyond f16's range (65504). Export bf16 instead of f16.")
        yield quants.quantize(weight, types[name])


def interleave(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of a query or key matrix [heads x head_dim, hidden], each head's two halves dealt out in turn."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write(writer: GGUFWriter, frequencies: numpy.ndarray | None, weights: Iterator[numpy.ndarray]) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if frequencies is not None:
            writer.write_tensor_data(frequencies)
        for weight in weights:
            writer.write_tensor_data(weight)
    finally:
        writer.close()
