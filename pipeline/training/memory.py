"""Training where memory runs out: smaller batches, and more of them a step, so that a step keeps its examples."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from eval.engines.decode_loop import is_out_of_memory
from pipeline.config import Settings
from pipeline.training.distributed import count_processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def train_within_memory(attempt: Callable[[Settings], T], settings: Settings, model: PreTrainedModel) -> T:
    """What `attempt` returns; it is made again with a smaller batch each time that memory runs out.

    An attempt goes on from the last checkpoint, or from the adapter as it is now. Raises RuntimeError where a batch of one
    example is too much, or several processes train: those cannot agree on another batch in the middle of a step.
    """
    adapter = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    while True:
        try:
            return attempt(settings)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # outside of the handler, whose traceback would keep the step's tensors
        settings = halve_batch(settings)
        train = settings.train
        print(
            f"WARNING: training ran out of memory; it goes on with train.per_device_train_batch_size="
            f"{train.per_device_train_batch_size}, train.gradient_accumulation_steps={train.gradient_accumulation_steps}: as "
            "many examples a step as before",
            file=sys.stderr,
        )
        free_memory(model, adapter)


def halve_batch(settings: Settings) -> Settings:
    """The settings with the next smaller batch that makes the same number of examples a step."""
    train = settings.train
    batch = train.per_device_train_batch_size
    if batch == 1 or count_processes() > 1:
        cure = "train.gradient_checkpointing=true, model.load_in_4bit=true or a lower model.max_length"
        raise RuntimeError(
            f"training ran out of memory with {batch} example{'s' * (batch > 1)} a batch; give --set "
            + (f"train.per_device_train_batch_size={max(1, batch // 2)}" if batch > 1 else cure)
            + ", and the same command goes on from the last checkpoint"
        )
    smaller = next(size for size in range(batch // 2, 0, -1) if batch % size == 0)
    return replace(
        settings,
        train=replace(
            train,
            per_device_train_batch_size=smaller,
            per_device_eval_batch_size=max(1, train.per_device_eval_batch_size * smaller // batch),
            gradient_accumulation_steps=train.gradient_accumulation_steps * batch // smaller,
        ),
    )


def free_memory(model: PreTrainedModel, adapter: dict) -> None:
    """Drop the gradients of a failed attempt, and put back the adapter's weights from before it."""
    import torch

    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in adapter:
                weight.copy_(adapter[name])
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
