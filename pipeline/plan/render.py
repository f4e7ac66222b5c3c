"""A plan for people and for programs: what was decided, and the estimate of memory and time with its parts."""

from __future__ import annotations

from dataclasses import asdict

from data.table import Table, as_text, join_blocks
from pipeline.config import flatten
from pipeline.plan.decide import Plan, usable
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
PARTS = {
    "context": "libraries and device context",
    "weights": "weights",
    "adapter": "LoRA adapter",
    "optimizer": "its gradients and optimiser states",
    "activations": "activations",
    "workspace": "gradients of one layer",
    "head": "head, completion positions only",
    "cache": "keys and values, when answering",
    "reading": "reading prompts, when answering",
}


def render_plan(plan: Plan) -> str:
    """For a terminal: what was decided, then memory and time."""
    device, model, seconds = plan.hardware, plan.architecture, plan.seconds
    decided = flatten(plan.settings)
    count = f"{device.count} x " if device.count > 1 else ""
    head = (
        f"{model.name} ({model.parameters / 1e9:.2f} billion parameters) on {count}{device.name}, "
        f"{device.memory / GiB:.1f} GiB, through {plan.engine}"
    )
    settings = Table(("setting", "value"), tuple((name, _shown(decided[name])) for name in DECIDED), words=("value",))
    time = (
        f"time (estimated, not measured): training {render_seconds(seconds.training)}, {seconds.step:.2f} s a step; "
        f"evaluation {render_seconds(seconds.evaluation)} for {len(plan.lengths.answered)} chats"
    )
    notes = "\n".join([time, *(f"warning: {warning}" for warning in plan.warnings)])
    return join_blocks([f"{head}\n{describe_lengths(plan)}", as_text(settings), as_text(memory_table(plan)), notes])


def memory_table(plan: Plan) -> Table:
    memory = plan.memory
    parts = [(label, getattr(memory, part)) for part, label in PARTS.items()]
    parts += [("training", memory.training), ("evaluation", memory.evaluation), ("usable", usable(plan.hardware))]
    return Table(("memory (estimated)", "GiB"), tuple((label, f"{size / GiB:.2f}") for label, size in parts))


def describe_lengths(plan: Plan) -> str:
    lengths = plan.lengths.train or (0,)
    mean = sum(lengths) / len(lengths)
    return f"{len(lengths)} training examples of {mean:.0f} tokens on average, {max(lengths)} at most"


def render_seconds(seconds: float) -> str:
    """
    >>> render_seconds(75), render_seconds(8100), render_seconds(0.4)
    ('1 min 15 s', '2 h 15 min', '0.4 s')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds) // 60, round(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {round(seconds) % 60} s" if minutes else f"{seconds:.0f} s"


def plan_to_json(plan: Plan) -> dict:
    """Sizes in bytes, times in seconds; `measured` is false: all of them are estimates."""
    decided, memory = flatten(plan.settings), plan.memory
    lengths = plan.lengths.train or (0,)
    return {
        "device": asdict(plan.hardware) | {"usable": usable(plan.hardware)},
        "engine": plan.engine,
        "model": asdict(plan.architecture) | {"parameters": plan.architecture.parameters},
        "data": {"examples": len(lengths), "tokens": sum(lengths), "longest": plan.lengths.longest},
        "settings": {name: decided[name] for name in DECIDED},
        "memory": asdict(memory) | {"training": memory.training, "evaluation": memory.evaluation, "peak": memory.peak},
        "seconds": asdict(plan.seconds),
        "measured": False,
        "warnings": list(plan.warnings),
    }


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
