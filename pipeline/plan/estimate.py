"""Memory and time of a job, counted from the shapes of model and data: what `pipeline.plan.decide` decides by.

Memory is counted as transformers and PEFT use it; what Unsloth saves of it has not been measured. Time is a count of operations
over the rates that a processor reached; a GPU's were never measured, so its time is not known. Settings must be resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data.prompts import Layout
from pipeline.config import Settings
from pipeline.plan.architectures import Architecture
from pipeline.plan.hardware import Device, GiB

# NF4 with double quantisation (QLoRA, Dettmers 2023): 4 bits, an 8-bit scale per 64 weights, a 32-bit one per 64 x 256.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# CUDA's context and cuBLAS workspaces; on a CPU, what torch, transformers, trl and peft take once imported (measured).
CONTEXT = {"cuda": int(0.8 * GiB), "cpu": int(0.6 * GiB)}
# Resident bytes for each that autograd keeps: the C library's allocator holds on to freed blocks (measured: 2.2, tiny model).
RESIDENT = {"cuda": 1, "cpu": 2}
LOSS_CHUNK = 256  # positions whose logits TRL's chunked_nll holds at once
# FLOP/s of one core in float32: 29 to 41 G were reached by the tiny model (bench/results/train-cpu.json).
CORE_FLOPS = (20e9, 80e9)
ANSWER_COST = (1, 10)  # an answer's token against one that is read: a decoding step reads all weights; a guess

Range = tuple[float, float]  # seconds, least and most


@dataclass(frozen=True)
class Chats:
    """Of each chat of a split: tokens that are read, tokens of its gold answers with their ends, and its document's id."""

    read: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def whole(self) -> tuple[int, ...]:
        return tuple(read + answer for read, answer in zip(self.read, self.answered, strict=True))


@dataclass(frozen=True)
class Lengths:
    """What a plan knows of the data. `budgets`: tokens that an answer may take, by task; `budget`: all answers of a chat."""

    train: Chats
    validation: Chats = Chats()
    test: Chats = Chats()
    budgets: dict[str, int] = field(default_factory=dict)
    budget: int = 0

    @property
    def longest_answering(self) -> int:
        """Positions of the longest chat of validation and test, its answers' budget included."""
        return max((*self.validation.read, *self.test.read), default=0) + self.budget


def chat_budget(budgets: Mapping[str, int], layout: Layout) -> int:
    """The most positions that a chat's answers take: one that spent its budget is still ended before the next question."""
    if layout == "conversation":
        return sum(budgets.values()) + max(len(budgets) - 1, 0)
    return max(budgets.values(), default=0)


def estimate_memory(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> dict[str, int]:
    """Bytes of one device by part; of "training" and "evaluation", which follow one another; and "peak", the larger."""
    longest, layers = max(lengths.train.whole, default=1), model.num_hidden_layers
    tokens = settings.train.per_device_train_batch_size * longest
    layer = tokens * layer_activations(settings, model, longest)
    # With checkpointing each layer's input is kept and one layer computed again. Either way, a layer's gradients.
    inputs = layers * tokens * model.hidden_size * element_bytes(settings)
    kept = 2 * layer + inputs if settings.train.gradient_checkpointing else (layers + 1) * layer
    # TRL's loss takes whole chunks, and a float32 copy of the head's matrix where that is 16-bit.
    copy = 0 if settings.model.dtype == "float32" else model.vocab_size * model.hidden_size * 6
    shared = {
        "context": CONTEXT[device.kind],
        "weights": weight_bytes(settings, model),
        # In float32 whatever the base is: weights, gradients and Adam's two moments, which may be 8-bit.
        "adapter": adapter_parameters(settings, model) * (4 + 4 + (2 if "8bit" in settings.train.optim else 8)),
    }
    training = {"activations": int(kept * RESIDENT[device.kind]), "loss": LOSS_CHUNK * model.vocab_size * 12 + copy}
    answering = {"answering": settings.eval.batch_tokens * position_bytes(settings, model)}
    sums = {name: sum((shared | parts).values()) for name, parts in (("training", training), ("evaluation", answering))}
    return shared | training | answering | sums | {"peak": max(sums.values())}


def element_bytes(settings: Settings) -> int:
    return 4 if settings.model.dtype == "float32" else 2


def weight_bytes(settings: Settings, model: Architecture) -> int:
    """4-bit leaves embedding and head as they are."""
    matrix = NF4_BYTES if settings.model.load_in_4bit else element_bytes(settings)
    return int(model.matrix_parameters * matrix + model.embedding_parameters * element_bytes(settings))


def adapter_parameters(settings: Settings, model: Architecture) -> int:
    """r x (inputs + outputs) of each adapted matrix."""
    sides = [sum(model.projections[name]) for name in settings.lora.target_modules if name in model.projections]
    return model.num_hidden_layers * settings.lora.r * sum(sides)


def layer_activations(settings: Settings, model: Architecture, longest: int) -> int:
    """Bytes a token and layer that the backward pass needs, in a batch padded to `longest`.

    Counted with torch's saved-tensor hooks on the tiny model (float32, and 16-bit under autocast, within 5 %): 16-bit norms
    keep their input in float32, each LoRA matrix its own copy of its input, and each layer the mask.
    """
    h, q, f, r = model.hidden_size, model.query_size, model.intermediate_size, settings.lora.r
    if settings.model.dtype == "float32":
        return 4 * (4 * h + 4 * q + 4 * f + 7 * r + longest)
    return 18 * h + 10 * q + 8 * f + 14 * r + 2 * longest


def position_bytes(settings: Settings, model: Architecture) -> int:
    """Of one position while answering: keys and values, twice (a batch that rows join is copied); one layer being read."""
    cache = 2 * 2 * model.num_hidden_layers * model.key_size
    return (cache + 3 * model.intermediate_size + 6 * model.hidden_size) * element_bytes(settings)


def estimate_seconds(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> dict[str, Range]:
    """What each part of the job takes on a processor, in the job's order. Empty for a GPU."""
    if device.kind == "cuda":
        return {}
    slow, fast = (rate * device.cores for rate in CORE_FLOPS)
    forward, epochs = token_flops(settings, model, lengths, training=False), settings.train.num_train_epochs

    def answering(chats: Chats, answer: int = 0) -> Range:
        """`answer`: the most tokens that all answers of a chat take; 0: as many as gold's."""
        longest = len(chats.read) * answer or sum(chats.answered)
        least = sum(chats.read) + ANSWER_COST[0] * sum(chats.answered)
        return least * forward / fast, (sum(chats.read) + ANSWER_COST[1] * longest) * forward / slow

    whole = lengths.train.whole
    step = settings.train.per_device_train_batch_size * settings.train.gradient_accumulation_steps * device.count
    seen = settings.train.max_steps * step if settings.train.max_steps > 0 else len(whole) * epochs
    flops = seen * sum(whole) / max(1, len(whole)) * token_flops(settings, model, lengths, training=True)
    flops += settings.train.evaluations * sum(lengths.validation.whole) * forward
    parts = {"training": (flops / fast, flops / slow)}
    if settings.eval.base_model:  # it may not know when to stop
        parts = {"untuned model on test": answering(lengths.test, lengths.budget)} | parts
    parts |= {f"adapter on {name}": answering(getattr(lengths, name)) for name in settings.eval.splits}
    if files := len(settings.export.gguf):
        low, high = answering(lengths.validation)
        parts["check of what is exported"] = (files * low, files * high)
    return parts


def token_flops(settings: Settings, model: Architecture, lengths: Lengths, *, training: bool) -> float:
    """Floating-point operations a token. A multiply-add counts 2.

    Matrices: 2 a parameter forward, 2 backward (the base is frozen, so no weight gradients), 2 again with checkpointing; LoRA's
    6. Causal attention: 2 x q x length a layer forward, twice that backward. Head: completion positions' share.
    """
    whole = lengths.train.whole
    attention = 2 * model.query_size * sum(whole) / max(1, len(whole)) * model.num_hidden_layers
    head = 2 * sum(lengths.train.answered) / max(1, sum(whole)) * model.vocab_size * model.hidden_size
    forward = 2 * model.matrix_parameters + attention
    if not training:
        return forward + head
    again = forward if settings.train.gradient_checkpointing else 0
    return forward + again + 2 * model.matrix_parameters + 2 * attention + 6 * adapter_parameters(settings, model) + 3 * head
