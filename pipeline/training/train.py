"""Training: TRL's SFTTrainer on the answers only, with validation loss, best checkpoint and early stopping.

Reads encoded examples, writes checkpoints/ while it goes and the best adapter at the end. Goes on from the last whole
checkpoint.
"""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from data.schema import InputError
from pipeline.config import Settings
from pipeline.training.distributed import count_processes, is_first_process, wait_for_all
from pipeline.training.loss_mask import Example
from pipeline.training.validation_f1 import Score, score_at_evaluations

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer


def train_adapter(
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    owners: Sequence[str] = (),
    score: Score | None = None,
) -> dict:
    """Train `model`'s adapter and save the best to folder/adapter. Returns losses and counts for the manifest.

    `owners`: the document id of each example of `train`, named where its loss is no number. `score`: figures of the model at
    each evaluation, beside its loss. Raises KeyboardInterrupt where a signal ended the training, after saving a checkpoint.
    """
    from pipeline.training.attention import fast_attention
    from pipeline.training.callbacks import StopOnSignal
    from pipeline.training.checkpoints import full_disk_said, last_checkpoint, require_finite
    from pipeline.training.memory import train_within_memory

    wait_for_all()
    stop = StopOnSignal()

    def attempt(settings: Settings) -> SFTTrainer:
        stop.restore()  # where an attempt before it ran out of memory
        trainer = make_trainer(settings, model, tokenizer, train, validation, folder)
        refuse_infinite_loss(trainer, train, owners)
        if score:
            score_at_evaluations(trainer, score)
        for callback in (*callbacks, stop):
            trainer.add_callback(callback)
        checkpoint = last_checkpoint(folder / "checkpoints")
        if checkpoint and is_finished(checkpoint, settings, len(train), bool(validation)):
            load_finished(trainer, checkpoint)
        else:
            with fast_attention(model):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer

    with full_disk_said(folder):
        trainer = train_within_memory(attempt, settings, model)
    if stop.stopped:
        raise KeyboardInterrupt(f"at step {trainer.state.global_step}")
    require_finite(model, trainer.state.global_step)
    save_adapter(trainer, tokenizer, folder / "adapter")
    return describe_training(trainer, len(train))


def save_adapter(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write adapter and tokenizer to `folder`, whole or not at all; every process comes back when they are written."""
    from pipeline.training.checkpoints import full_disk_said

    if is_first_process():  # one writer, however many devices train
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with full_disk_said(folder.parent):
            trainer.save_model(str(part))
            tokenizer.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)  # left by an interruption after it, before the stage was recorded
        part.replace(folder)
    trainer.accelerator.wait_for_everyone()


def describe_training(trainer: SFTTrainer, examples: int) -> dict:
    """What the manifest records of a training: steps, batch, seconds, losses by step, and the best step's figures."""
    from pipeline.training.callbacks import seconds_trained

    state = trainer.state
    best = next((row for row in state.log_history if "eval_loss" in row and row["step"] == state.best_global_step), {})
    return {
        "steps": state.global_step,
        "batch": [trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps],
        "training_seconds": seconds_trained(state.log_history),
        "train_loss": mean_loss(state.log_history),
        "validation_loss": best.get("eval_loss"),
        "validation_f1": best.get("eval_f1"),
        "best_step": state.best_global_step,
        "examples": examples,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "losses": [
            {key: row[key] for key in sorted(row) if key in ("step", "loss", "eval_loss") or key.startswith("eval_f1")}
            for row in state.log_history
            if "loss" in row or "eval_loss" in row  # not its summary, which is missing after an interruption
        ],
    }


def mean_loss(history: Sequence[dict]) -> float | None:
    """The mean over all steps of the losses logged so far; the trainer's own forgets what was before an interruption.

    >>> mean_loss([{"step": 1, "loss": 4.0}, {"step": 3, "loss": 1.0}, {"step": 3, "eval_loss": 9.0}])
    2.0
    """
    total, before = 0.0, 0
    for row in history:
        if "loss" in row:
            total, before = total + row["loss"] * (row["step"] - before), row["step"]
    return total / before if before else None


def is_finished(checkpoint: Path, settings: Settings, examples: int, validate: bool) -> bool:
    """Whether nothing is left to train: the trainer, asked all the same, would take one step more."""
    from transformers import TrainerState

    from pipeline.training.checkpoints import evaluations_without_gain

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    patient = evaluations_without_gain(state) < settings.train.early_stopping_patience
    return state.global_step >= count_steps(settings, examples) or validate and not patient


def load_finished(trainer: SFTTrainer, checkpoint: Path) -> None:
    """Give the trainer's model the best adapter of a training that ended before its adapter was written."""
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.state.best_global_step
    source = checkpoint.parent / f"checkpoint-{best}" if best else checkpoint
    trainer.model.load_adapter(str(source), trainer.model.active_adapters[0], is_trainable=True)


def refuse_infinite_loss(trainer: SFTTrainer, train: Sequence[Example], owners: Sequence[str]) -> None:
    """Make the trainer stop (RuntimeError, naming the batch's documents) at a loss that is no number; what was saved stays."""
    step, named = trainer.training_step, {tuple(e["input_ids"]): owner for e, owner in zip(train, owners, strict=False)}

    def checked_step(model, inputs, *arguments, **keywords):
        ids, attended = inputs["input_ids"].tolist(), inputs.get("attention_mask")
        loss = step(model, inputs, *arguments, **keywords)
        if loss.isfinite():
            return loss
        rows = [[i for i, on in zip(row, mask, strict=True) if on] for row, mask in zip(ids, attended.tolist(), strict=True)] \
            if attended is not None else ids  # fmt: skip
        documents = sorted({named[tuple(row)] for row in rows if tuple(row) in named})
        raise RuntimeError(
            f"the loss is {loss.item()} at step {trainer.state.global_step + 1}, documents {', '.join(documents) or 'unknown'}"
            "; lower train.learning_rate, or take them out. The checkpoints before it are kept"
        )

    trainer.training_step = checked_step


def check_training(settings: Settings, examples: int, validate: bool, folder: Path) -> None:
    """Build what training will be configured with. Raises InputError naming the setting that a library refuses."""
    import torch
    from peft import LoraConfig
    from transformers import Trainer
    from transformers.optimization import get_scheduler
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    train, lora = settings.train, settings.lora
    if train.best_by == "f1" and not train.eval_f1_articles:
        raise InputError("train.best_by=f1: train.eval_f1_articles=0 answers no validation article; give it some")
    for name, value, known in (
        ("optim", train.optim, [one.value for one in OptimizerNames]),
        ("lr_scheduler_type", train.lr_scheduler_type, [one.value for one in SchedulerType]),
    ):
        if value not in known:
            near = difflib.get_close_matches(value, known, 1, 0.3)
            raise InputError(f"train.{name}={value}: unknown to transformers{near and f'; did you mean {near[0]}?' or ''}")
    LoraConfig(r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout, bias=lora.bias,
               target_modules=list(lora.target_modules), task_type="CAUSAL_LM")  # fmt: skip
    arguments = training_arguments(settings, examples, validate, folder)
    weight = torch.nn.Parameter(torch.zeros(1))
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    except Exception as error:  # a library that is missing, or an argument that only others' code knows
        raise InputError(f"train.optim={train.optim}: cannot be used here: {str(error).splitlines()[0]}") from None
    try:
        get_scheduler(train.lr_scheduler_type, torch.optim.SGD([weight]), 1, 2, arguments.lr_scheduler_kwargs or None)
    except Exception as error:
        raise InputError(f"train.lr_scheduler_type={train.lr_scheduler_type}: {str(error).splitlines()[0]}") from None


def make_trainer(
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
) -> SFTTrainer:
    """TRL's trainer over rows that are tokenised and masked already; their lengths were checked, so it cuts nothing."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from pipeline.training.answers_loss import read_answers_alone
    from pipeline.training.callbacks import Clock, SaveInTime, TrainingBar
    from pipeline.training.checkpoints import Patience, SealedCheckpoints

    validation = sorted(validation, key=lambda example: len(example["input_ids"]))  # batches of near lengths pad little
    trainer = SFTTrainer(
        model=model,
        args=training_arguments(settings, len(train), bool(validation), folder),
        train_dataset=Dataset.from_list(list(train)),
        eval_dataset=Dataset.from_list(list(validation)) if validation else None,
        processing_class=tokenizer,
    )
    if settings.model.dtype == "float16":
        make_adapter_float32(model)
    if trainer.args.use_cpu and not trains_by_unsloth():
        read_answers_alone(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar())
    trainer.add_callback(Clock())
    if validation:
        trainer.add_callback(Patience(settings.train.early_stopping_patience))
    trainer.add_callback(SaveInTime())
    trainer.add_callback(SealedCheckpoints())
    return trainer


def make_adapter_float32(model: PreTrainedModel) -> None:
    """Undo TRL's making a 4-bit model's adapter bfloat16, which fp16's gradient scaler refuses."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def training_arguments(settings: Settings, examples: int, validate: bool, folder: Path) -> SFTConfig:
    """The settings as TRL's SFTConfig. Every value is passed: Unsloth rewrites TRL's defaults."""
    import torch
    from trl import SFTConfig

    from pipeline.training.tracking import PROJECT, tracker_of

    train, steps = settings.train, count_steps(settings, examples)
    every = max(1, ceil(steps / train.evaluations))
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        completion_only_loss=True,  # without it TRL trains on every token of a row that has a mask
        max_length=settings.model.max_length,
        packing=False,  # and padding_free is left alone: None under Unsloth, which then lays a batch's examples end to end
        # TRL's own goes around Unsloth's fused loss; a processor has `answers_loss`
        loss_type="chunked_nll" if cuda and not trains_by_unsloth() else "nll",
        num_train_epochs=train.num_train_epochs,
        max_steps=train.max_steps,
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        per_device_eval_batch_size=train.per_device_eval_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        gradient_checkpointing=bool(train.gradient_checkpointing),
        bf16=settings.model.dtype == "bfloat16",
        fp16=cuda and settings.model.dtype == "float16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=2 if cuda else 0,
        dataloader_persistent_workers=cuda,
        dataloader_prefetch_factor=4 if cuda else None,
        # A step's examples are drawn at random, then split by length over devices and micro-batches: little padding, and
        # the same steps however many devices there are.
        train_sampling_strategy="batch_rebalance",
        ddp_find_unused_parameters=False,
        torch_empty_cache_steps=None,
        eval_accumulation_steps=None,
        eval_strategy="steps" if validate else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model=f"eval_{train.best_by}",
        greater_is_better=train.best_by == "f1",
        logging_steps=max(1, steps // 50),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is no number stops the training
        disable_tqdm=True,
        report_to=tracker_of(train.report_to),
        project=PROJECT,
        trackio_static_space_id=False,  # nothing is published beside what `push` does
        run_name=folder.name,
        seed=train.seed,
        data_seed=train.seed,
    )


def count_steps(settings: Settings, examples: int) -> int:
    """Optimiser steps of the whole training."""
    train = settings.train
    if train.max_steps > 0:
        return train.max_steps
    whole = train.per_device_train_batch_size * train.gradient_accumulation_steps * count_processes()
    return ceil(ceil(examples / whole) * train.num_train_epochs)


def trains_by_unsloth() -> bool:
    """Whether Unsloth was imported, and so patched TRL."""
    return "unsloth" in sys.modules
