"""The loss on a processor: the head reads only the positions that predict an answer's token.

TRL's chunked loss has the head read 256 positions where an answer has a hundred tokens, and each of them twice. It also counts
what is shown nowhere, for which all processes wait for each other at every batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import Trainer

if TYPE_CHECKING:
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from trl import SFTTrainer

IGNORED = -100


def read_answers_alone(trainer: SFTTrainer) -> None:
    """Let `trainer`, whose loss_type is "nll", compute its loss so: TRL's, in float32; a bfloat16 head stays so."""

    def compute_loss(model, inputs, return_outputs=False, num_items_in_batch=None):
        told = functional.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]  # the token that each position predicts
        predicting = (told != IGNORED).any(0).nonzero()[:, 0]  # of any row
        kept = {**inputs, "labels": told[:, predicting], "logits_to_keep": predicting, "use_cache": False}
        return Trainer.compute_loss(trainer, model, kept, return_outputs, num_items_in_batch)

    trainer.compute_loss_func = answers_loss
    trainer.compute_loss = compute_loss


def answers_loss(
    outputs: CausalLMOutputWithPast, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy over the answers' tokens of the whole optimiser step, or their mean in this batch.

    outputs.logits: [rows, positions, vocabulary]; labels: [rows, positions], what each position predicts, -100 where nothing.
    """
    total = functional.cross_entropy(
        outputs.logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / ((labels != IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
