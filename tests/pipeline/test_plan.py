"""The plan: what it decides for known cards, what it refuses, and that its estimates follow the models' real sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from articles import invent

from data.files import write_jsonl
from data.readers.rows import document_rows
from data.schema import TASKS, Document, InputError
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.config import PRESETS, Settings, apply_settings, flatten, preset_path, read_settings_file
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import make_plan, usable
from pipeline.plan.estimate import adapter_parameters, layer_activations, weight_bytes
from pipeline.plan.hardware import GPUS, Device, GiB, named_device
from pipeline.plan.lengths import Chats, Lengths
from pipeline.plan.render import DECIDED, plan_to_json, render_plan


def chats(count: int, read: int, answered: int = 90) -> Chats:
    return Chats((read,) * count, (answered,) * count, tuple(f"d{n}" for n in range(count)))


LENGTHS = Lengths(Chats((490,) * 790 + (910,) * 10, (90,) * 800, ("d",) * 800), chats(100, 490), chats(100, 600), budget=300)
LLAMA_3B, LLAMA_8B = "unsloth/Llama-3.2-3B-Instruct", "unsloth/Meta-Llama-3.1-8B-Instruct"


def plan(gpu: str, name: str = LLAMA_3B, lengths: Lengths = LENGTHS, count: int = 1, **explicit: object):
    settings = apply_settings({"model.name": name} | {key.replace("__", "."): value for key, value in explicit.items()})
    return make_plan(settings, find_architecture(name), named_device(gpu, count), lengths)


def test_an_adapter_of_the_last_layers_is_counted_and_more_than_there_are_is_refused():
    whole, half = plan("h100").memory["adapter"], plan("h100", lora__last_layers=14).memory["adapter"]
    assert half == whole // 2
    with pytest.raises(InputError, match=r"lora.last_layers=29: .* has 28 layers"):
        plan("h100", lora__last_layers=29)


# Totals that the Hub shows for each model, in billions.
SIZES = {"llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213, "llama-3.1-8b": 8.030, "qwen2.5-3b": 3.086}
SIZES |= {"qwen3-4b": 4.022, "gemma-2-2b": 2.614, "mistral-7b": 7.248}


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
    assert made.memory["peak"] <= usable(made.hardware)
    train = made.settings.train
    assert train.per_device_train_batch_size * train.gradient_accumulation_steps == train.effective_batch_size
    assert made.settings.model.max_length >= 1000
    assert json.loads(json.dumps(plan_to_json(made)))["memory"]["peak"] == made.memory["peak"]
    assert "not measured" in render_plan(made) and "not known" in render_plan(made)


def test_a_t4_trains_in_4_bit_and_float16_and_a_large_card_in_16_bit_without_checkpointing():
    t4, h200 = plan("t4").settings, plan("h200").settings
    assert (t4.model.load_in_4bit, t4.model.dtype) == (True, "float16")
    assert (h200.model.load_in_4bit, h200.model.dtype, h200.train.gradient_checkpointing) == (False, "bfloat16", False)
    assert (h200.train.per_device_train_batch_size, h200.train.gradient_accumulation_steps) == (16, 1)


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_processor_that_has_bfloat16_trains_in_it(native, dtype):
    device, model = Device("cpu", "cpu", 64 * GiB, bfloat16=native, cores=2), find_architecture(NAMES[1])
    one_by_one = {"float32": False, "bfloat16": True}
    made = make_plan(Settings(), model, device, LENGTHS).settings
    assert (made.model.dtype, made.train.per_device_train_batch_size == 1) == (dtype, one_by_one[dtype])
    other = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    made = make_plan(apply_settings({"model.dtype": other}), model, device, LENGTHS).settings
    assert (made.model.dtype, made.train.per_device_train_batch_size == 1) == (other, one_by_one[other])
    assert made.train.per_device_train_batch_size * made.train.gradient_accumulation_steps == made.train.effective_batch_size


def test_a_processor_trains_a_tiny_model_in_float32():
    made = plan("cpu", "tiny")
    assert (made.settings.model.dtype, made.settings.model.load_in_4bit) == ("float32", False)
    assert made.hardware.engine == "transformers"


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
        ("t4", {"name": LLAMA_8B, "model__load_in_4bit": False}, "leave out model.load_in_4bit"),
        (
            "t4",
            {"name": LLAMA_8B, "train__gradient_checkpointing": False, "train__per_device_train_batch_size": 16},
            "checkpointing",
        ),
        ("t4", {"train__per_device_train_batch_size": 16, "train__gradient_checkpointing": False}, "checkpointing"),
        ("t4", {"eval__batch_tokens": 10**6}, "leave out eval.batch_tokens"),
        ("t4", {"name": "x/Mistral-7B-v0.3", "model__dtype": "float32", "model__load_in_4bit": False}, "model.dtype"),
    ],
)
def test_what_cannot_be_is_refused_and_names_the_setting(gpu, explicit, said):
    with pytest.raises(InputError) as refused:
        plan(gpu, **explicit)
    assert said in str(refused.value)
    assert str(refused.value).count("\n") <= 1


def test_a_model_too_large_for_any_setting_is_refused():
    with pytest.raises(InputError, match="smaller model"):
        plan("t4", LLAMA_8B, Lengths(chats(1, 90_000), test=chats(1, 90_000), budget=10_000))


def test_examples_longer_than_the_model_reads_are_refused():
    with pytest.raises(InputError, match=r"1 examples are longer than the model's 8192 positions: d0 \(9090\)\ntake these"):
        plan("h200", "google/gemma-2-2b-it", Lengths(chats(1, 9000)))


def test_what_is_to_be_answered_is_held_to_the_length_that_unsloth_would_cut_at():
    """Its answers' budget included: a prompt longer than max_seq_length is cut in Unsloth's forward pass."""
    lengths = Lengths(chats(20, 400), chats(2, 400), Chats((400, 700), (20, 20), ("short", "long")), budget=100)
    assert plan("t4", lengths=lengths).settings.model.max_length == 832
    with pytest.raises(InputError) as refused:
        plan("t4", lengths=lengths, model__max_length=512)
    assert "1 chats, 100 tokens for their answers included" in str(refused.value)
    assert "long (800)" in str(refused.value) and "model.max_length=800" in str(refused.value)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="choose one of t4"):
        named_device("rtx")
    assert named_device("H100") == named_device("h100")
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


def test_no_time_is_told_of_a_gpu():
    made = plan("t4")
    assert made.seconds == {} and plan_to_json(made)["seconds"] == {}
    assert "not known: any time" in render_plan(made)


def test_settings_that_leave_the_fused_kernels_are_warned_of():
    assert "lora.target_modules lacks k_proj" in " ".join(plan("h100", lora__target_modules=("q_proj", "v_proj")).warnings)
    assert plan("h100").warnings == ()


def test_every_part_of_the_job_is_billed():
    def seconds(**explicit):
        return plan("cpu", "tiny", **explicit).seconds

    whole = seconds(export__gguf=("q8_0", "f16"), train__evaluations=6)
    assert list(whole) == ["training", "answering"]
    assert all(0 < low < high for low, high in whole.values())
    for less in (
        {"eval__base_model": False},
        {"eval__splits": ("test",)},
        {"export__gguf": ("q8_0",)},
        {"export__gguf": ()},
        {"train__eval_f1_articles": 0},
    ):
        assert seconds(**{"export__gguf": ("q8_0", "f16")} | less)["answering"] < whole["answering"], less
    assert seconds(train__evaluations=60)["training"] > whole["training"]
    assert seconds(train__max_steps=1)["training"] < whole["training"]
    assert seconds(train__gradient_checkpointing=True)["training"] > seconds(train__gradient_checkpointing=False)["training"]


def test_the_disk_holds_the_base_what_is_merged_and_each_file():
    """Llama 3.2 3B in 16 bits is 6.43 GB; q8_0 and q4_k_m as published are 3.42 and 2.02 GB."""
    sizes = [plan("t4", export__gguf=files).disk / 1e9 for files in ((), ("q8_0",), ("q8_0", "q4_k_m"))]
    assert sizes == pytest.approx([6.43, 2 * 6.43 + 3.42, 2 * 6.43 + 3.42 + 2.02], rel=0.01)
    assert plan("t4", export__merge=True).disk / 1e9 == pytest.approx(2 * 6.43, rel=0.01)


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", document_rows(invent(20)))


def command(*arguments: object, capsys) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_the_time_does_not_depend_on_what_else_the_machine_does(corpus, capsys):
    """The same figures twice, the second time beside processes that use every core."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        told = [command("--preset", "tiny", "--gpu", "cpu", "--data", corpus, "--json", capsys=capsys)]
    finally:
        for process in busy:
            process.kill()
    told.append(command("--preset", "tiny", "--gpu", "CPU", "--data", corpus, "--json", capsys=capsys))
    first, second = (json.loads(out)["seconds"] for _, out, _ in told)
    assert first == second
    low, high = first["total"]
    assert low < high


def test_a_split_is_planned_as_it_is_given_and_refused_where_files_are_absent(corpus, tmp_path, capsys):
    given = [f"data.{name}={corpus}" for name in ("train", "validation", "test")]
    code, out, _ = command("--preset", "tiny", "--gpu", "cpu", "--json", "--set", *given, capsys=capsys)
    assert code == 0 and json.loads(out)["data"]["examples"] == 20
    absent = tmp_path / "absent.jsonl"
    code, out, err = command("--preset", "tiny", "--gpu", "cpu", "--set", *given[:2], f"data.test={absent}", capsys=capsys)
    assert (code, out) == (2, "") and f"{absent}: no such file" in err
    code, _, err = command("--preset", "tiny", "--gpu", "cpu", "--set", *given[:2], capsys=capsys)
    assert code == 2 and "data.train, data.validation and data.test" in err


def test_a_run_refuses_test_articles_longer_than_what_was_set(corpus, tmp_path, capsys):
    """Before anything is trained: the article that is too long to be answered is named."""
    long = write_jsonl(tmp_path / "long.jsonl", document_rows([Document("long", "A longer text. " * 300)]))
    given = [f"data.train={corpus}", f"data.validation={corpus}", f"data.test={long}", "model.max_length=1000"]
    assert main(["run", "--preset", "tiny", "--out", str(tmp_path / "run"), "--set", *given]) == 2
    err = capsys.readouterr().err
    assert "1 chats" in err and "longer than model.max_length=1000 tokens" in err and "--set model.max_length=" in err


def test_only_what_will_run_is_billed(corpus, capsys):
    asked = ("--preset", "tiny", "--gpu", "cpu", "--data", corpus, "--json")
    told = json.loads(command(*asked, capsys=capsys)[1])["seconds"]
    for less in ("eval.base_model=false", "eval.splits=test", "export.gguf="):
        short = json.loads(command(*asked, "--set", less, capsys=capsys)[1])["seconds"]
        assert short["answering"] < told["answering"] and short["total"][1] < told["total"][1], less


@pytest.mark.parametrize("gpu", ["T4", "t4", "A100-80"])
def test_a_gpu_is_known_in_any_letter_case(corpus, capsys, gpu):
    code, out, err = command("--gpu", gpu, "--data", corpus, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["device"]["name"] == gpu.lower() and not err


def test_answers_are_given_a_budget_of_tokens(corpus, capsys):
    code, out, _ = command("--preset", "tiny", "--gpu", "t4", "--data", corpus, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["max_new_tokens"].keys() == set(TASKS)
    asked = ("--preset", "tiny", "--gpu", "t4", "--data", corpus, "--json", "--set", "eval.max_new_tokens=33")
    assert set(json.loads(command(*asked, capsys=capsys)[1])["max_new_tokens"].values()) == {33}


@pytest.mark.parametrize(
    "card, cuda, said",
    [
        ("Tesla T4, 550.54.15", "13.0", "is built for CUDA 13.0. Its driver (550.54.15) runs the build of: pip install -r "
         "requirements-cuda12.txt"),
        ("NVIDIA L4, 580.82.07", None, "is built without CUDA. Its driver (580.82.07) runs the build of: pip install -r "
         "requirements.txt"),
        ("Tesla T4, 470.57.02", "13.0", "Its driver (470.57.02) is too old for any build: install 525 or later"),
    ],
)  # fmt: skip
def test_a_gpu_that_this_torch_cannot_use_is_named_with_the_build_that_can(card, cuda, said, tmp_path, monkeypatch, capsys):
    """Else the plan is a CPU's, and nothing says why."""
    import torch

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{card}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    code, out, err = command("--preset", "tiny", "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["device"]["name"] == "cpu"
    assert err.startswith(f"WARNING: {card.partition(',')[0]} is here, but torch ") and said in err
    code, _, err = command("--preset", "t4", capsys=capsys)
    assert code == 2 and said in err and "a CPU trains in float32" in err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert command("--preset", "tiny", capsys=capsys)[2] == ""


def test_a_named_gpu_needs_no_torch():
    code = """
import sys
from pipeline.plan.architectures import find_architecture
from pipeline.config import Settings
from pipeline.plan.lengths import usual_lengths
from pipeline.plan.hardware import named_device
from pipeline.plan.decide import make_plan

settings = Settings()
make_plan(settings, find_architecture(settings.model.name), named_device("t4"), usual_lengths())
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_preset_t4_fits_a_t4():
    settings = apply_settings(read_settings_file(preset_path("t4")))
    made = make_plan(settings, find_architecture(settings.model.name), named_device("t4"), LENGTHS)
    assert made.warnings == ()
    assert made.memory["peak"] < 14.7 * GiB
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
    assert layer_activations(settings, architecture, 256) == pytest.approx(counted, rel=0.05)


def test_settings_without_a_plan_are_untouched():
    before = Settings()
    plan("t4")
    assert before == Settings()
