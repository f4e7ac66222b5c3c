"""Settings from presets, files and assignments: cast to their types, later ones first, mistyped ones named with the nearest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from data.files import write_text
from data.schema import InputError
from pipeline.config import (
    PRESETS,
    PROJECTIONS,
    Settings,
    apply_settings,
    flatten,
    preset_path,
    read_settings_file,
    resolve_explicit,
    write_settings,
)
from pipeline.describe_settings import render_settings, settings_to_json


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.learning_rate=2e-4", 2e-4),  # a string to YAML
        ("train.learning_rate=0.001", 1e-3),
        ("train.learning_rate=1", 1.0),
        ("train.max_steps=2", 2),
        ("train.max_steps=1e3", 1000),
        ("train.max_steps=-1", -1),
        ("train.num_train_epochs=2", 2.0),
        ("eval.logprobs=false", False),
        ("eval.logprobs=yes", True),
        ("model.load_in_4bit=true", True),
        ("model.load_in_4bit=null", None),
        ("model.max_length=512", 512),
        ("model.dtype=float32", "float32"),
        ("model.name=owner/name", "owner/name"),
        ("model.revision=2024", "2024"),
        ("data.file=a=b.jsonl", "a=b.jsonl"),
        ("train.layout=separate", "separate"),
        ("lora.target_modules=q_proj,v_proj", ("q_proj", "v_proj")),
        ("lora.target_modules=[q_proj, v_proj]", ("q_proj", "v_proj")),
        ("lora.target_modules=all-linear", PROJECTIONS),
        ("lora.target_modules=[all-linear]", PROJECTIONS),
        ("eval.splits=test", ("test",)),
        ("export.gguf=", ()),
        ("export.gguf=f16 q8_0", ("f16", "q8_0")),
    ],
)
def test_assignments_are_cast_to_the_fields_type(assignment, value):
    (given,) = resolve_explicit(None, None, [assignment]).values()
    assert given == value and type(given) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.learning_rat=1", "unknown setting 'train.learning_rat'; did you mean train.learning_rate?"),
        ("learning_rate=1", "did you mean train.learning_rate?"),
        ("trian.max_steps=1", "did you mean train.max_steps?"),
        ("lora.alpha=1", "did you mean lora.lora_alpha?"),
        ("model.max_lenght=1", "did you mean model.max_length?"),
        ("qqq=1", "unknown setting 'qqq'; sections are data, model, lora, train, eval, export, publish"),
        ("train.max_steps", "expected section.key=value"),
        ("train.max_steps=two", "must be a whole number, got 'two'"),
        ("train.max_steps=2.5", "must be a whole number, got 2.5"),
        ("train.max_steps=true", "must be a number, got True"),
        ("train.max_steps=.inf", "must be a finite number, got inf"),
        ("train.max_steps=.nan", "must be a finite number, got nan"),
        ("train.max_steps=", "must be a whole number, got None"),
        ("train.learning_rate=fast", "must be a number, got 'fast'"),
        ("train.learning_rate=[1]", "must be a number, got [1]"),
        ("eval.logprobs=1", "must be true or false, got 1"),
        ("eval.logprobs=maybe", "must be true or false, got 'maybe'"),
        ("train.layout=both", "must be one of separate, conversation, relations-first, got 'both'"),
        ("eval.splits=train", "must be one of validation, test, got 'train'"),
        ("export.gguf=[q3]", "must be one of f16, bf16,"),
        ("train.effective_batch_size=0", "must be above 0, got 0"),
        ("train.learning_rate=.nan", "must be a finite number, got nan"),
        ("train.learning_rate=inf", "must be a finite number, got inf"),
        ("train.weight_decay=-.inf", "must be a finite number, got -inf"),
        ("lora.lora_dropout=7", "must be below 1, got 7"),
        ("lora.target_modules=foo", "must be one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, got 'foo'"),
        ("lora.target_modules=", "must be at least one, got None"),
        ("train.warmup_steps=-1", "must be at least 0, got -1"),
        ("train.seed=-1", "must be at least 0, got -1"),
        ("train.seed=4294967296", "must be at most 4294967295, got 4294967296"),
        ("train.max_steps=0", "must be -1 (by train.num_train_epochs) or above 0, got 0"),
        ("train.max_steps=-5", "must be -1 (by train.num_train_epochs) or above 0, got -5"),
        ("publish.repo=a/b/c", "must be USER/NAME in letters, digits, '-', '_' and '.', got 'a/b/c'"),
        ("lora.r=-1", "must be above 0, got -1"),
        ("model.name=", "must be text, got None"),
        ("model.name=[a]", "must be text, got ['a']"),
        ("model.name=[", "broken YAML"),
    ],
)
def test_assignments_that_are_wrong_are_refused(assignment, message):
    with pytest.raises(InputError) as refused:
        resolve_explicit(None, None, [assignment])
    assert str(refused.value).startswith(f"--set {assignment}") and message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  learning_rate: 2e-4\n  max_step: 3\n", "unknown setting 'train.max_step'; did you mean train.max_steps?"),
        ("train: 3\n", "train: expected 'key: value' lines, got int"),
        ("- train\n", "expected 'key: value' lines, got list"),
        ("train:\n  max_steps: many\n", "train.max_steps: must be a whole number, got 'many'"),
        ("train:\n  a: [\n", ":3: broken YAML"),
        ("train:\n  evaluations: 0\n", "train.evaluations: must be above 0, got 0"),
        ("", "the file is empty"),
    ],
)
def test_files_that_are_wrong_are_refused_with_their_name(tmp_path, text, message):
    path = write_text(tmp_path / "settings.yaml", text)
    with pytest.raises(InputError) as refused:
        resolve_explicit(None, path, [])
    assert str(refused.value).startswith(str(path)) and message in str(refused.value)


def test_later_sources_win(tmp_path):
    config = write_text(tmp_path / "settings.yaml", "train:\n  num_train_epochs: 2\n  max_steps: 5\nexport:\n")
    explicit = resolve_explicit("tiny", config, ["train.max_steps=7", "train.max_steps=8"])
    settings = apply_settings(explicit)
    assert settings.model.name == "tiny"  # from the preset
    assert settings.train.num_train_epochs == 2.0  # preset < file
    assert settings.train.max_steps == 8  # file < assignments, the last of them
    assert settings.lora.bias == "none"  # nobody's but the default
    assert "lora.bias" not in explicit


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_is_read(preset):
    assert apply_settings(resolve_explicit(preset, None, [])).model.name


def test_a_preset_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="--preset small: no such preset; there are llama-3.2-1b, .*, smollm2-135m, t4, tiny"):
        preset_path("small")


def test_defaults_are_those_of_the_design():
    settings = Settings()
    assert (settings.lora.r, settings.lora.lora_alpha, settings.lora.target_modules) == (16, 32, PROJECTIONS)
    assert settings.publish.private and settings.data.seed == settings.train.seed == 42
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lora.r = 8


@pytest.mark.parametrize("assignments", [[], ["train.learning_rate=2e-4", "train.weight_decay=1e-5", "export.gguf=f16,q8_0"]])
def test_settings_that_are_written_are_read_back(tmp_path, assignments):
    settings = apply_settings(resolve_explicit("tiny", None, assignments))
    path = tmp_path / "config.yaml"
    write_settings(settings, path)
    assert apply_settings(read_settings_file(path)) == settings
    assert read_settings_file(path) == flatten(settings)
    assert list(yaml.safe_load(Path(path).read_text(encoding="utf-8"))) == [f.name for f in dataclasses.fields(Settings)]


def test_every_setting_is_described():
    described = settings_to_json(apply_settings(resolve_explicit("tiny", None, ["lora.r=8"])))
    assert list(described) == list(flatten(Settings())) and all(one["about"] for one in described.values())
    assert described["lora.r"] == {"type": "int > 0", "default": 16, "value": 8, "about": "rank of the adapter's matrices"}
    assert described["lora.lora_dropout"]["type"] == "float >= 0 < 1"
    assert described["model.dtype"]["type"] == "float32, bfloat16, float16 or null"
    text = render_settings(described)
    assert "lora.r = 8 (default 16)" in text and "export.gguf = f16,q8_0 (default )" in text
