"""Training: TRL's SFTTrainer on the answers only, with validation loss, best checkpoint and early stopping.

Reads encoded examples, writes checkpoints/ while it goes and the best adapter at the end. Goes on from the last whole
checkpoint.
"""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Settings
from pipeline.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer


def train_adapter(
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
) -> dict:
    """Train `model`'s adapter and save the best to folder/adapter. Returns losses and counts for the manifest."""
    trainer = make_trainer(settings, model, tokenizer, train, validation, folder)
    done = trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    part = folder / "adapter.part"
    shutil.rmtree(part, ignore_errors=True)
    trainer.save_model(str(part))
    tokenizer.save_pretrained(part)
    part.replace(folder / "adapter")
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

    from pipeline.progress import TrainingBar

    trainer = SFTTrainer(
        model=model,
        args=training_arguments(settings, len(train), bool(validation), folder),
        train_dataset=Dataset.from_list(list(train)),
        eval_dataset=Dataset.from_list(list(validation)) if validation else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar())
    if validation:
        trainer.add_callback(EarlyStoppingCallback(settings.train.early_stopping_patience))
    return trainer


def training_arguments(settings: Settings, examples: int, validate: bool, folder: Path) -> SFTConfig:
    """Every value is passed: Unsloth rewrites TRL's defaults."""
    import torch
    from trl import SFTConfig

    train, steps = settings.train, count_steps(settings, examples)
    every = max(1, ceil(steps / train.evaluations))
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        completion_only_loss=True,  # without it TRL trains on every token of a row that has a mask
        max_length=settings.model.max_length,
        packing=False,
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
        train_sampling_strategy="group_by_length",
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
        report_to=choose_reporter(train.report_to),
        run_name=folder.name,
        seed=train.seed,
        data_seed=train.seed,
    )


def count_steps(settings: Settings, examples: int) -> int:
    """Optimiser steps of the whole training."""
    train = settings.train
    if train.max_steps > 0:
        return train.max_steps
    batches = ceil(examples / train.per_device_train_batch_size)
    return ceil(ceil(batches / train.gradient_accumulation_steps) * train.num_train_epochs)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; half ones, left by an interruption, are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / "trainer_state.json").exists() and (checkpoint / "rng_state.pth").exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return str(max(whole, key=lambda path: int(path.name.partition("-")[2]))) if whole else None


def choose_reporter(report_to: str) -> str:
    """ "wandb" when asked or, on "auto", when this machine is logged in; it never prompts."""
    os.environ.setdefault("WANDB_PROJECT", "medner")
    os.environ.setdefault("WANDB_SILENT", "true")
    if report_to == "offline":
        os.environ["WANDB_MODE"] = "offline"
    return "wandb" if report_to in ("wandb", "offline") or report_to == "auto" and has_wandb_login() else "none"


def has_wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
