"""A base from the Hub through the whole command: its revision, its family's name and licence, its sizes, wherever they stand.

The Hub is a cache on this machine, as after a download, and no network: two revisions whose weights differ.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from articles import invent
from fixed_run import with_gold
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from data.files import write_jsonl
from data.readers.rows import document_rows
from pipeline.base_model import TINY

pytestmark = pytest.mark.slow
BASE, EMBEDDING = "Qwen/Qwen3-0.6B", "model.embed_tokens.weight"
SETTINGS = [
    f"model.name={BASE}", "model.revision=v1", "train.max_steps=1", "train.evaluations=1", "train.report_to=none",
    "eval.base_model=false", "eval.max_new_tokens=4", "export.gguf=f16", "export.merge=true",
]  # fmt: skip


def write_revision(cache: Path, name: str, scale: float, positions: int) -> Path:
    """The embedded Llama under another name, its weights scaled, as the Hub's client keeps a revision."""
    folder = cache / f"models--{BASE.replace('/', '--')}"
    snapshot = shutil.copytree(TINY, folder / "snapshots" / (name * 8))
    weights = load_file(snapshot / "model.safetensors")
    weights[EMBEDDING] = weights[EMBEDDING] * scale
    save_file(weights, snapshot / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
    (snapshot / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}), encoding="utf-8")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / name).write_text(snapshot.name, encoding="utf-8")
    return snapshot


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The run, and the snapshot of the revision that was asked for."""
    home = tmp_path_factory.mktemp("home")
    write_revision(home / "hub", "main", 1.5, 4096)
    wanted = write_revision(home / "hub", "v1", 1.0, 2048)
    corpus = write_jsonl(home / "corpus.jsonl", document_rows([with_gold(document) for document in invent(12)]))
    command = ["run", "--preset", "tiny", "--data", corpus, "--out", home / "run", "--set", *SETTINGS]
    environment = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, command)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return home / "run", wanted


def test_what_is_merged_is_the_revision_that_was_asked_for(made):
    run, wanted = made
    merged, base = (load_file(folder / "model.safetensors")[EMBEDDING] for folder in (run / "export/merged", wanted))
    assert merged.equal(base)
    config = json.loads((run / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, "v1")


def test_a_qwen_base_is_not_called_llama_nor_licensed_as_one(made):
    run, _ = made
    (gguf,) = (run / "export").glob("*.gguf")
    fields = {name: field.contents() for name, field in GGUFReader(gguf).fields.items() if name.startswith("general.")}
    assert gguf.name == "Qwen3-0.6B-medical-ner.f16.gguf" and fields["general.name"] == "Qwen3-0.6B-medical-ner"
    assert fields["general.license"] == "apache-2.0" and fields["general.base_model.0.name"] == BASE
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card and f"base_model: {BASE}" in card
    assert "llama3.2" not in card and "Built with Llama" not in card and "Llama-3.2" not in card


def test_every_server_is_told_the_models_own_context(made):
    """Training's longest article is far shorter; a server that keeps only so much would cut a longer one."""
    run, _ = made
    stage = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]["export"]
    parameters = json.loads((run / "export/params").read_text(encoding="utf-8"))
    modelfile = (run / "export/Modelfile").read_text(encoding="utf-8")
    assert parameters["num_ctx"] == 2048 and "PARAMETER num_ctx 2048\n" in modelfile
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "--ctx-size 2048 " in stage["llama_server"] and card.count("--ctx-size") == card.count("--ctx-size 2048 ") >= 1
