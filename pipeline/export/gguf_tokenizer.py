"""The tokenizer and the chat template of a GGUF file, in llama.cpp's words.

Reads tokenizer.json, tokenizer_config.json and the chat template of a model folder, or makes them of a GGUF file. llama.cpp
knows the split of a text before byte pairs are merged by a name, not by its pattern: Llama 3's and SmolLM's are known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.schema import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter, TokenType
    from transformers import PreTrainedTokenizerFast

LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is split before byte pairs are merged, as tokenizer.json writes it, by the name that llama.cpp has for it.
SPLITS = {
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA_3_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
CONTROL, USER_DEFINED = 3, 4  # types of tokens in a GGUF file
PLAIN_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
ROLES = {"bos": "bos", "eos": "eos", "pad": "padding"}
WHOLE_WORDS = {"llama-bpe"}  # a word that is a token is not merged from its bytes (ignore_merges)


def add_tokenizer(writer: GGUFWriter, model: Path, vocabulary: int) -> None:
    """The byte-level BPE tokenizer, its special tokens and the chat template. The model has `vocabulary` embeddings."""
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    split = find_split(tokenizer, model)
    tokens, types = list_tokens(tokenizer, vocabulary, model)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Each pair is one string in files of older versions and a list of two in newer ones.
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"]])
    template = read_chat_template(model)
    add_special_tokens(writer, {token["content"]: token["id"] for token in tokenizer["added_tokens"]}, model, template)
    writer.add_chat_template(template)


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


def add_special_tokens(writer: GGUFWriter, ids: dict[str, int], model: Path, template: str) -> None:
    """BOS, EOS (the end of a turn), PAD, and whether a prompt begins with a BOS of its own."""
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
    begin = settings.get("bos_token")
    begin = begin["content"] if isinstance(begin, dict) else begin
    # ChatML's BOS opens every turn: the template writes it by name, and no server must write one more.
    writer.add_add_bos_token(begin not in template or "bos_token" in template)


def find_split(tokenizer: dict, model: Path) -> str:
    """llama.cpp's name for the tokenizer's split. Raises InputError for one that it would split otherwise."""
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    bpe = tokenizer["model"]
    for name, known in SPLITS.items():
        same = len(steps) == len(known) and all(_is_step(step, one) for step, one in zip(steps, known, strict=True))
        if bpe.get("type") == "BPE" and same and bool(bpe.get("ignore_merges")) == (name in WHOLE_WORDS):
            return name
    raise InputError(
        f"{model / 'tokenizer.json'}: not a byte-level BPE with Llama 3's split pattern and ignore_merges, nor with SmolLM's, "
        "so llama.cpp would tokenise otherwise. Name a llama.cpp checkout with export.llama_cpp=DIR to convert it."
    )


def _is_step(step: dict, known: dict) -> bool:
    """Whether a step of tokenizer.json does the same; how it counts offsets does not matter."""
    return all(step.get(key) == value for key, value in known.items() if key not in ("trim_offsets", "invert"))


def make_tokenizer(fields: Mapping[str, Any], path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file, from its metadata `fields`, with its special tokens and chat template.

    Raises InputError where it is no byte-level BPE whose split is known here.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    kind, name = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or name not in SPLITS:
        raise InputError(f"{path}: a tokenizer of kind {kind!r}, split {name!r} is not read here: {', '.join(SPLITS)}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]
    bpe = {"type": "BPE", "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges}
    added = [
        {"id": number, "content": token, "special": types[number] == CONTROL} | PLAIN_ADDED
        for number, token in enumerate(tokens)
        if types[number] in (CONTROL, USER_DEFINED)
    ]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[name]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {**bpe, "ignore_merges": name in WHOLE_WORDS},
    }
    roles = {f"{role}_token": fields.get(f"tokenizer.ggml.{key}_token_id") for role, key in ROLES.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        chat_template=fields.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{role: tokens[number] for role, number in roles.items() if number is not None},
    )


def read_chat_template(model: Path) -> str:
    """The template as saved beside the tokenizer, in a file of its own or in the tokenizer's settings."""
    file = model / "chat_template.jinja"
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if not isinstance(template, str):
        raise InputError(f"{model}: no chat template (chat_template.jinja). Servers would guess one; save the adapter's again.")
    return template
