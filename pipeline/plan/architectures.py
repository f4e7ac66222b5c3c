"""The shapes of models: embedded for the usual ones, so that a plan needs no network; otherwise read from config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.schema import InputError
from pipeline.config import PROJECTIONS

TINY = Path(__file__).parents[1] / "tiny"


@dataclass(frozen=True)
class Architecture:
    """A decoder with gated feed-forward layers; the fields are named as in the Hub's config.json."""

    name: str
    model_type: str
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
        sizes = [(h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h)]
        return dict(zip(PROJECTIONS, sizes, strict=True))

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
_EMBEDDED = {
    "llama-3.2-1b": ("llama", 2048, 16, 8192, 32, 8, 64, 128256, 131072, True),
    "llama-3.2-3b": ("llama", 3072, 28, 8192, 24, 8, 128, 128256, 131072, True),
    "llama-3.1-8b": ("llama", 4096, 32, 14336, 32, 8, 128, 128256, 131072, False),
    "qwen2.5-0.5b": ("qwen2", 896, 24, 4864, 14, 2, 64, 151936, 32768, True),
    "qwen2.5-1.5b": ("qwen2", 1536, 28, 8960, 12, 2, 128, 151936, 32768, True),
    "qwen2.5-3b": ("qwen2", 2048, 36, 11008, 16, 2, 128, 151936, 32768, True),
    "qwen2.5-7b": ("qwen2", 3584, 28, 18944, 28, 4, 128, 152064, 32768, False),
    "qwen2.5-14b": ("qwen2", 5120, 48, 13824, 40, 8, 128, 152064, 32768, False),
    "qwen3-0.6b": ("qwen3", 1024, 28, 3072, 16, 8, 128, 151936, 40960, True),
    "qwen3-1.7b": ("qwen3", 2048, 28, 6144, 16, 8, 128, 151936, 40960, True),
    "qwen3-4b": ("qwen3", 2560, 36, 9728, 32, 8, 128, 151936, 40960, True),
    "qwen3-8b": ("qwen3", 4096, 36, 12288, 32, 8, 128, 151936, 40960, False),
    "gemma-2-2b": ("gemma2", 2304, 26, 9216, 8, 4, 256, 256000, 8192, True),
    "gemma-2-9b": ("gemma2", 3584, 42, 14336, 16, 8, 256, 256000, 8192, True),
    "gemma-3-1b": ("gemma3_text", 1152, 26, 6912, 4, 1, 256, 262144, 32768, True),
    "gemma-3-4b": ("gemma3", 2560, 34, 10240, 8, 4, 256, 262208, 131072, True),
    "mistral-7b": ("mistral", 4096, 32, 14336, 32, 8, 128, 32768, 32768, False),
}


def find_architecture(name: str, revision: str | None = None) -> Architecture:
    """The shape of `model.name`: embedded, or from the config.json of a folder or of the Hub (its cache first)."""
    folder = TINY if name == "tiny" else Path(name).expanduser()
    if (folder / "config.json").is_file():
        return read_architecture(folder / "config.json", name)
    known = [key for key in _EMBEDDED if key in name.lower()]
    if known:
        kind, hidden, layers, inner, heads, keys, width, vocabulary, positions, tied = _EMBEDDED[max(known, key=len)]
        return Architecture(name, kind, hidden, layers, inner, heads, keys, width, vocabulary, positions, tied)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(f"model.name={name}: no config.json there; give a Hub id (owner/name) or a model's folder")
    return read_architecture(download_config(name, revision), name)


def download_config(name: str, revision: str | None) -> Path:
    """The Hub's config.json of a model that is not embedded. Raises InputError where it cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        known = ", ".join(_EMBEDDED)
        raise InputError(
            f"model.name={name}: its config.json cannot be read: {reason}\nknown without the Hub: {known}; or give a folder"
        ) from None


def read_architecture(path: Path, name: str) -> Architecture:
    """Raises InputError where `path` is not the config.json of a decoder of this kind."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
    config = config.get("text_config", config) | {"model_type": config.get("model_type", "")}
    try:
        return _from_config(config, name)
    except KeyError as missing:
        raise InputError(f"{path}: has no {missing}; a plan needs a decoder like Llama, Qwen, Gemma or Mistral") from None


def _from_config(config: Mapping, name: str) -> Architecture:
    heads = config["num_attention_heads"]
    return Architecture(
        name,
        config["model_type"],
        config["hidden_size"],
        config["num_hidden_layers"],
        config["intermediate_size"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
        config["vocab_size"],
        config["max_position_embeddings"],
        # transformers writes only what differs from its class's default, which is tied for these and not for the others.
        config.get("tie_word_embeddings", config["model_type"].startswith("gemma")),
    )
