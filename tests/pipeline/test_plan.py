"""The plan: what it decides for known cards, what it refuses, and that its estimates follow the models' real sizes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from data.schema import InputError
from pipeline.config import PRESETS, Settings, apply_settings, flatten, preset_path, read_settings_file
from pipeline.plan.architectures import TINY, find_architecture
from pipeline.plan.decide import make_plan, usable
from pipeline.plan.estimate import Lengths, adapter_parameters, layer_activations, weight_bytes
from pipeline.plan.hardware import GPUS, GiB, cpu_device, named_device, recognise_gpu
from pipeline.plan.render import DECIDED, plan_to_json, render_plan

LENGTHS = Lengths(train=(580,) * 790 + (1000,) * 10, supervised=(90,) * 800, validation=(580,) * 100, answering=(900,) * 100)
LLAMA_3B, LLAMA_8B = "unsloth/Llama-3.2-3B-Instruct", "unsloth/Meta-Llama-3.1-8B-Instruct"


def plan(gpu: str, name: str = LLAMA_3B, lengths: Lengths = LENGTHS, count: int = 1, **explicit: object):
    settings = apply_settings({"model.name": name} | {key.replace("__", "."): value for key, value in explicit.items()})
    return make_plan(settings, find_architecture(name), named_device(gpu, count), lengths)


# Totals that the Hub shows for each model, in billions.
SIZES = {"llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213, "llama-3.1-8b": 8.030, "qwen2.5-3b": 3.086, "qwen2.5-7b": 7.616}
SIZES |= {"qwen3-4b": 4.022, "qwen3-8b": 8.191, "gemma-2-2b": 2.614, "gemma-3-1b": 1.000, "mistral-7b": 7.248}


@pytest.mark.parametrize(("name", "billions"), SIZES.items())
def test_embedded_models_have_their_published_size(name, billions):
    assert find_architecture(f"someone/{name}-instruct").parameters / 1e9 == pytest.approx(billions, rel=0.002)


def test_sizes_of_llama_3b():
    """The 4-bit repository of the model is 2.24 GB; PEFT counts 24,313,856 trainable parameters at rank 16."""
    model = find_architecture(LLAMA_3B)
    settings = apply_settings({"model.load_in_4bit": True, "model.dtype": "bfloat16"})
    assert weight_bytes(settings, model) / 1e9 == pytest.approx(2.24, rel=0.01)
    assert adapter_parameters(settings, model) == 24_313_856


NAMES = (LLAMA_3B, "meta-llama/Llama-3.2-1B-Instruct", "Qwen/Qwen3-4B")


@pytest.mark.parametrize(("gpu", "name"), [("cpu", "tiny")] + [(gpu, name) for gpu in GPUS for name in NAMES])
def test_every_plan_fits_is_whole_and_keeps_the_effective_batch(gpu, name):
    made = plan(gpu, name)
    decided = flatten(made.settings)
    assert all(decided[key] is not None for key in DECIDED)
    assert made.memory.peak <= usable(made.hardware)
    train = made.settings.train
    assert train.per_device_train_batch_size * train.gradient_accumulation_steps == train.effective_batch_size
    assert made.settings.model.max_length >= LENGTHS.longest
    assert json.loads(json.dumps(plan_to_json(made)))["memory"]["peak"] == made.memory.peak
    assert "not measured" in render_plan(made)


def test_a_t4_trains_in_4_bit_and_float16_and_a_large_card_in_16_bit_without_checkpointing():
    t4, h200 = plan("t4").settings, plan("h200").settings
    assert (t4.model.load_in_4bit, t4.model.dtype) == (True, "float16")
    assert (h200.model.load_in_4bit, h200.model.dtype, h200.train.gradient_checkpointing) == (False, "bfloat16", False)
    assert (h200.train.per_device_train_batch_size, h200.train.gradient_accumulation_steps) == (16, 1)


def test_a_cpu_trains_in_float32():
    made = plan("cpu", "tiny")
    assert (made.settings.model.dtype, made.settings.model.load_in_4bit, made.engine) == ("float32", False, "transformers")


def test_a_large_model_on_a_small_card_is_checkpointed():
    assert plan("t4", LLAMA_8B).settings.train.gradient_checkpointing is True


def test_explicit_settings_are_kept():
    made = plan("h100", model__load_in_4bit=True, train__per_device_train_batch_size=2, eval__batch_tokens=4096).settings
    assert (made.model.load_in_4bit, made.train.per_device_train_batch_size, made.eval.batch_tokens) == (True, 2, 4096)
    assert made.train.gradient_accumulation_steps == 8


def test_several_devices_share_the_effective_batch():
    train = plan("h100", count=4).settings.train
    assert train.per_device_train_batch_size * train.gradient_accumulation_steps * 4 == train.effective_batch_size


@pytest.mark.parametrize(
    ("gpu", "explicit", "said"),
    [
        ("t4", {"model__dtype": "bfloat16"}, "model.dtype=bfloat16"),
        ("cpu", {"model__dtype": "float16"}, "model.dtype=float16"),
        ("h100", {"train__per_device_train_batch_size": 3}, "train.effective_batch_size=16"),
        ("t4", {"name": LLAMA_8B, "model__load_in_4bit": False}, "set model.load_in_4bit=true"),
        (
            "t4",
            {"name": LLAMA_8B, "train__gradient_checkpointing": False, "train__per_device_train_batch_size": 16},
            "checkpointing",
        ),
        ("t4", {"train__per_device_train_batch_size": 16, "train__gradient_checkpointing": False}, "checkpointing=true"),
        ("t4", {"eval__batch_tokens": 10**6}, "set eval.batch_tokens=900"),
        ("t4", {"name": "google/gemma-2-9b-it", "model__load_in_4bit": False}, "model.load_in_4bit"),
    ],
)
def test_what_cannot_be_is_refused_and_names_the_setting(gpu, explicit, said):
    with pytest.raises(InputError) as refused:
        plan(gpu, **explicit)
    assert said in str(refused.value)
    assert str(refused.value).count("\n") <= 1


def test_a_model_too_large_for_any_setting_is_refused():
    with pytest.raises(InputError, match="smaller model"):
        plan("t4", "Qwen/Qwen2.5-14B-Instruct", Lengths(train=(6000,), answering=(16000,)))


def test_examples_longer_than_the_model_reads_are_refused():
    with pytest.raises(InputError, match="8192 positions"):
        plan("h200", "google/gemma-2-2b-it", Lengths(train=(9000,)))


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="choose one of t4"):
        named_device("rtx")
    with pytest.raises(InputError, match="no config.json"):
        find_architecture("./nowhere")


def test_config_json_of_a_folder(tmp_path):
    tiny = find_architecture("tiny")
    assert find_architecture(str(TINY)).hidden_size == tiny.hidden_size
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="num_attention_heads"):
        find_architecture(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json:1"):
        find_architecture(str(tmp_path))


def test_cards_are_recognised_by_the_name_that_pytorch_reports():
    assert recognise_gpu("Tesla T4", int(14.74 * GiB), (7, 5)).bfloat16 is False
    assert recognise_gpu("NVIDIA A100-SXM4-40GB", 40 * GiB, (8, 0)).bandwidth == GPUS["a100-40"].bandwidth
    assert recognise_gpu("NVIDIA H200", 139 * GiB, (9, 0)).rated
    assert recognise_gpu("NVIDIA A10G", 22 * GiB, (8, 6)).rated is False
    unknown = recognise_gpu("NVIDIA RTX 4090", 24 * GiB, (8, 9))
    assert (unknown.rated, unknown.memory, unknown.bfloat16) == (False, 24 * GiB, True)


def test_settings_that_leave_the_fused_kernels_are_warned_of():
    warned = " ".join(plan("h100", lora__lora_dropout=0.1, lora__target_modules=("q_proj", "v_proj")).warnings)
    assert "lora.lora_dropout=0.1" in warned
    assert "lora.target_modules lacks k_proj" in warned
    assert plan("h100").warnings == ()


def test_a_named_gpu_needs_no_torch():
    code = """
import sys
from pipeline.plan.architectures import find_architecture
from pipeline.config import Settings
from pipeline.plan.estimate import Lengths
from pipeline.plan.hardware import named_device
from pipeline.plan.decide import make_plan

settings = Settings()
make_plan(settings, find_architecture(settings.model.name), named_device("t4"), Lengths((500,)))
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_preset_t4_fits_a_t4():
    settings = apply_settings(read_settings_file(preset_path("t4")))
    made = make_plan(settings, find_architecture(settings.model.name), named_device("t4"), LENGTHS)
    assert made.warnings == ()
    assert made.memory.peak < 14.7 * GiB
    assert {path.stem for path in PRESETS.glob("*.yaml")} >= {"t4", "tiny", "llama-3.2-3b", "llama-3.2-1b"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(dtype):
    """Counted with saved-tensor hooks on the tiny model and a padded batch; bfloat16 as the trainer runs it, under autocast."""
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = apply_settings({"model.name": "tiny", "model.dtype": dtype})
    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model = get_peft_model(
        base, LoraConfig(r=16, target_modules=list(settings.lora.target_modules), task_type="CAUSAL_LM")
    ).train()
    parameters, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, 1000, (2, 256))
    mask = torch.ones_like(ids)
    mask[0, 200:] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        output = model.base_model.model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    architecture = find_architecture("tiny")
    counted = sum(storage.nbytes() for storage in kept.values()) / ids.numel() / architecture.num_hidden_layers
    assert output.requires_grad
    assert layer_activations(settings, architecture, cpu_device(), 256) == pytest.approx(counted, rel=0.05)


def test_settings_without_a_plan_are_untouched():
    before = Settings()
    plan("t4")
    assert before == Settings()
