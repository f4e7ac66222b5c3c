"""The plan: precision, batch, checkpointing and lengths for a device, a model and the data, before anything is loaded.

    make_plan(settings, find_architecture(settings.model.name), detect_device(), Lengths(train=(480, 512, …)))

fills every setting that was left to it, keeps those that were given, and refuses what cannot fit. `medner plan` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data.schema import InputError
from pipeline.config import PROJECTIONS, Explicit, Settings, apply_settings
from pipeline.plan.architectures import Architecture
from pipeline.plan.estimate import (
    Lengths,
    Memory,
    Seconds,
    cache_bytes,
    estimate_memory,
    estimate_seconds,
    reading_bytes,
    weight_bytes,
)
from pipeline.plan.hardware import Device, GiB

# The rest is for the allocator's fragments and the estimate's error, which no GPU has shown yet; on a CPU, for other programs.
USABLE = {"cuda": 0.85, "cpu": 0.7}
# Tokens of one forward pass: enough to keep a GPU's matrix units busy, and as many as are of use. A CPU's caches hold few.
ENOUGH = 2048
MOST = {"cuda": 16384, "cpu": 2048}
CROWDED = 0.4  # a larger share of a GPU's memory is not spent on 16-bit weights: activations and answering need the rest
EVALUATION_ROWS = {"cuda": 256, "cpu": 32}


@dataclass(frozen=True)
class Plan:
    """`settings` holds no None where the plan decides. `warnings`: what will be slower or riskier than it needs to be."""

    settings: Settings
    architecture: Architecture
    hardware: Device
    lengths: Lengths
    memory: Memory
    seconds: Seconds
    warnings: tuple[str, ...]

    @property
    def device(self) -> str:
        return self.hardware.name

    @property
    def engine(self) -> str:
        return self.hardware.engine


def make_plan(settings: Settings, architecture: Architecture, device: Device, lengths: Lengths) -> Plan:
    """Raises InputError, naming the setting to change, where nothing fits or settings contradict each other."""
    check_settings(settings, device)
    settings = with_lengths(settings, architecture, lengths)
    found = choose(settings, architecture, device, lengths)
    if found is None:
        raise InputError(describe_misfit(settings, architecture, device, lengths))
    memory = estimate_memory(found, architecture, device, lengths)
    seconds = estimate_seconds(found, architecture, device, lengths)
    warnings = tuple(find_warnings(found, architecture, device, lengths))
    return Plan(found, architecture, device, lengths, memory, seconds, warnings)


def check_settings(settings: Settings, device: Device) -> None:
    train = settings.train
    if settings.model.dtype == "bfloat16" and not device.bfloat16:
        raise InputError(f"model.dtype=bfloat16: {device.name} has no bfloat16; use model.dtype=float16 or leave it out")
    if settings.model.dtype == "float16" and device.kind == "cpu":
        raise InputError("model.dtype=float16: a CPU trains in float32 or bfloat16; leave model.dtype out")
    given = [n for n in (train.per_device_train_batch_size, train.gradient_accumulation_steps) if n is not None]
    if len(given) == 2:
        return  # both explicit: their product is what the user wants
    share = device.count * (given[0] if given else 1)
    if share < 1 or train.effective_batch_size % share:
        raise InputError(
            f"train.effective_batch_size={train.effective_batch_size} is no multiple of {share} (devices x what is set of "
            f"train.per_device_train_batch_size and train.gradient_accumulation_steps); change one of them"
        )


def with_lengths(settings: Settings, model: Architecture, lengths: Lengths) -> Settings:
    """`model.max_length`, unless given: the longest of all, in whole 64s as matrix units like them."""
    if lengths.longest > model.max_position_embeddings:
        raise InputError(
            f"the longest example or chat takes {lengths.longest} tokens; model.name={model.name} has "
            f"{model.max_position_embeddings} positions: take longer articles out, or lower eval.max_new_tokens"
        )
    rounded = min(-(-lengths.longest // 64) * 64, model.max_position_embeddings)
    return apply_settings({"model.max_length": settings.model.max_length or rounded}, settings)


def choose(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Settings | None:
    """The first of `options` that fits with a batch large enough, else the one that fits with the largest."""
    best, most = None, 0
    for option in options(settings, model, device):
        option = largest_fitting(option, model, device, lengths)
        if option is None:
            continue
        batch = option.train.per_device_train_batch_size
        tokens = batch * sum(lengths.train) / max(1, len(lengths.train))
        whole = option.train.gradient_accumulation_steps == 1
        if whole or tokens >= ENOUGH or device.kind == "cpu":
            return option
        if tokens > most:
            best, most = option, tokens
    return best


def options(settings: Settings, model: Architecture, device: Device) -> Iterator[Settings]:
    """Fastest first: 16-bit (a CPU: float32) without checkpointing, 4-bit without, 16-bit with, 4-bit with.

    Unless asked for, 16-bit is left out where its weights alone would crowd the card.
    """
    kind = "float32" if device.kind == "cpu" else "bfloat16" if device.bfloat16 else "float16"
    fixed = {"model.dtype": settings.model.dtype or kind}
    for checkpointing in (False, True):
        for four_bit in (False, True) if device.kind == "cuda" else (False,):
            option: Explicit = fixed | {
                "model.load_in_4bit": four_bit if settings.model.load_in_4bit is None else settings.model.load_in_4bit,
                "train.gradient_checkpointing": checkpointing
                if settings.train.gradient_checkpointing is None
                else settings.train.gradient_checkpointing,
            }
            chosen = apply_settings(option, settings)
            crowded = device.kind == "cuda" and weight_bytes(chosen, model) > CROWDED * usable(device)
            if settings.model.load_in_4bit is not None or chosen.model.load_in_4bit or not crowded:
                yield chosen


def largest_fitting(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Settings | None:
    """`settings` with the largest batch that fits in memory and is of use, and evaluation's batches."""
    for batch, accumulation in batches(settings, device, lengths):
        sized = apply_settings(
            {"train.per_device_train_batch_size": batch, "train.gradient_accumulation_steps": accumulation}, settings
        )
        sized = with_evaluation(sized, model, device, lengths)
        if estimate_memory(sized, model, device, lengths).peak <= usable(device):
            return sized
    return None


def batches(settings: Settings, device: Device, lengths: Lengths) -> Iterator[tuple[int, int]]:
    """(batch, accumulation) that make the effective batch, largest batch first; just one where both are given."""
    batch, accumulation = settings.train.per_device_train_batch_size, settings.train.gradient_accumulation_steps
    if batch and accumulation:
        yield batch, accumulation
        return
    share = settings.train.effective_batch_size // device.count
    if batch or accumulation:
        yield batch or share // accumulation, accumulation or share // batch
        return
    for size in range(share, 0, -1):
        if share % size == 0 and (size == 1 or size * max(lengths.train, default=1) <= MOST[device.kind]):
            yield size, share // size


def with_evaluation(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Settings:
    """Batches of validation loss, which keeps no activations, and of answering, which keeps keys and values."""
    train_batch, longest = settings.train.per_device_train_batch_size, max(lengths.validation or lengths.train, default=1)
    most = max(train_batch, min(4 * train_batch, MOST[device.kind] // longest))
    longest = max(lengths.answered, default=1)
    position = cache_bytes(settings, model) + reading_bytes(settings, model, longest)
    room = usable(device) - weight_bytes(settings, model) - 2 * GiB
    fits = int(min(EVALUATION_ROWS[device.kind] * longest, max(room, 0) // position))
    chosen = {
        "train.per_device_eval_batch_size": settings.train.per_device_eval_batch_size or most,
        "eval.batch_tokens": settings.eval.batch_tokens or max(fits, longest),
    }
    return apply_settings(chosen, settings)


def usable(device: Device) -> int:
    return int(device.memory * USABLE[device.kind])


def describe_misfit(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> str:
    """What the least demanding option needs, and the given setting whose release would make room, else a smaller model."""
    *_, last = options(settings, model, device)
    size, accumulation = list(batches(last, device, lengths))[-1]
    last = apply_settings({"train.per_device_train_batch_size": size, "train.gradient_accumulation_steps": accumulation}, last)
    last = with_evaluation(last, model, device, lengths)
    memory = estimate_memory(last, model, device, lengths)
    weights, training, evaluation = (part / GiB for part in (memory.weights, memory.training, memory.evaluation))
    need = f"model.name={model.name} needs about {memory.peak / GiB:.1f} GiB (weights {weights:.1f}; training {training:.1f} "
    need += f"or evaluation {evaluation:.1f} in all); {device.name} has {usable(device) / GiB:.1f} usable"
    releases: dict[str, Explicit] = {
        "model.load_in_4bit=true": {"model.load_in_4bit": True},
        "train.gradient_checkpointing=true": {"train.gradient_checkpointing": True},
        "train.per_device_train_batch_size=1": {
            "train.per_device_train_batch_size": 1,
            "train.gradient_accumulation_steps": settings.train.effective_batch_size // device.count,
        },
        "model.dtype=float16 (or bfloat16)": {"model.dtype": "bfloat16" if device.bfloat16 else "float16"},
        f"eval.batch_tokens={max(lengths.answered, default=1)}": {"eval.batch_tokens": max(lengths.answered, default=1)},
    }
    for cure, change in releases.items():
        if choose(apply_settings(change, settings), model, device, lengths):
            return f"{need}\nset {cure}"
    return f"{need}\nset model.name to a smaller model, or take out the longest articles ({lengths.longest} tokens)"


def find_warnings(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Iterator[str]:
    if lengths.longest > settings.model.max_length:
        yield f"model.max_length={settings.model.max_length}: the longest example or chat takes {lengths.longest} tokens"
    if device.engine == "unsloth":
        yield from leaves_fused_path(settings)
    if device.kind == "cuda" and not device.rated:
        yield f"{device.name} is not in the table; its speed is taken from the slowest known card of its generation"
    if settings.model.dtype == "float16" and model.model_type.startswith("gemma"):
        yield "Gemma overflows in float16; Unsloth computes parts of it in float32, which is slower and takes more memory"
    train = settings.train
    given = train.per_device_train_batch_size * train.gradient_accumulation_steps * device.count
    if given != train.effective_batch_size:
        yield f"the batch set makes {given} examples a step, not train.effective_batch_size={train.effective_batch_size}"


def leaves_fused_path(settings: Settings) -> Iterator[str]:
    """Settings with which Unsloth falls back from its fused LoRA kernels."""
    lora = settings.lora
    if lora.bias != "none":
        yield f"lora.bias={lora.bias}: Unsloth's fused LoRA kernels need none; training is slower"
    if lora.lora_dropout:
        yield f"lora.lora_dropout={lora.lora_dropout}: Unsloth's fused LoRA kernels are fastest with 0"
    missing = [name for name in PROJECTIONS if name not in lora.target_modules]
    if missing:
        yield f"lora.target_modules lacks {', '.join(missing)}: Unsloth's fused LoRA kernels need all seven; training is slower"
    if settings.model.dtype == "float32":
        yield "model.dtype=float32: Unsloth's fused LoRA kernels need 16-bit; training is slower"
