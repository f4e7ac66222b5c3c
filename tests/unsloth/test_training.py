"""A training step through Unsloth's fused kernels against plain transformers and PEFT in float32."""

from __future__ import annotations

import pytest
import torch
from two_layer_job import settings, short_examples, wanted_labels
from unsloth_step import compare, open_trainer


@pytest.fixture(scope="module")
def trainer(reference, tokenizer, dtype, tmp_path_factory):
    return open_trainer(settings(reference / "base", dtype), reference, tokenizer, tmp_path_factory.mktemp("step"))


def test_every_layer_is_fused_and_what_is_trained_is_float32(trainer, reference, dtype):
    from pipeline.unsloth_model import find_unfused

    assert find_unfused(trainer.model, settings(reference / "base", dtype)) == []
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    assert (trainer.args.fp16, trainer.args.bf16) == (dtype == "float16", dtype == "bfloat16")


def test_the_collated_batch_lies_end_to_end_and_only_answers_are_its_labels(trainer, tokenizer):
    batch, examples = next(iter(trainer.get_train_dataloader())), short_examples(tokenizer)
    assert trainer.data_collator.padding_free and len(batch["input_ids"]) == 1 and "attention_mask" not in batch
    ids, labels, at = batch["input_ids"][0].tolist(), batch["labels"][0].tolist(), 0
    for length in batch["packed_seq_lengths"].tolist():
        (example,) = [one for one in examples if one["input_ids"] == ids[at : at + length]]
        assert labels[at : at + length] == wanted_labels(example)
        at += length
    assert at == len(ids) == sum(len(one["input_ids"]) for one in examples)


def test_loss_and_every_gradient_are_the_plain_ones(trainer, reference, dtype):
    compare(trainer, reference, dtype)


def test_a_batch_in_three_parts_gives_the_same(reference, tokenizer, dtype, tmp_path):
    parts = {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 3}
    compare(open_trainer(settings(reference / "base", dtype, **parts), reference, tokenizer, tmp_path), reference, dtype)


def test_checkpointing_gives_the_same(reference, tokenizer, dtype, tmp_path):
    chosen = settings(reference / "base", dtype, train__gradient_checkpointing=True)
    compare(open_trainer(chosen, reference, tokenizer, tmp_path), reference, dtype)
