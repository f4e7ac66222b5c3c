"""The plan: precision, batch, checkpointing and lengths for a device, a model and the data, before anything is loaded.

    make_plan(settings, find_architecture(settings.model.name), detect_device(), lengths)

fills every setting that was left to it, keeps those that were given, and refuses what cannot fit. `medner plan` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from data.corpus import read_corpus
from data.schema import InputError
from data.split import split_documents
from pipeline.config import Settings, apply_settings, flatten
from pipeline.plan.architectures import Architecture, find_architecture
from pipeline.plan.estimate import Range, estimate_disk, estimate_memory, estimate_seconds, position_bytes, weight_bytes
from pipeline.plan.hardware import Device, GiB, detect_device, named_device
from pipeline.plan.lengths import Lengths, estimate_lengths, refuse_long, usual_lengths
from pipeline.unsloth_model import leaves_fused_path

# None of these was measured on a GPU. The rest of the memory is for the allocator's fragments and the estimate's error.
USABLE = {"cuda": 0.85, "cpu": 0.7}
ENOUGH = 2048  # tokens of a forward pass that keep a GPU's matrix units busy; a CPU's caches take no more, in float32
SMALL = 50e6  # parameters of a model that a processor trains in float32, so that its figures are the same on each
EVALUATION_ROWS = {"cuda": 256, "cpu": 32}
# (4-bit, checkpointing), fastest first: what is quantised or computed again takes time.
WAYS = {"cuda": ((False, False), (True, False), (True, True)), "cpu": ((False, False), (False, True))}


@dataclass(frozen=True)
class Plan:
    """What a job would do: `settings` without a None where the plan decides, and what was counted, `memory` in bytes by part,
    `disk` in bytes, `seconds` (least, most) by part. `warnings`: what will be slower or riskier than it needs to be.
    """

    settings: Settings
    architecture: Architecture
    hardware: Device
    lengths: Lengths
    memory: dict[str, int]
    disk: int
    seconds: dict[str, Range]
    warnings: tuple[str, ...]


def plan_corpus(settings: Settings, files: Mapping[str, Path], gpu: str | None) -> Plan:
    """The plan for a corpus. Raises InputError if nothing fits.

    `files`: a corpus to split ("file"), or one a split; none: 1,000 usual abstracts.
    """
    device = named_device(gpu) if gpu else detect_device()
    architecture = find_architecture(settings.model.name, settings.model.revision)
    corpora = {name: read_corpus(path).documents for name, path in files.items()}
    split = split_documents(corpora["file"], settings.data.seed) if "file" in corpora else corpora
    return make_plan(settings, architecture, device, estimate_lengths(split, settings) if split else usual_lengths())


def make_plan(settings: Settings, architecture: Architecture, device: Device, lengths: Lengths) -> Plan:
    """The plan of a job. Raises InputError, naming the setting to change, where nothing fits or settings contradict."""
    check_settings(settings, device)
    layers = architecture.num_hidden_layers
    if (settings.lora.last_layers or 0) > layers:
        raise InputError(f"lora.last_layers={settings.lora.last_layers}: {architecture.name} has {layers} layers")
    settings = settle_length(settings, architecture.max_position_embeddings, lengths)
    found = choose_settings(settings, architecture, device, lengths)
    if found is None:
        raise InputError(describe_misfit(settings, architecture, device, lengths))
    memory, seconds = (estimate(found, architecture, device, lengths) for estimate in (estimate_memory, estimate_seconds))
    disk, warnings = estimate_disk(found, architecture), tuple(find_warnings(found, device))
    return Plan(found, architecture, device, lengths, memory, disk, seconds, warnings)


def check_settings(settings: Settings, device: Device) -> None:
    """Raises InputError where the device lacks the number type, or no batch makes the effective batch."""
    train = settings.train
    if settings.model.dtype == "bfloat16" and not device.bfloat16 and device.kind == "cuda":
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


def settle_length(settings: Settings, positions: int, lengths: Lengths) -> Settings:
    """`model.max_length`, unless given: the longest of all, in whole 64s as matrix units like them; at most `positions`.

    Raises InputError naming the documents that are longer.
    """
    limit = min(settings.model.max_length or positions, positions)
    for chats in (lengths.train, lengths.validation):
        refuse_long(chats.whole, chats.owners, limit, positions)
    for chats in (lengths.validation, lengths.test):
        refuse_long([read + lengths.budget for read in chats.read], chats.owners, limit, positions, lengths.budget)
    return fill_open(settings, {"model.max_length": min(-(-lengths.longest // 64) * 64, positions)})


def choose_settings(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Settings | None:
    """The first candidate that fits and reads enough tokens at once, else the one with the largest batch that fits."""
    fitting = [
        one
        for one in candidates(settings, model, device, lengths)
        if estimate_memory(one, model, device, lengths)["peak"] <= usable(device)
    ]
    for one in fitting:
        if one.train.gradient_accumulation_steps == 1 or one.train.per_device_train_batch_size * lengths.mean >= ENOUGH:
            return one
    return max(fitting, key=lambda one: one.train.per_device_train_batch_size, default=None)


def candidates(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> Iterator[Settings]:
    """In the order of `WAYS`, with large batches before small ones. Answering takes the memory beside the weights."""
    dtype = settings.model.dtype or choose_dtype(model, device)
    longest = max(lengths.longest_answering, 1)
    sizes = batches(settings, device, lengths, dtype)
    for (four_bit, checkpointing), (batch, accumulation) in product(WAYS[device.kind], sizes):
        decided = {"model.dtype": dtype, "model.load_in_4bit": four_bit, "train.gradient_checkpointing": checkpointing}
        decided |= {"train.per_device_train_batch_size": batch, "train.gradient_accumulation_steps": accumulation}
        one = fill_open(settings, decided | {"train.per_device_eval_batch_size": batch})
        room = max(0, usable(device) - weight_bytes(one, model) - 2 * GiB) // position_bytes(one, model)
        yield fill_open(one, {"eval.batch_tokens": max(min(EVALUATION_ROWS[device.kind] * longest, room), longest)})


def choose_dtype(model: Architecture, device: Device) -> str:
    """16 bits where they are fast; float32 on other processors, and there for models so small that it costs minutes only."""
    if device.kind == "cuda":
        return "bfloat16" if device.bfloat16 else "float16"
    return "bfloat16" if device.bfloat16 and model.parameters > SMALL else "float32"


def fill_open(settings: Settings, wanted: Mapping[str, object]) -> Settings:
    """`settings` with those wanted values whose settings were left open."""
    given = flatten(settings)
    return apply_settings({name: value for name, value in wanted.items() if given[name] is None}, settings)


def batches(settings: Settings, device: Device, lengths: Lengths, dtype: str) -> list[tuple[int, int]]:
    """(batch, accumulation) that make the effective batch, largest batch first; just one where one is given.

    A processor in bfloat16 takes examples one by one: unpadded they are attended to faster (bench/results/processes-cpu.json).
    """
    batch, accumulation = settings.train.per_device_train_batch_size, settings.train.gradient_accumulation_steps
    share = settings.train.effective_batch_size // device.count
    if batch or accumulation:
        return [(batch or share // accumulation, accumulation or share // batch)]
    if device.kind == "cpu" and dtype == "bfloat16":
        return [(1, share)]
    most = share if device.kind == "cuda" else max(1, ENOUGH // max(lengths.train.whole, default=1))
    return [(one, share // one) for one in range(share, 0, -1) if share % one == 0 and one <= most]


def usable(device: Device) -> int:
    """Bytes of a device's memory that a plan may count on."""
    return int(device.memory * USABLE[device.kind])


def describe_misfit(settings: Settings, model: Architecture, device: Device, lengths: Lengths) -> str:
    """What the least demanding candidate needs, and what was set that may be in its way."""
    *_, last = candidates(settings, model, device, lengths)
    needs = {name: f"{size / GiB:.1f}" for name, size in estimate_memory(last, model, device, lengths).items()}
    thrifty = {"model.load_in_4bit": True, "train.gradient_checkpointing": True, "train.per_device_train_batch_size": 1}
    thrifty |= {"train.gradient_accumulation_steps": None, "eval.batch_tokens": None, "model.dtype": None}
    given = flatten(settings)
    freed = ", ".join(name for name, value in thrifty.items() if given[name] not in (None, value))
    return (
        f"model.name={model.name} needs about {needs['peak']} GiB (weights {needs['weights']}; training {needs['training']} "
        f"or evaluation {needs['evaluation']} in all); {device.name} has {usable(device) / GiB:.1f} usable\n"
        f"{freed and f'leave out {freed}, or '}take a smaller model, or the longest articles out"
    )


def find_warnings(settings: Settings, device: Device) -> Iterator[str]:
    """What the settings cost in speed, or change in the batch, in words."""
    if device.engine == "unsloth":
        yield from leaves_fused_path(settings)
    train = settings.train
    given = train.per_device_train_batch_size * train.gradient_accumulation_steps * device.count
    if given != train.effective_batch_size:
        yield f"the batch set makes {given} examples a step, not train.effective_batch_size={train.effective_batch_size}"
