"""The plan: precision, batch, checkpointing and lengths for a device, a model and the data, before anything is loaded.

    make_plan(settings, find_architecture(settings.model.name), detect_device(), lengths)

fills every setting that was left to it, keeps those that were given, and refuses what cannot fit. `medner plan` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from data.schema import InputError
from pipeline.config import PROJECTIONS, Settings, apply_settings, flatten
from pipeline.plan.architectures import Architecture
from pipeline.plan.estimate import Lengths, Range, estimate_memory, estimate_seconds, position_bytes, weight_bytes
from pipeline.plan.hardware import Device, GiB

# The rest is for the allocator's fragments and the estimate's error, which no GPU has shown yet; on a CPU, for other programs.
USABLE = {"cuda": 0.85, "cpu": 0.7}
# Tokens of one forward pass: enough to keep a GPU's matrix units busy, and as many as are of use. A CPU's caches hold few.
ENOUGH = 2048
MOST = {"cuda": 16384, "cpu": 2048}
CROWDED = 0.4  # a larger share of a GPU's memory is not spent on 16-bit weights
EVALUATION_ROWS = {"cuda": 256, "cpu": 32}


@dataclass(frozen=True)
class Plan:
    """`settings` holds no None where the plan decides. `memory` in bytes and `seconds`, least and most, by part: estimates.

    `warnings`: what will be slower or riskier than it needs to be.
    """

    settings: Settings
    architecture: Architecture
    hardware: Device
    lengths: Lengths
    memory: dict[str, int]
    seconds: dict[str, Range]
    warnings: tuple[str, ...]


def make_plan(settings: Settings, architecture: Architecture, device: Device, lengths: Lengths) -> Plan:
    """Raises InputError, naming the setting to change, where nothing fits or settings contradict each other."""
    check_settings(settings, device)
    settings = settle_length(settings, architecture, lengths)
    found = choose(settings, architecture, device, lengths)
    if found is None:
        raise InputError(describe_misfit(settings, architecture, device, lengths))
    memory, seconds = (estimate(found, architecture, device, lengths) for estimate in (estimate_memory, estimate_seconds))
    return Plan(found, architecture, device, lengths, memory, seconds, tuple(find_warnings(found, device)))


def check_settings(settings: Settings, device: Device) -> None:
    train = settings.train
    if settings.model.dtype == "bfloat16" and not device.bfloat16:
        raise InputError(f"model.dtype=bfloat16: {device.name} has no bfloat16; use model.dtype=float16 or leave it out")
    if settings.model.dtype == "float16" and device.kind == "cpu":
        raise InputError("model.dtype=float16: a CPU trains in float32 or bfloat16; leave model.dtype out")
    given = [n for n in (train.per_device_train_batch_size, train.gradient_accumulation_steps) if n is not None]
    share = device.count * (given[0] if given else 1)
    if len(given) < 2 and train.effective_batch_size % share:  # both given: their product is what the user wants
        raise InputError(
            f"train.effective_batch_size={train.effective_batch_size} is no multiple of {share} (devices x what is set of "
            f"train.per_device_train_batch_size and train.gradient_accumulation_steps); change one of them"
        )


def settle_length(settings: Settings, model: Architecture, lengths: Lengths) -> Settings:
    """`model.max_length`, unless given: the longest of all, in whole 64s as matrix units like them.

    Raises InputError naming the documents that are longer: TRL would cut off their answers, and Unsloth what it reads.
    """
    most = model.max_position_embeddings
    limit = min(settings.model.max_length or most, most)
    for chats in (lengths.train, lengths.validation):
        refuse_long(chats.whole, chats.owners, limit, most)
    for chats in (lengths.validation, lengths.test):
        refuse_long([read + lengths.budget for read in chats.read], chats.owners, limit, most, lengths.budget)
    longest = max((*lengths.train.whole, *lengths.validation.whole, lengths.longest_answering))
    return apply_settings({"model.max_length": settings.model.max_length or min(-(-longest // 64) * 64, most)}, settings)


def refuse_long(sizes: Sequence[int], owners: Sequence[str], limit: int, positions: int, budget: int = 0) -> None:
    """Raises InputError naming the documents of more than `limit` tokens; `positions`: those of the model."""
    long = sorted(((size, owner) for size, owner in zip(sizes, owners, strict=True) if size > limit), reverse=True)
    if not long:
        return
    named = ", ".join(f"{owner} ({size})" for size, owner in long[:5]) + (f" and {len(long) - 5} more" if len(long) > 5 else "")
    what = f"{len(long)} chats, {budget} tokens for their answers included," if budget else f"{len(long)} examples"
    of = f"model.max_length={limit} tokens" if limit < positions else f"the model's {limit} positions"
    cures = [f"raise it (--set model.max_length={long[0][0]})"] * (limit < positions)
    cures += ["set a lower eval.max_new_tokens"] * bool(budget) + ["take these documents out"]
    raise InputError(f"{what} are longer than {of}: {named}\n{' or '.join(cures)}")


def choose(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Settings | None:
    """The first candidate that fits and reads enough tokens at once, else the one with the largest batch that fits."""
    largest, mean = None, sum(lengths.train.whole) / max(1, len(lengths.train.whole))
    for one in candidates(settings, model, device, lengths):
        if estimate_memory(one, model, device, lengths)["peak"] > usable(device):
            continue
        batch = one.train.per_device_train_batch_size
        if one.train.gradient_accumulation_steps == 1 or batch * mean >= ENOUGH:
            return one
        largest = one if largest is None or batch > largest.train.per_device_train_batch_size else largest
    return largest


def candidates(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Iterator[Settings]:
    """Fastest first: 16-bit (a CPU: float32) without checkpointing, 4-bit without, 16-bit with, 4-bit with; large batches.

    Unless asked for, 16-bit is left out where its weights crowd the card. Answering takes the room beside the weights.
    """
    dtype = "float32" if device.kind == "cpu" else "bfloat16" if device.bfloat16 else "float16"
    longest = max(lengths.longest_answering, 1)
    four_bits = (False, True) if device.kind == "cuda" else (False,)
    for checkpointing, four_bit, (batch, accumulation) in product((False, True), four_bits, batches(settings, device, lengths)):
        decided = {"model.dtype": dtype, "model.load_in_4bit": four_bit, "train.gradient_checkpointing": checkpointing}
        decided |= {"train.per_device_train_batch_size": batch, "train.gradient_accumulation_steps": accumulation}
        one = fill(settings, decided | {"train.per_device_eval_batch_size": batch})
        crowded = device.kind == "cuda" and weight_bytes(one, model) > CROWDED * usable(device)
        if crowded and not one.model.load_in_4bit and settings.model.load_in_4bit is None:
            continue
        room = usable(device) - weight_bytes(one, model) - 2 * GiB
        fits = min(EVALUATION_ROWS[device.kind] * longest, max(room, 0) // position_bytes(one, model))
        yield fill(one, {"eval.batch_tokens": max(fits, longest)})


def fill(settings: Settings, wanted: dict[str, object]) -> Settings:
    """`settings` with those wanted values whose settings were left open."""
    given = flatten(settings)
    return apply_settings({name: value for name, value in wanted.items() if given[name] is None}, settings)


def batches(settings: Settings, device: Device, lengths: Lengths) -> list[tuple[int, int]]:
    """(batch, accumulation) that make the effective batch, largest batch first; just one where one is given."""
    batch, accumulation = settings.train.per_device_train_batch_size, settings.train.gradient_accumulation_steps
    share = settings.train.effective_batch_size // device.count
    if batch or accumulation:
        return [(batch or share // accumulation, accumulation or share // batch)]
    most = max(1, MOST[device.kind] // max(lengths.train.whole, default=1))
    return [(one, share // one) for one in range(share, 0, -1) if share % one == 0 and one <= most]


def usable(device: Device) -> int:
    return int(device.memory * USABLE[device.kind])


def describe_misfit(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> str:
    """What the least demanding candidate needs, and what was set that may be in its way, else a smaller model."""
    *_, last = candidates(settings, model, device, lengths)
    memory = {name: size / GiB for name, size in estimate_memory(last, model, device, lengths).items()}
    thrifty = {"model.load_in_4bit": True, "train.gradient_checkpointing": True, "train.per_device_train_batch_size": 1}
    thrifty |= {"train.gradient_accumulation_steps": None, "eval.batch_tokens": None, "model.dtype": None}
    given = flatten(settings)
    freed = [name for name, value in thrifty.items() if given[name] not in (None, value)]
    fits = choose(apply_settings(dict.fromkeys(freed), settings), model, device, lengths)
    cure = f"leave out {', '.join(freed)}" if freed and fits else "take a smaller model, or the longest articles out"
    return (
        f"model.name={model.name} needs about {memory['peak']:.1f} GiB (weights {memory['weights']:.1f}; training "
        f"{memory['training']:.1f} or evaluation {memory['evaluation']:.1f} in all); {device.name} has "
        f"{usable(device) / GiB:.1f} usable\n{cure}"
    )


def find_warnings(settings: Settings, device: Device) -> Iterator[str]:
    if device.engine == "unsloth":
        yield from leaves_fused_path(settings)
    train = settings.train
    given = train.per_device_train_batch_size * train.gradient_accumulation_steps * device.count
    if given != train.effective_batch_size:
        yield f"the batch set makes {given} examples a step, not train.effective_batch_size={train.effective_batch_size}"


def leaves_fused_path(settings: Settings) -> Iterator[str]:
    """Settings with which Unsloth falls back from its fused LoRA kernels."""
    missing = [name for name in PROJECTIONS if name not in settings.lora.target_modules]
    if settings.lora.bias != "none":
        yield f"lora.bias={settings.lora.bias}: Unsloth's fused LoRA kernels need none"
    if missing:
        yield f"lora.target_modules lacks {', '.join(missing)}: Unsloth's fused LoRA kernels need all seven"
    if settings.model.dtype == "float32":
        yield "model.dtype=float32: Unsloth's fused LoRA kernels need 16-bit"
