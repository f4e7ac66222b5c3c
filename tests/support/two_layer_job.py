"""What the tests of Unsloth work on: a random Llama of two layers, an adapter, three short examples, two short documents.

    python tests/support/two_layer_job.py OUT

writes base/, adapter/ and what plain transformers and PEFT make of them in float32: in 16bit/ and 4bit/, reference.pt with loss
and gradients of the examples as one batch, answers.jsonl and grounded.jsonl; and knowing/, a base that knows four documents by
heart. A process of its own, since Unsloth changes transformers where it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data.schema import Document, Mention, Relation
from pipeline.config import Settings, apply_settings

DOCUMENTS = (
    Document("short", "Lithium gave tremor."),
    Document("longer", "In rats, benzodiazepine lowered the tremor that lithium and chlorophenol had raised.", "A title"),
)
TAILS = (24, 18, 21)  # tokens kept of each example: interpreted kernels are slow


def documents(count: int) -> list[Document]:
    """Documents of four words, each with an answer for every task."""
    names = [("Lithium", "tremor"), ("Chlorophenol", "hepatitis"), ("Benzodiazepine", "seizure"), ("Methionine", "nephropathy")]
    made = []
    for number in range(count):
        chemical, disease = names[number % 4][0], names[number // 4 % 4][1]
        mentions = (Mention(chemical, "Chemical"), Mention(disease, "Disease"))
        made.append(Document(str(number), f"{chemical} gave {disease} {number}.", "", mentions, (Relation(chemical, disease),)))
    return made


def settings(base: Path, dtype: str, **changes: object) -> Settings:
    chosen = {
        "model.name": str(base), "model.load_in_4bit": False, "model.dtype": dtype, "model.max_length": 512,
        "train.gradient_checkpointing": False, "train.per_device_train_batch_size": 3,
        "train.gradient_accumulation_steps": 1, "train.per_device_eval_batch_size": 2, "train.max_steps": 2,
        "train.evaluations": 2, "train.report_to": "none",
        "train.warmup_steps": 0.0, "train.learning_rate": 1e-3, "train.optim": "adamw_torch", "eval.batch_tokens": 4096,
    }  # fmt: skip
    return apply_settings(chosen | {name.replace("__", "."): value for name, value in changes.items()})


def short_examples(tokenizer: object) -> list[dict[str, list[int]]]:
    """The ends of three encoded conversations: questions and answers, so that masks hold both."""
    from pipeline.training.loss_mask import encode_documents

    encoded = encode_documents(tokenizer, documents(3), "conversation")
    return [{key: ids[-kept:] for key, ids in one.items()} for one, kept in zip(encoded, TAILS, strict=True)]


def wanted_labels(example: dict[str, list[int]]) -> list[int]:
    """The first token of an example has nothing before it to be predicted from."""
    pairs = zip(example["input_ids"], example["completion_mask"], strict=True)
    return [token if mask and place else -100 for place, (token, mask) in enumerate(pairs)]


def answer(model: object, tokenizer: object, path: Path, **wanted: object) -> list[dict]:
    """The model's answers to DOCUMENTS, one conversation each."""
    from data.files import read_jsonl
    from eval.engines.huggingface import ask_model

    path.unlink(missing_ok=True)
    chosen = {"layout": "conversation", "max_new_tokens": 5, "batch_tokens": 4096, "logprobs": True, "progress": False} | wanted
    ask_model(model, tokenizer, DOCUMENTS, path, **chosen)
    return sorted((row for _, row in read_jsonl(path)), key=lambda row: (row["document"], row["task"]))


def loss_and_gradients(model: object, examples: Sequence[dict[str, list[int]]]) -> dict:
    import torch

    total, count = 0, 0
    for example in examples:
        ids, labels = torch.tensor(example["input_ids"]), torch.tensor(wanted_labels(example))
        logits = model(input_ids=ids[None]).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
        count += int((labels >= 0).sum())
    loss = total / count
    loss.backward()
    return {"loss": loss.item(), "gradients": {name: p.grad for name, p in model.named_parameters() if p.requires_grad}}


def write_reference(out: Path) -> None:
    import torch
    from tiny_llama import save_adapter, save_base

    from pipeline.model import load_model, load_tokenizer

    save_adapter(save_base(out / "base", width=128, dtype="bfloat16"), out / "adapter", strength=0.05)
    tokenizer = load_tokenizer(out / "base")
    for bits in (16, 4):
        chosen, folder = settings(out / "base", "float32", model__load_in_4bit=bits == 4), out / f"{bits}bit"
        folder.mkdir()
        model = load_model(chosen, adapter=out / "adapter").eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        torch.save(loss_and_gradients(model, short_examples(tokenizer)), folder / "reference.pt")
        answer(model, tokenizer, folder / "answers.jsonl")
        answer(model, tokenizer, folder / "grounded.jsonl", grounded=True, max_new_tokens=24)
    memorise(save_base(out / "knowing", width=128), documents(4))


def memorise(folder: Path, known: Sequence[Document]) -> None:
    """Train the whole model until it has the documents' answers by heart."""
    import torch
    from transformers import AutoModelForCausalLM

    from pipeline.model import load_tokenizer
    from pipeline.training.loss_mask import encode_documents

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encoded = encode_documents(load_tokenizer(folder), known, "conversation")
    width, optimizer = max(len(one["input_ids"]) for one in encoded), torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.tensor([one["input_ids"] + [0] * (width - len(one["input_ids"])) for one in encoded])
    labels = torch.tensor([wanted_labels(one) + [-100] * (width - len(one["input_ids"])) for one in encoded])
    for _ in range(200):
        loss = model(ids, labels=labels).loss
        if loss < 0.005:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
