"""An adapter alone as a GGUF file of some megabytes, which llama.cpp and Ollama lay over a base model's own file.

Reads the adapter folder that PEFT saved and the base's config.json; writes each pair of matrices as llama.cpp's own
`convert_lora_to_gguf.py` does, and beside them how the model is asked: its chat template, layout and lengths of answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.schema import InputError
from pipeline.export.gguf import interleave, read_config, tensor_name
from pipeline.export.gguf_tokenizer import read_chat_template
from pipeline.export.merge import adapted_tensors, read_adapter_settings
from pipeline.export.whole_files import require_space, whole_file
from pipeline.weights import ADAPTER

if TYPE_CHECKING:
    import numpy

LARGEST = 65504  # of float16


def convert_adapter(base: Path, adapter: Path, out: Path, metadata: Mapping[str, str]) -> Path:
    """Write the adapter as the GGUF file `out`, in float16. `base`: a folder with the base's config.json.

    llama.cpp adds alpha / rank times B A to a matrix; where the adapter was trained rank-stabilised, B makes up the difference.
    Raises InputError for an adapter that is no plain LoRA of this Llama, RuntimeError where the disk has no room.
    """
    import gguf

    settings, config = read_adapter_settings(adapter), read_config(base)
    require_space(out.parent, (adapter / ADAPTER).stat().st_size, f"The GGUF file {out.name}")
    with whole_file(out) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_chat_template(read_chat_template(adapter))
        for key, value in {**metadata, **describe_asked(adapter)}.items():
            writer.add_string(key, str(value))
        for name, matrix in read_pairs(adapter, settings, config):
            writer.add_tensor(name, matrix)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return out


def describe_asked(adapter: Path) -> dict[str, str]:
    """The `medner.*` keys that say how the adapter was trained to be asked, of its medner.json; none without one."""
    path = adapter / "medner.json"
    if not path.is_file():
        return {}
    facts = json.loads(path.read_text(encoding="utf-8"))
    budgets = {f"medner.max_new_tokens.{task}": str(tokens) for task, tokens in facts.get("max_new_tokens", {}).items()}
    return {"medner.layout": facts["layout"]} | budgets


def read_pairs(adapter: Path, settings: dict, config: dict) -> Iterator[tuple[str, numpy.ndarray]]:
    """Each matrix by llama.cpp's name, float16: A [rank, in] and B [out, rank], rows of queries and keys in its order."""
    import numpy
    from safetensors import safe_open

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    with safe_open(adapter / ADAPTER, framework="pt") as weights:
        for target, (name_a, name_b) in adapted_tensors(weights.keys(), adapter).items():
            lora_a, lora_b = (weights.get_tensor(name).float().numpy() for name in (name_a, name_b))
            projection = target.removesuffix(".weight").rpartition(".")[2]
            if projection in heads:
                lora_b = interleave(lora_b, heads[projection])
            if settings.get("use_rslora"):
                lora_b = lora_b * math.sqrt(len(lora_a))
            for part, matrix in (("lora_a", lora_a), ("lora_b", lora_b)):
                if not abs(matrix).max() <= LARGEST:
                    raise InputError(f"{adapter}: {target} has a value beyond float16's range: the adapter has diverged")
                yield f"{tensor_name(target)}.{part}", numpy.ascontiguousarray(matrix, dtype=numpy.float16)
