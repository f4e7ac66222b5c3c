"""The recipes that bench/train.py compares, and one of them run in this process: Unsloth changes TRL for good once imported.

Every recipe sees the same articles once, in one epoch. `row per task` is the user's own rows: the article is read three times.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.prompts import Layout
from data.schema import TASKS, Document
from pipeline.config import Settings, apply_settings
from pipeline.plan.architectures import Architecture
from pipeline.plan.decide import Plan
from pipeline.plan.lengths import Lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTTrainer

WARM_UP = 2  # optimiser steps before the clock starts


@dataclass(frozen=True)
class Recipe:
    """`planned`: precision, batch and checkpointing by our plan; otherwise `batch` x `accumulation`, checkpointed."""

    layout: Layout
    engine: str
    ours: bool = False
    planned: bool = False
    completions_only: bool = True
    batch: int = 2
    accumulation: int = 4
    four_bit: bool = False


RECIPES = {
    # As the original project trained: its loss covers prompts too, and batches are padded to their longest row.
    "original": Recipe("separate", "transformers", completions_only=False, four_bit=True),
    # TRL's and PEFT's own defaults: 8 rows a batch, checkpointing, 16-bit.
    "trl": Recipe("separate", "transformers", batch=8, accumulation=1),
    # The stock Unsloth notebook: 4-bit, 2 x 4, checkpointing.
    "unsloth": Recipe("separate", "unsloth", four_bit=True),
    "unsloth_tuned": Recipe("separate", "unsloth", planned=True),
    "ours_separate": Recipe("separate", "", ours=True, planned=True),
    "ours_conversation": Recipe("conversation", "", ours=True, planned=True),
}


def recipe_settings(recipe: Recipe, plan: Plan) -> Settings:
    """Settings without a None, for `recipe` on the plan's device."""
    cuda, settings = plan.hardware.kind == "cuda", plan.settings
    if not recipe.planned:
        batch, accumulation = recipe.batch, recipe.accumulation
        settings = apply_settings(
            {
                "model.load_in_4bit": recipe.four_bit and cuda,
                "train.effective_batch_size": batch * accumulation,
                "train.per_device_train_batch_size": batch,
                "train.gradient_accumulation_steps": accumulation,
                "train.gradient_checkpointing": True,
                "train.optim": "adamw_8bit" if recipe.engine == "unsloth" else "adamw_torch",
            },
            settings,
        )
    return replace(settings, train=replace(settings.train, layout=recipe.layout))


def run_recipe(
    recipe: Recipe, plan: Plan, train: Sequence[Document], test: Sequence[Document], folder: Path, *, epochs: float = 1
) -> dict:
    """Train by `recipe` on `train` and, where there are `test` documents, score the adapter on them. Figures for the table."""
    from pipeline.model import load_tokenizer, load_with_transformers, model_path, prepare_engine
    from pipeline.unsloth_model import load_with_unsloth

    engine = recipe.engine or plan.hardware.engine
    if engine == "unsloth":
        prepare_engine(folder / "unsloth_compiled_cache")  # before transformers, which the next import brings
    from pipeline.training.loss_mask import encode_documents

    settings = recipe_settings(recipe, plan)
    settings = apply_settings({"train.num_train_epochs": epochs, "train.report_to": "none", "train.evaluations": 1}, settings)
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    examples = encode_documents(tokenizer, train, recipe.layout)
    load = load_with_unsloth if engine == "unsloth" else load_with_transformers
    model = load(settings, None, True)
    trainer = make_recipe_trainer(recipe, settings, model, tokenizer, examples, folder)
    figures = measure(trainer, len(train), settings, plan)
    figures["padding"] = round(measure_padding(trainer), 4)
    if test:
        figures["f1"] = score_adapter(model, tokenizer, settings, train, test, folder)
    return figures


def make_recipe_trainer(
    recipe: Recipe,
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict],
    folder: Path,
) -> SFTTrainer:
    """Our own trainer, or TRL's with its own order of examples and, for the original, a loss over every token."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from pipeline.training.train import make_adapter_float32, make_trainer, training_arguments

    if recipe.ours:
        return make_trainer(settings, model, tokenizer, examples, [], folder)
    arguments = training_arguments(settings, len(examples), False, folder)
    arguments.train_sampling_strategy = "random"
    arguments.save_strategy = "no"
    if recipe.engine == "transformers":
        arguments.loss_type = "chunked_nll"  # on a processor too, where ours has a loss of its own
    if not recipe.completions_only:
        arguments.completion_only_loss, arguments.loss_type = False, "nll"
        examples = [{"input_ids": example["input_ids"]} for example in examples]
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(list(examples)), processing_class=tokenizer
    )
    trainer.remove_callback(PrinterCallback)
    if settings.model.dtype == "float16":
        make_adapter_float32(model)
    return trainer


def measure(trainer: SFTTrainer, articles: int, settings: Settings, plan: Plan) -> dict:
    """Train, and say how fast and in how much memory, beside what the plan's formulas expect of the same settings."""
    import torch

    from pipeline.plan.estimate import estimate_memory, estimate_seconds

    cuda = plan.hardware.kind == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    share, steps = time_training(trainer, cuda)  # of all articles, trained in a second
    lengths = plan.lengths
    passes = articles * trainer.args.num_train_epochs
    tokens = sum(lengths.train.whole) * trainer.args.num_train_epochs * share
    flops = training_flops(settings, plan.architecture, lengths)
    expected = estimate_seconds(settings, plan.architecture, plan.hardware, lengths).get("training")
    return {
        "articles_per_second": round(passes * share, 3),
        "estimated_articles_per_second": [round(passes / seconds, 3) for seconds in reversed(expected)] if expected else None,
        "tokens_per_second": round(tokens, 1),
        "peak_memory": torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "estimated_memory": estimate_memory(settings, plan.architecture, plan.hardware, lengths)["training"],
        "matrix_share": round(tokens * flops / measure_matrix_rate(settings, cuda), 3),
        "steps": steps,
        "precision": "4-bit" if settings.model.load_in_4bit else settings.model.dtype,
        "batch": f"{settings.train.per_device_train_batch_size} x {settings.train.gradient_accumulation_steps}",
        "checkpointing": settings.train.gradient_checkpointing,
    }


def training_flops(settings: Settings, model: Architecture, lengths: Lengths) -> float:
    """Floating-point operations a trained token; what checkpointing does again is no work done. A multiply-add counts 2.

    Matrices: 2 a parameter forward, 2 backward (the base is frozen, so no weight gradients); LoRA's 6. Causal attention:
    2 x q x length a layer forward, twice that backward. Head: completion positions' share.
    """
    from pipeline.plan.estimate import adapter_parameters

    attention = 2 * model.query_size * lengths.mean * model.num_hidden_layers
    head = 2 * sum(lengths.train.answered) / max(1, sum(lengths.train.whole)) * model.vocab_size * model.hidden_size
    return 4 * model.matrix_parameters + 6 * adapter_parameters(settings, model) + 3 * attention + 3 * head


def time_training(trainer: SFTTrainer, cuda: bool) -> tuple[float, int]:
    """The share of the whole training done in a second, and its steps; the first `WARM_UP` steps are left out.

    On a CPU the clock is this process's own (`processor_clock`): what else the machine does must not count.
    """
    import torch
    from transformers import TrainerCallback

    clock, times = (time.perf_counter if cuda else processor_clock), []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if cuda:
                torch.cuda.synchronize()
            times.append(clock())

    trainer.args.save_strategy = "no"
    trainer.add_callback(Clock())
    trainer.train()
    return (len(times) - WARM_UP) / len(times) / (times[-1] - times[WARM_UP - 1]), len(times)


def processor_clock() -> float:
    """This process's processor seconds over its threads: the clock's seconds, were nothing else running."""
    import torch

    return time.process_time() / torch.get_num_threads()


def measure_matrix_rate(settings: Settings, cuda: bool) -> float:
    """FLOP/s of the best of several large square products in the model's precision."""
    import torch

    size, device = (8192, "cuda") if cuda else (1024, "cpu")
    matrix = torch.randn(size, size, device=device, dtype=getattr(torch, settings.model.dtype))
    clock, best = (time.perf_counter if cuda else processor_clock), float("inf")
    for _ in range(10):
        started = clock()
        matrix @ matrix
        if cuda:
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return 2 * size**3 / best


def measure_padding(trainer: SFTTrainer) -> float:
    """Share of the positions of an epoch's batches that are padding; none where examples are laid end to end."""
    positions = real = 0
    for batch in trainer.get_train_dataloader():
        positions += batch["input_ids"].numel()
        real += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
    return 1 - real / positions


def score_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    train: Sequence[Document],
    test: Sequence[Document],
    folder: Path,
) -> dict[str, float]:
    """F1 by task, and micro-averaged over all three."""
    from data.files import read_jsonl
    from eval.engines.huggingface import ask_model
    from eval.scoring.parse import parse_completions
    from eval.scoring.score import score_predictions
    from pipeline.plan.lengths import answer_budgets

    if "unsloth" in sys.modules:
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(model)
    path = ask_model(
        model,
        tokenizer,
        test,
        folder / "completions.jsonl",
        layout=settings.train.layout,
        max_new_tokens=answer_budgets(tokenizer, train),
        batch_tokens=settings.eval.batch_tokens,
    )
    metrics = score_predictions(test, parse_completions(row for _, row in read_jsonl(path)))
    return {task: round(metrics["tasks"][task]["f1"], 4) for task in TASKS} | {"micro": round(metrics["micro"]["f1"], 4)}
