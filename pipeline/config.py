"""Settings: one frozen record a section; each default, its bounds and what it does stand here and nowhere else.

They are resolved from a preset (pipeline/presets/NAME.yaml), a YAML file and `section.key=value` assignments, later ones first.
An unknown key is an error that names the nearest one. None means: decided by the plan for the device at hand, or from the data.
`medner settings` prints them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError
from pydantic.dataclasses import dataclass

from data.files import read_text, write_text
from data.prompts import Layout
from data.schema import InputError, quote
from pipeline.export.names import Quant, is_repository

PRESETS = Path(__file__).parent / "presets"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RULES = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
LARGEST_SEED = 2**32 - 1  # numpy's


def read_number(value: object) -> object:
    """A number that YAML took for a string (1e3) as one; pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("a number")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else number
    return value


def read_list(value: object) -> object:
    """A list written as one text, `q8_0,f16` or `q8_0 f16`; nothing is an empty one."""
    return value.replace(",", " ").split() if isinstance(value, str) else [] if value is None else value


def read_projections(value: object) -> object:
    """PEFT's "all-linear" as the matrices that it means."""
    return PROJECTIONS if value in ("all-linear", ["all-linear"]) else read_list(value)


def check_steps(value: int) -> int:
    """-1, or a number of steps above 0. Raises ValueError, which pydantic reports with the setting's name."""
    if value == -1 or value > 0:
        return value
    raise ValueError("-1 (by train.num_train_epochs) or above 0")


def check_repository(value: str) -> str:
    """A name on the Hub as it is. Raises ValueError, which pydantic reports with the setting's name."""
    if is_repository(value):
        return value
    raise ValueError("USER/NAME in letters, digits, '-', '_' and '.'")


Int = Annotated[int, BeforeValidator(read_number)]
Float = Annotated[float, BeforeValidator(read_number)]
Positive = Annotated[Int, Field(gt=0)]
Count = Annotated[Int, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, le=LARGEST_SEED)]
Projections = Annotated[tuple[Literal[PROJECTIONS], ...], BeforeValidator(read_projections), Field(min_length=1)]


@dataclass(frozen=True, config=RULES)
class Data:
    """The corpus. `file` is split here; or `train`, `validation` and `test` are a split that is kept as given."""

    file: str | None = Field(None, description="corpus to split 80/10/10 by article (--data)")
    train: str | None = Field(None, description="training corpus of a split of your own")
    validation: str | None = Field(None, description="its validation corpus")
    test: str | None = Field(None, description="its test corpus")
    seed: Seed = Field(42, description="draws the split of data.file")


@dataclass(frozen=True, config=RULES)
class Model:
    """The base model and how its weights are loaded; None is left to the plan."""

    name: str = Field(
        "unsloth/Llama-3.2-3B-Instruct", min_length=1, description="Hub id, model folder, GGUF file, smollm2-135m, tiny"
    )
    revision: str | None = Field(None, description="commit, tag or branch of a Hub id")
    load_in_4bit: StrictBool | None = Field(None, description="NF4 base weights; needs a CUDA GPU")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(None, description="of weights and arithmetic")
    max_length: Positive | None = Field(None, description="tokens of the longest example; longer ones are refused, never cut")


@dataclass(frozen=True, config=RULES)
class Lora:
    """The adapter, under PEFT's names."""

    r: Positive = Field(16, description="rank of the adapter's matrices")
    lora_alpha: Positive = Field(32, description="the adapter counts lora_alpha / r times")
    lora_dropout: Float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped while training")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases are trained too")
    target_modules: Projections = Field(PROJECTIONS, description="matrices that get an adapter; all-linear: all seven")
    last_layers: Positive | None = Field(None, description="only the model's last so many layers get an adapter; null: all")

    def adapted_layers(self, count: int) -> list[int] | None:
        """The numbers of the layers that get an adapter, of `count`; None: all. The layers below them need no gradients.

        >>> Lora(last_layers=2).adapted_layers(30)
        [28, 29]
        """
        return None if self.last_layers is None else list(range(count - self.last_layers, count))


@dataclass(frozen=True, config=RULES)
class Train:
    """After TRL's names. The plan divides `effective_batch_size` over devices, batches and accumulation."""

    layout: Layout = Field(  # relations are better asked first, and names no worse, for a Llama of 135M: docs/recipe.md
        "relations-first", description="an article's tasks in one chat, relations last or first; a chat each"
    )
    num_train_epochs: Float = Field(3.0, gt=0, description="passes over train")
    max_steps: Annotated[Int, AfterValidator(check_steps)] = Field(-1, description="optimiser steps; -1: by num_train_epochs")
    negatives: Count = Field(
        0, description="one article in so many also gives its sentences that name nothing, with empty lists; 0: none"
    )
    learning_rate: Float = Field(2e-4, gt=0, description="its peak")
    lr_scheduler_type: str = Field("linear", description="course of the learning rate: a name of transformers' schedulers")
    warmup_steps: Float = Field(0.05, ge=0, description="steps up to the peak; below 1: a share of all steps")
    weight_decay: Float = Field(0.01, ge=0, description="of the adapter's weights")
    max_grad_norm: Float = Field(1.0, ge=0, description="gradients are scaled down to it; 0: never")
    optim: str = Field("adamw_torch", description="a name of transformers' optimisers")
    effective_batch_size: Positive = Field(16, description="examples an optimiser step, over all devices")
    per_device_train_batch_size: Positive | None = Field(None, description="examples a forward pass")
    gradient_accumulation_steps: Positive | None = Field(None, description="forward passes an optimiser step")
    per_device_eval_batch_size: Positive | None = Field(None, description="examples a forward pass of the validation loss")
    gradient_checkpointing: StrictBool | None = Field(None, description="less memory, a quarter more time")
    evaluations: Positive = Field(6, description="validation losses with F1, and checkpoints, spread over the training")
    eval_f1_articles: Count = Field(16, description="validation articles answered at each evaluation, for F1; 0: none")
    best_by: Literal["loss", "f1"] = Field("loss", description="the best checkpoint has the least validation loss, or most F1")
    early_stopping_patience: Positive = Field(3, description="evaluations without a gain that end the training")
    seed: Seed = Field(42, description="of the adapter's start, the examples' order and dropout")
    report_to: Literal["auto", "none", "wandb", "offline", "trackio"] = Field(
        "auto", description="W&B; auto: where it is logged in; trackio: in the run's folder, without an account"
    )


@dataclass(frozen=True, config=RULES)
class Eval:
    """What is answered and scored, and how."""

    splits: Annotated[tuple[Literal["validation", "test"], ...], BeforeValidator(read_list)] = Field(
        ("validation", "test"), description="splits that are answered and scored"
    )
    base_model: StrictBool = Field(True, description="score the untuned model too, on test")
    batch_tokens: Positive | None = Field(None, description="rows times positions answered at once")
    max_new_tokens: Positive | None = Field(None, description="of an answer; null: a quarter above train's longest, by task")
    grounded: StrictBool = Field(False, description="keep every item to the article's own words")
    logprobs: StrictBool = Field(True, description="keep each token's log-probability, for confidence")


@dataclass(frozen=True, config=RULES)
class Export:
    """What is written for other programs to run."""

    merge: StrictBool = Field(False, description="keep the merged 16-bit model")
    gguf: Annotated[tuple[Quant, ...], BeforeValidator(read_list)] = Field((), description="GGUF files to write")
    llama_cpp: str | None = Field(None, description="llama.cpp checkout whose converter is used for other architectures")


@dataclass(frozen=True, config=RULES)
class Publish:
    """What goes to the Hub, and where."""

    repo: Annotated[str, AfterValidator(check_repository)] | None = Field(
        None, description="USER/NAME on the Hub; null: named after the base model and the date"
    )
    private: StrictBool = Field(True, description="of a new repository")
    artifacts: Annotated[tuple[Literal["adapter", "merged", "gguf", "checkpoints"], ...], BeforeValidator(read_list)] = Field(
        (), description="what is sent; none named: the adapter and what was exported"
    )
    checkpoints: StrictBool = Field(False, description="send each checkpoint while training goes on")
    dataset: Annotated[str, AfterValidator(check_repository)] | None = Field(
        None, description="USER/NAME of the data on the Hub, if there: the figures are then sent for its leaderboard too"
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a job, by section. Frozen: `apply_settings` makes changed ones."""

    data: Data = Data()
    model: Model = Model()
    lora: Lora = Lora()
    train: Train = Train()
    eval: Eval = Eval()
    export: Export = Export()
    publish: Publish = Publish()


SECTIONS = {"data": Data, "model": Model, "lora": Lora, "train": Train, "eval": Eval, "export": Export, "publish": Publish}
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
    """The YAML file of a preset. Raises InputError naming those that there are."""
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
    """`value` as the setting's type. Raises InputError where the setting is none, or the value not of its type and bounds."""
    section, _, key = name.partition(".")
    if name not in names():
        raise InputError(f"{file}: unknown setting {name!r}{nearest(name)}")
    try:
        return getattr(SECTIONS[section](**{key: value}), key)
    except ValidationError as error:
        raise InputError(f"{where}: {describe_fault(error)}") from None


def apply_settings(explicit: Mapping[str, object], settings: Settings | None = None) -> Settings:
    """`settings` (default: the defaults) with each "section.key" of `explicit` changed."""
    settings = settings or Settings()
    for section in SECTIONS:
        changed = {name.partition(".")[2]: value for name, value in explicit.items() if name.partition(".")[0] == section}
        if changed:
            settings = replace(settings, **{section: replace(getattr(settings, section), **changed)})
    return settings


def flatten(settings: Settings) -> Explicit:
    """Every setting by its full name: {"data.file": …, "train.learning_rate": …}."""
    return {f"{section}.{key}": value for section, values in asdict(settings).items() for key, value in values.items()}


def write_settings(settings: Settings, path: Path) -> None:
    """config.yaml: all settings by section, tuples as lists."""
    plain: dict[str, dict] = {section: {} for section in SECTIONS}
    for name, value in flatten(settings).items():
        section, _, key = name.partition(".")
        plain[section][key] = list(value) if isinstance(value, tuple) else value
    write_text(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def names() -> list[str]:
    """Every "section.key"."""
    return [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in fields(kind)]


def nearest(name: str) -> str:
    """What an unknown name was perhaps meant to be, as the end of a message."""
    last = {key.partition(".")[2]: key for key in names()}
    near = difflib.get_close_matches(name, names(), 1, 0.5) or difflib.get_close_matches(name, last, 1, 0.5)
    return f"; did you mean {last.get(near[0], near[0])}?" if near else f"; sections are {', '.join(SECTIONS)}"


FAULTS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string_type": "text",
    "string_too_short": "at least one letter",
    "too_short": "at least one",
    "tuple_type": "a list",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "value_error": "{error}",
}


def describe_fault(error: ValidationError) -> str:
    """pydantic's first complaint in our words: `must be above 0, got -1`."""
    fault = error.errors()[0]
    context: dict = {key: int(value) if isinstance(value, float) else value for key, value in fault.get("ctx", {}).items()}
    if fault["type"] == "literal_error":
        wanted = "one of " + context["expected"].replace(" or ", ", ").replace("'", "")
    else:
        wanted = next((text for kind, text in FAULTS.items() if fault["type"].startswith(kind)), fault["msg"]).format(**context)
    return f"must be {wanted}, got {quote(fault['input'])}"


def _yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        said = str(getattr(error, "problem", None) or error).split("\n")[0]
        raise InputError(f"{where}:{line}: broken YAML: {said}") from None
    except RecursionError:
        raise InputError(f"{where}: YAML nested too deeply to be read") from None
    except ValueError:  # a date that there is not, a number of thousands of digits
        raise InputError(f"{where}: contains a date or a number that cannot be read") from None


def _mapping(value: object, where: str) -> dict:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected 'key: value' lines, got {type(value).__name__}")
    return value
