"""The tokenizer and the chat template of a GGUF file, in llama.cpp's words.

Reads tokenizer.json, tokenizer_config.json and the chat template of a model folder. llama.cpp knows the split of a text before
byte pairs are merged by a name, not by its pattern, so a tokenizer that splits otherwise than Llama 3's is refused here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from data.schema import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter, TokenType

# Llama 3's split of text before byte pairs are merged; llama.cpp knows it under the name llama-bpe.
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def add_tokenizer(writer: GGUFWriter, model: Path, vocabulary: int) -> None:
    """The byte-level BPE tokenizer, its special tokens and the chat template. The model has `vocabulary` embeddings."""
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    require_llama_3_split(tokenizer, model)
    tokens, types = list_tokens(tokenizer, vocabulary, model)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Each pair is one string in files of older versions and a list of two in newer ones.
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"]])
    add_special_tokens(writer, {token["content"]: token["id"] for token in tokenizer["added_tokens"]}, model)
    writer.add_chat_template(read_chat_template(model))


def list_tokens(tokenizer: dict, vocabulary: int, model: Path) -> tuple[list[str], list[TokenType]]:
    """Every token and its kind by id; ids without a token are filled, since the embeddings have a row for them."""
    from gguf import TokenType

    found = {number: (token, TokenType.NORMAL) for token, number in tokenizer["model"]["vocab"].items()}
    for token in tokenizer["added_tokens"]:
        found[token["id"]] = (token["content"], TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
    if max(found) >= vocabulary:
        raise InputError(f"{model}: the tokenizer's last id is {max(found)}, the model has {vocabulary} embeddings.")
    filled = [found.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(vocabulary)]
    return [token for token, _ in filled], [kind for _, kind in filled]


def add_special_tokens(writer: GGUFWriter, ids: dict[str, int], model: Path) -> None:
    """BOS, EOS (the end of a turn), PAD, and that a prompt begins with BOS."""
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    for role, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id), ("pad", writer.add_pad_token_id)):
        token = settings.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token in ids:
            add(ids[token])
        elif role != "pad":
            raise InputError(f"{model / 'tokenizer_config.json'}: {role}_token {token!r} is not in tokenizer.json.")
    if "<|eot_id|>" in ids:
        writer.add_eot_token_id(ids["<|eot_id|>"])
    writer.add_add_bos_token(True)


def require_llama_3_split(tokenizer: dict, model: Path) -> None:
    """Refuse a tokenizer that llama.cpp would split otherwise: it knows pre-tokenizers by name, not by their pattern."""
    steps = tokenizer.get("pre_tokenizer") or {}
    patterns = [step.get("pattern", {}).get("Regex") for step in steps.get("pretokenizers", [steps])]
    if tokenizer["model"].get("type") != "BPE" or LLAMA_3_SPLIT not in patterns or not tokenizer["model"].get("ignore_merges"):
        raise InputError(
            f"{model / 'tokenizer.json'}: not a byte-level BPE with Llama 3's split pattern and ignore_merges, so llama.cpp's "
            "llama-bpe would tokenise otherwise. Name a llama.cpp checkout with export.llama_cpp=DIR to convert it."
        )


def read_chat_template(model: Path) -> str:
    """The template as saved beside the tokenizer, in a file of its own or in the tokenizer's settings."""
    file = model / "chat_template.jinja"
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if not isinstance(template, str):
        raise InputError(f"{model}: no chat template (chat_template.jinja). Servers would guess one; save the adapter's again.")
    return template
