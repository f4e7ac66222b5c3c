"""What may still be changed in a run that was begun: whatever no finished stage has read.

A finished stage keeps its settings. Of the others, those that the command names count from now on; those it leaves out stay as
they were, unless the run ended because a setting was wrong: then leaving out what the refused command had added takes it back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pipeline.config import Explicit, Settings, apply_settings, flatten

# By stage, the settings that shape its files; one that ends in "." means its whole section.
READ_BY = {
    "data": ("data.",),
    "evaluate_base": ("model.", "train.layout", "eval.base_model", "eval.max_new_tokens", "eval.grounded"),
    "train": ("model.", "lora.", "train."),
    "evaluate": ("model.", "train.layout", "eval."),
    "export": ("export.",),
}
# How fast, and where it is reported: these change no stage's files.
WITHOUT_EFFECT = {"eval.batch_tokens", "train.per_device_eval_batch_size", "train.report_to"}
PLANNED = ("model.", "lora.", "train.", "eval.")


def is_read(name: str, stages: Collection[str]) -> bool:
    """Whether one of `stages` reads the setting `name`."""
    return name not in WITHOUT_EFFECT and any(_within(name, READ_BY.get(stage, ())) for stage in stages)


def find_conflict(saved: Settings, done: Collection[str], explicit: Explicit) -> str | None:
    """The first setting asked for otherwise than a finished stage read it, in words."""
    before = flatten(saved)
    for name, value in explicit.items():
        is_file = name.startswith("data.") and name != "data.seed"  # the files' content was compared
        if value is not None and not is_file and is_read(name, done) and before[name] != value:
            return f"with {name}={before[name]}, not {value}"
    return None


def merge_asked(before: Explicit, explicit: Explicit, done: Collection[str], take_back: Collection[str] = ()) -> Explicit:
    """What is asked for by now, by the earlier commands and this one; of `take_back` only what this one names again."""
    kept = {name: value for name, value in before.items() if name not in take_back or is_read(name, done)}
    return kept | {name: value for name, value in explicit.items() if not is_read(name, done)}


def changed_names(before: Explicit, after: Explicit) -> list[str]:
    """The settings that resolve to another value with `after` than with `before`."""
    old, new = flatten(apply_settings(before)), flatten(apply_settings(after))
    return [name for name in new if old[name] != new[name]]


def resolve_again(saved: Settings, asked: Explicit, fixed_by: Collection[str], *, planned: bool) -> Settings:
    """`asked`, with what the stages `fixed_by` read as it was resolved then.

    `planned`: the plan stays, with all that it filled.
    """
    before = flatten(saved)
    again = apply_settings({**asked, **{name: value for name, value in before.items() if is_read(name, fixed_by)}})
    left_open = [name for name, value in flatten(again).items() if value is None and _within(name, PLANNED)]
    return apply_settings({name: before[name] for name in left_open}, again) if planned else again


def needs_plan(changed: Collection[str]) -> bool:
    """Whether one of the changed settings is of a section that the plan decides in."""
    return any(_within(name, PLANNED) for name in changed)


def _within(name: str, wanted: Collection[str]) -> bool:
    return any(name == one or one.endswith(".") and name.startswith(one) for one in wanted)


def asked_to_json(asked: Mapping[str, object]) -> dict[str, object]:
    """Tuples as lists, as JSON reads them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
