"""The vocabulary projection where it counts: logits of completion positions only, in training and in validation loss.

TRL's `chunked_nll` loss does this for plain transformers models. Unsloth's own loss projects every position, prompts
included: with 450 prompt and 30 completion tokens, 94 % of the head's work teaches nothing. `use_completion_head` gives an
Unsloth model a loss of this module. It has not been run on a GPU, so that it is off unless asked for; `bench/train.py`
measures both.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.plan.estimate import HEAD_CHUNK

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

HIDDEN_STATES = "UNSLOTH_RETURN_HIDDEN_STATES"  # with it, Unsloth's forward passes give hidden states in place of logits


def completion_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    *,
    softcap: float | None = None,
    chunk: int = HEAD_CHUNK,
) -> torch.Tensor:
    """Cross-entropy of the next token, of supervised positions alone: what a causal model's full loss is, with less work.

    hidden: [rows, positions, width]. head: [vocabulary, width]. labels: [rows, positions], -100 where nothing is to be learnt;
    position i is judged by label i + 1. `num_items`: what the sum is divided by, the supervised tokens of the whole optimiser
    step (over accumulation and devices); None: those of this batch. `softcap`: Gemma 2's bound on logits. A chunk's logits are
    computed again in the backward pass, so that one chunk's are held at a time.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    targets = labels[..., 1:].reshape(-1)
    counted = (targets != -100).nonzero()[:, 0]
    hidden = hidden[..., :-1, :].reshape(-1, hidden.shape[-1])[counted]
    targets = targets[counted]
    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32)) + 0 * hidden.sum()
    for start in range(0, len(targets), chunk):
        part = (hidden[start : start + chunk], head, targets[start : start + chunk], softcap)
        total = total + (checkpoint(_summed_loss, *part, use_reentrant=False) if len(targets) > chunk else _summed_loss(*part))
    return total / (max(len(targets), 1) if num_items is None else num_items)


def _summed_loss(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """In float32 at least, from logits of the model's own precision."""
    import torch
    from torch.nn.functional import cross_entropy, linear

    logits = linear(hidden.to(head.dtype), head)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return cross_entropy(logits, targets, reduction="sum")


def use_completion_head(model: PreTrainedModel) -> None:
    """Make `model` (a causal language model of Unsloth's, or one in a PEFT wrapper) compute its loss by `completion_loss`.

    Without labels its forward pass is as before, so that generating is untouched.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    original = causal.forward
    softcap = getattr(causal.config, "final_logit_softcapping", None)

    def forward(self, *arguments, labels=None, num_items_in_batch=None, **keywords):
        from transformers.modeling_outputs import CausalLMOutputWithPast

        if labels is None:
            return original(*arguments, **keywords)
        with hidden_states_for_logits():
            # Unsloth reads from the labels whether it trains; it returns before it uses them.
            hidden = original(*arguments, labels=labels, num_items_in_batch=num_items_in_batch, **keywords).logits
        if hidden.shape[-1] == causal.config.vocab_size != causal.config.hidden_size:
            raise RuntimeError(f"{type(causal).__name__} gave logits, not hidden states: this Unsloth has no {HIDDEN_STATES}")
        head = causal.get_output_embeddings().weight
        return CausalLMOutputWithPast(loss=completion_loss(hidden, head, labels, num_items_in_batch, softcap=softcap))

    causal.forward = types.MethodType(forward, causal)


@contextmanager
def hidden_states_for_logits() -> Iterator[None]:
    before = os.environ.get(HIDDEN_STATES)
    os.environ[HIDDEN_STATES] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[HIDDEN_STATES]
        else:
            os.environ[HIDDEN_STATES] = before
