"""The shapes of models: embedded for the usual ones, so that a plan needs no network; otherwise read from config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from data.schema import InputError
from pipeline.base_model import model_path
from pipeline.config import PROJECTIONS


@dataclass(frozen=True)
class Architecture:
    """A decoder with gated feed-forward layers; the fields are named as in the Hub's config.json."""

    name: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each of a layer's seven matrices."""
        h, q, k, f = self.hidden_size, self.query_size, self.key_size, self.intermediate_size
        return dict(zip(PROJECTIONS, [(h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h)], strict=True))

    @property
    def matrix_parameters(self) -> int:
        """Parameters of all layers' matrices: what 4-bit quantises, and what each token is multiplied with."""
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def embedding_parameters(self) -> int:
        """Embedding and head, once where they are tied. Norms and biases are too small to count."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def parameters(self) -> int:
        return self.matrix_parameters + self.embedding_parameters


# hidden, layers, inner, heads, key heads, head width, vocabulary, positions, tied: from each model's config.json on the Hub.
EMBEDDED = {
    "llama-3.2-1b": (2048, 16, 8192, 32, 8, 64, 128256, 131072, True),
    "llama-3.2-3b": (3072, 28, 8192, 24, 8, 128, 128256, 131072, True),
    "llama-3.1-8b": (4096, 32, 14336, 32, 8, 128, 128256, 131072, False),
    "smollm2-135m": (576, 30, 1536, 9, 3, 64, 49152, 8192, True),
    "qwen2.5-3b": (2048, 36, 11008, 16, 2, 128, 151936, 32768, True),
    "qwen3-4b": (2560, 36, 9728, 32, 8, 128, 151936, 40960, True),
    "gemma-2-2b": (2304, 26, 9216, 8, 4, 256, 256000, 8192, True),
    "mistral-7b": (4096, 32, 14336, 32, 8, 128, 32768, 32768, False),
}


def find_architecture(name: str, revision: str | None = None) -> Architecture:
    """The shape of `model.name`: embedded, or from the config.json of a folder or of the Hub (its cache first).

    Raises InputError where there is no config.json, or it cannot be read.
    """
    folder = Path(model_path(name) if name == "tiny" or name.endswith(".gguf") else name).expanduser()
    if (folder / "config.json").is_file():
        return read_architecture(folder / "config.json", name)
    if known := next((key for key in EMBEDDED if key in name.lower()), None):
        return Architecture(name, *EMBEDDED[known])
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(f"model.name={name}: no config.json there; give a Hub id (owner/name) or a model's folder")
    from huggingface_hub import hf_hub_download

    from pipeline.hub_reach import read_local_only

    try:
        return read_architecture(
            Path(hf_hub_download(name, "config.json", revision=revision, local_files_only=read_local_only())), name
        )
    except OSError as error:  # the Hub's own errors are of this kind
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"model.name={name}: its config.json cannot be read: {reason}\n"
            f"known without the Hub: {', '.join(EMBEDDED)}; or give a folder"
        ) from None


def read_architecture(path: Path, name: str) -> Architecture:
    """The shape in a config.json. Raises InputError where `path` is not that of a decoder of this kind."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, config = config.get("model_type", ""), config.get("text_config", config)
        found = config | {
            "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
            "head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            # transformers writes only what differs from its class's default: tied for Gemma, not for the others.
            "tie_word_embeddings": config.get("tie_word_embeddings", kind.startswith("gemma")),
        }
        return Architecture(name, *(found[field.name] for field in fields(Architecture)[1:]))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
    except KeyError as missing:
        raise InputError(f"{path}: has no {missing}; a plan needs a decoder like Llama, Qwen, Gemma or Mistral") from None
