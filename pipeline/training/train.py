"""Training: TRL's SFTTrainer on the answers only, with validation loss, best checkpoint and early stopping.

Reads encoded examples, writes checkpoints/ while it goes and the best adapter at the end. Goes on from the last whole
checkpoint.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Settings
from pipeline.training.distributed import count_processes, is_first_process, meet
from pipeline.training.examples import Example

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
) -> dict:
    """Train `model`'s adapter and save the best to folder/adapter. Returns losses and counts for the manifest."""
    meet()
    trainer = make_trainer(settings, model, tokenizer, train, validation, folder)
    for callback in callbacks:
        trainer.add_callback(callback)
    done = trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    if is_first_process():  # one writer, however many devices train
        part = folder / "adapter.part"
        shutil.rmtree(part, ignore_errors=True)
        trainer.save_model(str(part))
        tokenizer.save_pretrained(part)
        shutil.rmtree(folder / "adapter", ignore_errors=True)  # left by an interruption after it, before the stage was recorded
        part.replace(folder / "adapter")
    trainer.accelerator.wait_for_everyone()
    state = trainer.state
    return {
        "steps": state.global_step,
        "train_loss": done.training_loss,
        "validation_loss": state.best_metric,
        "best_step": state.best_global_step,
        "examples": len(train),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "losses": [{k: v for k, v in row.items() if k in ("step", "loss", "eval_loss")} for row in state.log_history],
    }


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
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl import SFTTrainer

    from pipeline.training.progress import TrainingBar

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
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar())
    if validation:
        trainer.add_callback(EarlyStoppingCallback(settings.train.early_stopping_patience))
    return trainer


def make_adapter_float32(model: PreTrainedModel) -> None:
    """Undo TRL's making a 4-bit model's adapter bfloat16, which fp16's gradient scaler refuses."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def training_arguments(settings: Settings, examples: int, validate: bool, folder: Path) -> SFTConfig:
    """Every value is passed: Unsloth rewrites TRL's defaults."""
    import torch
    from trl import SFTConfig

    from pipeline.training.tracking import uses_wandb

    train, steps = settings.train, count_steps(settings, examples)
    every = max(1, ceil(steps / train.evaluations))
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        completion_only_loss=True,  # without it TRL trains on every token of a row that has a mask
        max_length=settings.model.max_length,
        packing=False,  # and padding_free is left alone: None under Unsloth, which then lays a batch's examples end to end
        loss_type="nll" if trains_by_unsloth() else "chunked_nll",  # TRL's goes around Unsloth's fused loss
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
        bf16=cuda and settings.model.dtype == "bfloat16",
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
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, steps // 50),
        logging_first_step=True,
        disable_tqdm=True,
        report_to="wandb" if uses_wandb(train.report_to) else "none",
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


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; half ones, left by an interruption, are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        # One rng_state.pth, or one a process where several train; each process looks here, so another may have removed it.
        if (checkpoint / "trainer_state.json").exists() and any(checkpoint.glob("rng_state*.pth")):
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(max(whole, key=lambda path: int(path.name.partition("-")[2]))) if whole else None
