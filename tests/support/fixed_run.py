"""A run folder as training leaves it, made without training: the embedded model and an adapter of fixed random weights.

What is tested on it holds on every machine: nothing of it depends on what a training reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from articles import invent

from data.files import write_jsonl
from data.readers.rows import document_rows
from data.schema import Document, Mention, Relation
from pipeline.base_model import TINY
from pipeline.config import resolve_explicit
from pipeline.model import load_tokenizer, write_medner_json
from pipeline.run import run_job
from pipeline.run_folder import RunFolder, hash_adapter

SETTINGS = ["train.report_to=none", "eval.max_new_tokens=6", "eval.batch_tokens=20000", "export.gguf="]


def with_gold(document: Document, names: int = 2) -> Document:
    """The article with gold: its first words are `names` chemicals, then as many diseases, related one to one."""
    words = document.text.split()
    chemicals, diseases = words[:names], words[names : 2 * names]
    mentions = [Mention(word, "Chemical") for word in chemicals] + [Mention(word, "Disease") for word in diseases]
    relations = tuple(Relation(*pair) for pair in zip(chemicals, diseases, strict=True))
    return Document(document.id, document.text, None, tuple(mentions), relations)


def make_run(folder: Path, settings: Sequence[str] = (), *, train: int = 8, validation: int = 3, test: int = 3) -> Path:
    documents = [with_gold(document) for document in invent(train + validation + test, seed=3)]
    parts = {"train": documents[:train], "validation": documents[train : train + validation], "test": documents[-test:]}
    given = [f"data.{name}={write_jsonl(folder / f'{name}.jsonl', document_rows(part))}" for name, part in parts.items()]
    run = run_job(folder / "run", resolve_explicit("tiny", None, [*SETTINGS, *given, *settings]), until="plan")
    save_adapter(run)
    run.stage("train", lambda: {"adapter_sha256": hash_adapter(run.path / "adapter")})
    return run.path


def save_adapter(run: RunFolder, seed: int = 1) -> None:
    """A LoRA whose B is small and not zero, with what training writes beside it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(run.settings.lora.target_modules), task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(TINY), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.005)
    model.save_pretrained(run.path / "adapter")
    load_tokenizer(TINY).save_pretrained(run.path / "adapter")
    write_medner_json(run.path / "adapter", run.settings, run.manifest["max_new_tokens"])
