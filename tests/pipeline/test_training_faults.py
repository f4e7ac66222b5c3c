"""What goes wrong within training: no memory, no room on the disk, a loss that is no number. What was learnt stays."""

from __future__ import annotations

import errno
import resource

import pytest
import torch
from tiny_llama import save_base, tiny_tokenizer
from transformers import TrainerCallback

from data.schema import Document, Mention
from pipeline.config import apply_settings
from pipeline.model import load_model
from pipeline.training.loss_mask import encode_documents
from pipeline.training.memory import halve_batch
from pipeline.training.train import train_adapter

DOCUMENTS = [
    Document(f"d{n}", f"Case {n}: gout came after lead. " * (1 + n % 3), mentions=(Mention("gout", "Disease"),))
    for n in range(8)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"), width=64, positions=3072)


def make_settings(base, batch, accumulation):
    return apply_settings({
        "model.name": str(base), "model.dtype": "float32", "model.load_in_4bit": False, "model.max_length": 1024,
        "lora.r": 4, "train.max_steps": 4, "train.evaluations": 4, "train.learning_rate": 1e-2, "train.optim": "adamw_torch",
        "train.per_device_train_batch_size": batch, "train.per_device_eval_batch_size": 2,
        "train.gradient_accumulation_steps": accumulation, "train.gradient_checkpointing": False, "train.report_to": "none",
    })  # fmt: skip


class FullMemory(TrainerCallback):
    """From a step on, the model's forward pass raises what CUDA's allocator raises for more than one example at a time."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            base = model.get_base_model().model
            base.register_forward_pre_hook(refuse_two, with_kwargs=True)
            self.step = None


def refuse_two(module, arguments, keywords):
    rows = next(value for value in (keywords.get("input_ids"), keywords.get("inputs_embeds"), *arguments) if value is not None)
    if len(rows) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def train(settings, folder, callbacks=()):
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    model = load_model(settings, trainable=True)
    facts = train_adapter(settings, model, tiny_tokenizer(), examples, examples[:2], folder, callbacks)
    return facts, model


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2])
def test_it_goes_on_with_a_smaller_batch_to_the_same_weights(base, tmp_path, capsys, step):
    """At step 0 there is no checkpoint yet, and the adapter is what it was; later it goes on from the last one."""
    facts, model = train(make_settings(base, 4, 1), tmp_path / "full", [FullMemory(step)])
    said = capsys.readouterr().err
    assert said.count("ran out of memory") == 2
    assert "train.per_device_train_batch_size=1, train.gradient_accumulation_steps=4" in said
    assert facts["batch"] == [1, 4] and facts["steps"] == 4
    whole, other = train(make_settings(base, 1, 4), tmp_path / "whole")
    assert [row["loss"] for row in facts["losses"] if "loss" in row] == pytest.approx(
        [row["loss"] for row in whole["losses"] if "loss" in row], rel=1e-4
    )
    wanted = dict(other.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-5)


def test_one_example_that_does_not_fit_is_said_with_what_to_change(base, monkeypatch):
    settings = make_settings(base, 1, 4)
    with pytest.raises(RuntimeError, match="with 1 example a batch; give --set train.gradient_checkpointing=true"):
        halve_batch(settings)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="give --set train.per_device_train_batch_size=2, and the same command"):
        halve_batch(make_settings(base, 4, 1))


@pytest.mark.parametrize(("batch", "smaller"), [(2, 1), (3, 1), (6, 3), (8, 4), (9, 3)])
def test_a_step_keeps_its_examples(base, batch, smaller):
    train = halve_batch(make_settings(base, batch, 2)).train
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (smaller, 2 * batch // smaller)


@pytest.mark.slow
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint_and_names_the_documents(base, tmp_path):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(torch.nan)

    settings = make_settings(base, 4, 1)
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    names = [document.id for document in DOCUMENTS]
    with pytest.raises(RuntimeError, match=r"the loss is nan at step 3, documents d\d, d\d, d\d, d\d; lower") as stopped:
        train_adapter(
            settings, load_model(settings, trainable=True), tiny_tokenizer(), examples, [], tmp_path, [Poison()], names
        )
    assert "The checkpoints before it are kept" in str(stopped.value)
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "sealed.json").is_file()
    assert not (tmp_path / "adapter").exists()
    facts = train_adapter(settings, load_model(settings, trainable=True), tiny_tokenizer(), examples, [], tmp_path)
    assert facts["steps"] == 4  # gone on with from step 2


@pytest.mark.slow
def test_a_full_disk_is_said_as_such_and_the_same_command_goes_on(base, tmp_path):
    """Files of more bytes than a limit cannot be written: first the adapter's, then the optimiser's."""
    settings, soft_and_hard = make_settings(base, 4, 1), resource.getrlimit(resource.RLIMIT_FSIZE)
    train(settings, tmp_path / "whole")
    saved = tmp_path / "whole" / "checkpoints" / "checkpoint-4"
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        resource.setrlimit(resource.RLIMIT_FSIZE, ((saved / name).stat().st_size - 100, soft_and_hard[1]))
        try:
            with pytest.raises(OSError) as full:
                train(settings, tmp_path / "cut")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft_and_hard)
        assert full.value.errno in (errno.ENOSPC, errno.EFBIG) and str(tmp_path / "cut") in str(full.value.filename)
    train(settings, tmp_path / "cut")
    weights = [(tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("cut", "whole")]
    assert weights[0] == weights[1]
