"""Settings: one frozen dataclass a section, each default here and nowhere else.

They are resolved from a preset (pipeline/presets/NAME.yaml), a YAML file and `section.key=value` assignments, later ones first.
An unknown key is an error that names the nearest one. None means: decided by the plan for the device at hand, or from the data.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from data.files import read_text, write_text
from data.prompts import Layout
from data.schema import InputError

PRESETS = Path(__file__).parent / "presets"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
POSITIVE = {
    "model.max_length", "lora.r", "lora.lora_alpha", "train.num_train_epochs", "train.learning_rate",
    "train.effective_batch_size", "train.per_device_train_batch_size", "train.gradient_accumulation_steps",
    "train.per_device_eval_batch_size", "train.evaluations", "eval.batch_tokens", "eval.max_new_tokens",
}  # fmt: skip
Quant = typing.Literal["f16", "bf16", "q8_0", "q4_k_m", "q5_k_m", "q6_k"]


@dataclass(frozen=True)
class Data:
    """`file` is split here; or `train`, `validation` and `test` are a split that is kept as given."""

    file: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    seed: int = 42


@dataclass(frozen=True)
class Model:
    """`name`: a Hub id, a local path, or "tiny", the embedded one."""

    name: str = "unsloth/Llama-3.2-3B-Instruct"
    revision: str | None = None
    load_in_4bit: bool | None = None
    dtype: typing.Literal["float32", "bfloat16", "float16"] | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Lora:
    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    bias: typing.Literal["none", "all", "lora_only"] = "none"
    target_modules: tuple[str, ...] = PROJECTIONS


@dataclass(frozen=True)
class Train:
    """After TRL's names. `effective_batch_size` counts examples an optimiser step over all devices; the plan divides it.

    `warmup_steps` below 1 is a share of all steps. `evaluations` of the validation loss are spread over the training.
    """

    layout: Layout = "conversation"
    num_train_epochs: float = 3.0
    max_steps: int = -1
    learning_rate: float = 2e-4
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optim: str = "adamw_torch"
    effective_batch_size: int = 16
    per_device_train_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    per_device_eval_batch_size: int | None = None
    gradient_checkpointing: bool | None = None
    evaluations: int = 6
    early_stopping_patience: int = 3
    seed: int = 42
    report_to: typing.Literal["auto", "none", "wandb", "offline"] = "auto"


@dataclass(frozen=True)
class Eval:
    splits: tuple[typing.Literal["validation", "test"], ...] = ("validation", "test")
    base_model: bool = True
    batch_tokens: int | None = None
    max_new_tokens: int | None = None
    grounded: bool = False
    logprobs: bool = True


@dataclass(frozen=True)
class Export:
    """`llama_cpp`: a checkout whose converter is used for an architecture other than Llama."""

    merge: bool = False
    gguf: tuple[Quant, ...] = ()
    parity_documents: int = 20
    llama_cpp: str | None = None


@dataclass(frozen=True)
class Publish:
    """`artifacts`: none named means the adapter and whatever was exported. `checkpoints`: send each while training goes on."""

    repo: str | None = None
    private: bool = True
    artifacts: tuple[typing.Literal["adapter", "merged", "gguf", "checkpoints"], ...] = ()
    checkpoints: bool = False


@dataclass(frozen=True)
class Settings:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    lora: Lora = field(default_factory=Lora)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    export: Export = field(default_factory=Export)
    publish: Publish = field(default_factory=Publish)


Explicit = dict[str, object]  # "section.key" -> value, already of the field's type


def resolve_explicit(preset: str | None, config: Path | None, assignments: Iterable[str]) -> Explicit:
    """What the user asked for, by "section.key"; everything else is default."""
    explicit = read_settings_file(preset_path(preset)) if preset else {}
    if config:
        explicit |= read_settings_file(config)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: expected section.key=value")
        where = f"--set {assignment}"
        explicit[key.strip()] = read_value(key.strip(), _yaml(value, where), where, where)
    return explicit


def preset_path(name: str) -> Path:
    path = PRESETS / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
        raise InputError(f"--preset {name}: no such preset; there are {known}")
    return path


def read_settings_file(path: Path) -> Explicit:
    """A YAML file of sections, as "section.key" -> value."""
    tree = _yaml(read_text(path), str(path))
    explicit = {}
    for section, values in _mapping(tree, str(path)).items():
        for key, value in _mapping(values, f"{path}: {section}").items():
            name = f"{section}.{key}"
            explicit[name] = read_value(name, value, str(path), f"{path}: {name}")
    return explicit


def read_value(name: str, value: object, file: str, where: str) -> object:
    """`value` as the setting's type. Raises InputError where it is of another, or not above 0 where it must be."""
    value = cast(value, field_type(name, file), where)
    if name in POSITIVE and value is not None and not value > 0:
        raise InputError(f"{where}: must be above 0, got {value}")
    return value


def apply_settings(explicit: Mapping[str, object], settings: Settings | None = None) -> Settings:
    settings = settings or Settings()
    for name, value in explicit.items():
        section, _, key = name.partition(".")
        settings = replace(settings, **{section: replace(getattr(settings, section), **{key: value})})
    return settings


def flatten(settings: Settings) -> Explicit:
    return {f"{section}.{key}": value for section, values in asdict(settings).items() for key, value in values.items()}


def write_settings(settings: Settings, path: Path) -> None:
    plain = {section: {} for section in sections()}
    for name, value in flatten(settings).items():
        section, _, key = name.partition(".")
        plain[section][key] = list(value) if isinstance(value, tuple) else value
    write_text(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def field_type(name: str, where: str) -> type:
    """The type of "section.key". Raises InputError naming the nearest key where there is none such."""
    types_of = {
        f"{section.name}.{key}": kind
        for section in fields(Settings)
        for key, kind in typing.get_type_hints(section.default_factory).items()
    }
    if name not in types_of:
        last = {key.partition(".")[2]: key for key in types_of}
        near = difflib.get_close_matches(name, types_of, 1, 0.5) or difflib.get_close_matches(name, last, 1, 0.5)
        hint = f"; did you mean {last.get(near[0], near[0])}?" if near else f"; sections are {', '.join(sections())}"
        raise InputError(f"{where}: unknown setting {name!r}{hint}")
    return types_of[name]


def sections() -> list[str]:
    return [section.name for section in fields(Settings)]


def cast(value: object, kind: type, where: str) -> object:
    """`value`, as YAML read it, as the field's type: YAML takes 2e-4 for a string, and a list for a tuple."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return None if value is None else cast(value, next(k for k in typing.get_args(kind) if k is not types.NoneType), where)
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list) else str(value).replace(",", " ").split() if value is not None else []
        return tuple(cast(one, typing.get_args(kind)[0], where) for one in values)
    if typing.get_origin(kind) is typing.Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{where}: must be one of {', '.join(map(str, typing.get_args(kind)))}, got {value!r}")
        return value
    return _cast_plain(value, kind, where)


def _cast_plain(value: object, kind: type, where: str) -> object:
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
        raise InputError(f"{where}: must be {'true or false' if kind is bool else kind.__name__}, got {value!r}")
    if value is None or isinstance(value, list | dict):
        raise InputError(f"{where}: must be {kind.__name__}, got {value!r}")
    try:
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        return int(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: must be {kind.__name__}, got {value!r}") from None


def _yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise InputError(f"{where}:{line}: broken YAML: {getattr(error, 'problem', error)}") from None


def _mapping(value: object, where: str) -> dict:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected 'key: value' lines, got {type(value).__name__}")
    return value
