"""Memory and time of a training and an evaluation, from the shapes of model and data: what `pipeline.plan.decide` decides by.

h, q, k, f: widths of the hidden state, of all query heads, of all key heads, and of the feed-forward layer. All sizes are bytes
of one device. Settings must be resolved: no None where the plan decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Settings
from pipeline.plan.architectures import Architecture
from pipeline.plan.hardware import Device, GiB

# NF4 with double quantisation (QLoRA, Dettmers 2023): 4 bits, an 8-bit scale per 64 weights, a 32-bit one per 64 x 256.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# CUDA's context and cuBLAS workspaces; on a CPU, what torch, transformers, trl and peft take once imported (measured).
CONTEXT = {"cuda": int(0.8 * GiB), "cpu": int(0.6 * GiB)}
# Resident bytes for each that autograd keeps: the C library's allocator holds on to freed blocks (measured: 2.2, tiny model).
RESIDENT = {"cuda": 1, "cpu": 2}
TRL_HEAD_CHUNK = 256  # positions whose logits TRL's chunked_nll holds at once
# Share of the matrix rate that is reached: guesses for GPUs, on none of which this was measured.
EFFICIENCY = {"unsloth": 0.45, "transformers": 0.30}
CPU_EFFICIENCY = 0.25  # fitted, with the next line, to bench/results/train-cpu.json; not tried on another machine
LAUNCH_SECONDS = {"cuda": 1e-3, "cpu": 2e-3}  # a layer's kernel launches in Python, one pass


@dataclass(frozen=True)
class Lengths:
    """Token counts: of each training and validation example; of what the loss counts in each training example; and of each
    chat to be answered, its answers' budgets included. A part that is not known may be empty."""

    train: tuple[int, ...]
    supervised: tuple[int, ...] = ()
    validation: tuple[int, ...] = ()
    answering: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        return max((*self.train, *self.validation, *self.answering), default=1)

    @property
    def answered(self) -> tuple[int, ...]:
        return self.answering or self.validation or self.train


@dataclass(frozen=True)
class Memory:
    """Bytes by part. `training` and `evaluation` are held one after the other; `peak` is the larger."""

    context: int
    weights: int
    adapter: int
    optimizer: int
    activations: int
    workspace: int
    head: int
    cache: int
    reading: int

    @property
    def training(self) -> int:
        return self.context + self.weights + self.adapter + self.optimizer + self.activations + self.workspace + self.head

    @property
    def evaluation(self) -> int:
        return self.context + self.weights + self.adapter + self.cache + self.reading

    @property
    def peak(self) -> int:
        return max(self.training, self.evaluation)


@dataclass(frozen=True)
class Seconds:
    """`training` with its validation losses; `evaluation` of one split of as many chats as `Lengths.answered`."""

    step: float
    training: float
    evaluation: float


def estimate_memory(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Memory:
    tokens = largest_batch(lengths.train, settings.train.per_device_train_batch_size, device.engine)
    layer = layer_activations(settings, model, device, max(lengths.train, default=1)) * tokens
    kept = layer * model.num_hidden_layers
    if settings.train.gradient_checkpointing:
        # Each layer's input, and one layer computed again; Unsloth keeps the inputs in the machine's memory, two on the device.
        inputs = 2 if device.engine == "unsloth" else model.num_hidden_layers
        kept = tokens * model.hidden_size * element_bytes(settings) * inputs + layer
    largest = max(inputs * outputs for inputs, outputs in model.projections.values())
    gradients = tokens * (3 * model.intermediate_size + 2 * model.hidden_size) * element_bytes(settings)
    return Memory(
        context=CONTEXT[device.kind],
        weights=weight_bytes(settings, model),
        adapter=4 * adapter_parameters(settings, model),  # float32 whatever the base is
        optimizer=adapter_parameters(settings, model) * (4 + optimizer_bytes(settings.train.optim)),
        activations=int(kept * RESIDENT[device.kind]),
        workspace=int(
            gradients * RESIDENT[device.kind] + (largest * element_bytes(settings) if settings.model.load_in_4bit else 0)
        ),
        head=head_bytes(settings, model, device, lengths),
        cache=int(settings.eval.batch_tokens * cache_bytes(settings, model)),
        reading=int(settings.eval.batch_tokens * reading_bytes(settings, model, max(lengths.answered))),
    )


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


def optimizer_bytes(optim: str) -> int:
    """Adam's two moments a parameter, in float32 or 8-bit."""
    return 2 if "8bit" in optim else 8


def largest_batch(lengths: Sequence[int], batch: int, engine: str) -> int:
    """Tokens of the batch of the longest examples, which batching by length makes; Unsloth lays them end to end, unpadded."""
    longest = sorted(lengths, reverse=True)[:batch]
    return sum(longest) if engine == "unsloth" else len(longest) * max(longest, default=0)


def layer_activations(settings: Settings, model: Architecture, device: Device, longest: int) -> int:
    """Bytes a token and layer that the backward pass needs, in a batch padded to `longest`.

    transformers + PEFT: counted with torch's saved-tensor hooks on the tiny model (float32, and 16-bit under autocast, within
    5 %): 16-bit norms keep their input in float32, and each LoRA matrix its own copy of its input; keys and values are repeated
    for every query head where there is a mask, and each layer keeps the mask. Unsloth: read from its kernels (inputs of norms
    and of the fused LoRA blocks, queries, keys, values, attention output, gate and up), not measured.
    """
    h, q, k, f, r = model.hidden_size, model.query_size, model.key_size, model.intermediate_size, settings.lora.r
    if device.engine == "unsloth":
        return element_bytes(settings) * (4 * h + 2 * q + 2 * k + 2 * f)
    if settings.model.dtype == "float32":
        return 4 * (4 * h + 4 * q + 4 * f + 7 * r + longest)
    return 18 * h + 10 * q + 8 * f + 14 * r + 2 * longest


def head_bytes(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> int:
    """Logits of completion positions only, a chunk at a time: 16-bit, float32, and float32 gradient."""
    counted = sum(sorted(lengths.supervised or lengths.train, reverse=True)[: settings.train.per_device_train_batch_size])
    if device.engine == "unsloth":
        return counted * model.vocab_size * 10
    # TRL takes whole chunks, and a float32 copy of the head's matrix where that is 16-bit.
    copy = 0 if settings.model.dtype == "float32" else model.vocab_size * model.hidden_size * 6
    return TRL_HEAD_CHUNK * model.vocab_size * 12 + copy


def cache_bytes(settings: Settings, model: Architecture) -> int:
    """A position's keys and values, twice: rows that join a batch are copied, with those in it, into the next one's cache."""
    return 2 * 2 * model.num_hidden_layers * model.key_size * element_bytes(settings)


def reading_bytes(settings: Settings, model: Architecture, longest: int) -> int:
    """A position's share while prompts are read: one layer's feed-forward and norms, and a row's logits thrice over."""
    layer = (3 * model.intermediate_size + 6 * model.hidden_size) * element_bytes(settings)
    return layer + 10 * model.vocab_size // longest


def estimate_seconds(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Seconds:
    batch, examples = settings.train.per_device_train_batch_size, max(1, len(lengths.train))
    mean = sum(lengths.train) / examples
    micro = batch * mean * token_flops(settings, model, lengths, training=True) / reached_rate(device)
    passes = 3 if settings.train.gradient_checkpointing else 2
    micro += passes * (launch_seconds(model, device) + dequantise_seconds(settings, model, device))
    step = micro * settings.train.gradient_accumulation_steps
    per_step = batch * settings.train.gradient_accumulation_steps * device.count
    steps = settings.train.max_steps if settings.train.max_steps > 0 else settings.train.num_train_epochs * examples / per_step
    checks = settings.train.evaluations * sum(lengths.validation) / device.count
    validation = checks * token_flops(settings, model, lengths, training=False) / reached_rate(device)
    return Seconds(step, steps * step + validation, evaluation_seconds(settings, model, device, lengths))


def token_flops(settings: Settings, model: Architecture, lengths: Lengths, *, training: bool) -> float:
    """Floating-point operations a token. A multiply-add counts 2.

    Matrices: 2 a parameter forward, 2 backward (the base is frozen, so no weight gradients), 2 again with checkpointing; LoRA's
    6. Causal attention: 2 x q x length a layer forward, twice that backward. Head: completion positions' share.
    """
    examples = max(1, len(lengths.train))
    mean = sum(lengths.train) / examples
    attention = 2 * model.query_size * mean * model.num_hidden_layers
    share = sum(lengths.supervised) / max(1, sum(lengths.train)) if lengths.supervised else 1.0
    head = 2 * share * model.vocab_size * model.hidden_size
    forward = 2 * model.matrix_parameters + attention
    if not training:
        return forward + head
    again = forward if settings.train.gradient_checkpointing else 0
    return forward + again + 2 * model.matrix_parameters + 2 * attention + 6 * adapter_parameters(settings, model) + 3 * head


def evaluation_seconds(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> float:
    """Reading every prompt once, and as many decoding steps a batch as its longest answers take (twice the mean one).

    A decoding step reads all weights and the cache once, or is bound by its kernel launches.
    """
    chats = lengths.answered
    batches = max(1.0, sum(chats) / settings.eval.batch_tokens)
    answer = sum(lengths.supervised) / len(lengths.supervised) if lengths.supervised else 0.1 * sum(chats) / len(chats)
    moved = weight_bytes(settings, model) + min(sum(chats), settings.eval.batch_tokens) * cache_bytes(settings, model)
    step = max(moved / device.bandwidth, 2 * launch_seconds(model, device))
    reading = sum(chats) * 2 * model.matrix_parameters / reached_rate(device)
    return reading + batches * 2 * answer * (step + dequantise_seconds(settings, model, device))


def reached_rate(device: Device) -> float:
    return device.matrix_rate * (CPU_EFFICIENCY if device.kind == "cpu" else EFFICIENCY[device.engine])


def launch_seconds(model: Architecture, device: Device) -> float:
    return model.num_hidden_layers * LAUNCH_SECONDS[device.kind]


def dequantise_seconds(settings: Settings, model: Architecture, device: Device) -> float:
    """4-bit weights are read, and written and read again as 16-bit, once a pass."""
    return model.matrix_parameters * (NF4_BYTES + 4) / device.bandwidth if settings.model.load_in_4bit else 0.0
