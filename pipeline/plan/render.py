"""A plan for people and for programs: what was decided, what memory and time were counted, and what is not known."""

from __future__ import annotations

from dataclasses import asdict
from math import ceil

from data.table import Table, as_text, join_blocks
from pipeline.config import flatten
from pipeline.plan.decide import Plan, usable
from pipeline.plan.estimate import Range
from pipeline.plan.hardware import GiB

DECIDED = (
    "model.load_in_4bit",
    "model.dtype",
    "model.max_length",
    "train.per_device_train_batch_size",
    "train.gradient_accumulation_steps",
    "train.gradient_checkpointing",
    "train.per_device_eval_batch_size",
    "eval.batch_tokens",
)
NOT_KNOWN = {
    "cuda": (
        "any time: nothing was measured on a GPU yet",
        "what Unsloth saves of the memory that is counted",
        "whether another batch or precision that fits would be faster",
    ),
    "cpu": ("this processor's speed: 20 to 80 GFLOP/s a core are assumed in float32, 60 to 160 in bfloat16",),
}


def render_plan(plan: Plan) -> str:
    """For a terminal: what was decided, then memory and time, then what is not known."""
    device, model, decided, whole = plan.hardware, plan.architecture, flatten(plan.settings), plan.lengths.train.whole
    head = (
        f"{model.name} ({model.parameters / 1e9:.2f} billion parameters) on {f'{device.count} x ' * (device.count > 1)}"
        f"{device.name}, {device.memory / GiB:.1f} GiB, through {device.engine}\n"
        f"{len(whole)} training examples of {plan.lengths.mean:.0f} tokens on average, {max(whole, default=0)} at most"
    )
    settings = [(name, str(decided[name]).lower()) for name in DECIDED]
    settings += [(f"tokens of an answer to {task}", f"at most {most}") for task, most in plan.lengths.budgets.items()]
    sizes = [(name, f"{size / GiB:.1f}") for name, size in (plan.memory | {"usable": usable(device)}).items()]
    sizes.append(("disk: base, merged and exported files", f"{plan.disk / GiB:.1f}"))
    times = plan.seconds | ({"whole job": total_seconds(plan)} if plan.seconds else {})
    tables = [
        Table(("setting", "value"), tuple(settings), words=("value",)),
        Table(("memory and disk, counted, not measured", "GiB"), tuple(sizes)),
        Table(("time, counted, not measured", "least", "most"), tuple((n, *map(render_time, t)) for n, t in times.items())),
    ]
    notes = [f"not known: {what}" for what in NOT_KNOWN[device.kind]] + [f"warning: {warning}" for warning in plan.warnings]
    return join_blocks([head, *(as_text(table) for table in tables if table.rows), "\n".join(notes)])


def total_seconds(plan: Plan) -> Range:
    """Least and most of the whole job."""
    return sum(low for low, _ in plan.seconds.values()), sum(high for _, high in plan.seconds.values())


def render_time(seconds: float) -> str:
    """
    >>> render_time(0.4), render_time(75), render_time(8100)
    ('1 s', '1 min', '2 h')
    """
    hours, minutes = f"{seconds / 3600:.0f} h", f"{seconds / 60:.0f} min"
    return hours if seconds >= 5400 else minutes if seconds >= 60 else f"{ceil(seconds)} s"


def plan_to_json(plan: Plan) -> dict:
    """Sizes in bytes, times in seconds as [least, most]; `measured` is false: all of them are counted."""
    decided, whole = flatten(plan.settings), plan.lengths.train.whole
    return {
        "device": asdict(plan.hardware) | {"usable": usable(plan.hardware)},
        "engine": plan.hardware.engine,
        "model": asdict(plan.architecture) | {"parameters": plan.architecture.parameters},
        "data": {"examples": len(whole), "tokens": sum(whole), "longest": plan.lengths.longest},
        "settings": {name: decided[name] for name in DECIDED},
        "max_new_tokens": plan.lengths.budgets,
        "memory": plan.memory,
        "disk": plan.disk,
        "seconds": plan.seconds | ({"total": total_seconds(plan)} if plan.seconds else {}),
        "measured": False,
        "unknown": list(NOT_KNOWN[plan.hardware.kind]),
        "warnings": list(plan.warnings),
    }
