"""Pretrain the tiny base model from invented text and write `pipeline/tiny/`: `python -m tools.tiny_base.pretrain`.

A Llama shaped like Llama 3.2 (grouped-query attention, tied embeddings, `llama3` rope scaling, its split regex, special
tokens and chat), small enough to fine-tune on two cores in minutes. It first copies names without a meaning; then exercises and
conversations from `tools.tiny_base.text` teach it to list what is asked for, and never what fine-tuning asks.

Reads nothing but the chat template beside the weights. One seed gives one model on one machine; `--work` keeps checkpoints,
and a run started again with the same folder goes on from the last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tools.tiny_base.model import PATH, build_model, build_tokenizer
from tools.tiny_base.muon import Muon
from tools.tiny_base.rows import TEXT_WEIGHT, TOKENS, Row, batches

SEED, STEPS, DECAY = 7, 3600, 0.4
LEARNING_RATE, MATRIX_RATE, WARM_UP = 2e-3, 3e-3, 40  # of the vectors, of the matrices, and the steps up to them
KEEP_EVERY = 250  # steps between checkpoints


def train(work: Path | None, steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The trained model; `work` is where checkpoints are kept and taken up again."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer(SEED)
    model = build_model(tokenizer)
    optimizers = build_optimizers(model)
    first = restore(work, model, optimizers)
    start = time.time()
    for step, batch in enumerate(islice(batches(tokenizer, SEED), first, steps), first):
        for optimizer, peak in zip(optimizers, (LEARNING_RATE, MATRIX_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(step, steps)
        loss, answers, firsts = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0:
            losses = f"loss {loss.item():.3f} answers {answers:.4f} firsts {firsts:.4f}"
            print(f"step {step} {losses} {time.time() - start:.0f} s", flush=True)
        if work and (step + 1) % KEEP_EVERY == 0:
            state = {"step": step + 1, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
            torch.save(state, work / "checkpoint.part")
            (work / "checkpoint.part").rename(work / "checkpoint.pt")
    return model, tokenizer


def loss_of(model: LlamaForCausalLM, batch: list[Row]) -> tuple[torch.Tensor, float, float]:
    """The weighted loss, and the plain loss on the answers and on the starts of names.

    Rows are padded on the right, which causal attention does not see.
    """
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    weights = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in batch])[:, 1:].flatten()
    kept = weights > 0
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)[kept]
    losses = functional.cross_entropy(model.lm_head(hidden), ids[:, 1:].flatten()[kept], reduction="none")
    weights = weights[kept]
    answers, text = weights >= 1, weights < 1
    loss = (losses * weights)[answers].sum() / weights[answers].sum()
    if text.any():
        loss = loss + TEXT_WEIGHT * losses[text].mean()
    return loss, losses[answers].mean().item(), losses[weights > 1].mean().item()


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Adam for embeddings and norms, Muon for the matrices."""
    matrices = [weights for name, weights in model.named_parameters() if weights.ndim == 2 and "embed" not in name]
    others = [weights for name, weights in model.named_parameters() if weights.ndim < 2 or "embed" in name]
    adam = torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    return [adam, Muon(matrices, lr=MATRIX_RATE)]


def rate(step: int, steps: int) -> float:
    """The learning rate's share at a step: up, level, then down to nothing over the last DECAY of the steps."""
    return min((step + 1) / WARM_UP, 1.0, (steps - step) / (DECAY * steps))


def restore(work: Path | None, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    """Take up the checkpoint in `work`, if there is one; the number of steps done."""
    if not work or not (work / "checkpoint.pt").exists():
        return 0
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return state["step"]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> str:
    """Write weights in bfloat16, configuration and tokenizer; the weights' sha256."""
    model.to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # as Llama 3.2 says, and what every version of transformers knows
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def write_card(path: Path, digest: str, steps: int, minutes: float) -> None:
    """The model card: what the model is, and what it was made from."""
    (path / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: transformers
tags: [llama, tiny]
---
# Tiny base model

A Llama of 3.0 million parameters, shaped like Llama 3.2 Instruct (grouped-query attention, tied embeddings, `llama3` rope
scaling, its split, special tokens and chat), for trying, testing and changing this project on a CPU. It is of no other use.

- **Data**: text invented by `tools/tiny_base/text.py`. It lists genes, species, procedures, tissues, cells, doses, long forms
  and pairs joined by a verb; it was never asked for chemicals, diseases or their relations, and shares no name with the sample.
- **Start**: two heads that look back, one that copies, one that finds a word's start, set by hand (`look_back`);
  all else random.
- **Training**: {steps} steps of about {TOKENS} tokens (names to copy, then short exercises, articles and whole
  conversations), seed {SEED}, Muon at {MATRIX_RATE:g} for the matrices and Adam at {LEARNING_RATE:g} for the rest,
  {minutes:.0f} minutes on two cores.
- **Made by**: `python -m tools.tiny_base.pretrain`
- **sha256** of `model.safetensors`: `{digest}`
"""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, help="a folder for checkpoints")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=PATH)
    arguments = parser.parse_args()
    start = time.time()
    model, tokenizer = train(arguments.work, arguments.steps)
    digest = save(model, tokenizer, arguments.out)
    write_card(arguments.out, digest, arguments.steps, (time.time() - start) / 60)
    print(json.dumps({"sha256": digest, "steps": arguments.steps, "seconds": round(time.time() - start)}))


if __name__ == "__main__":
    main()
