"""What Unsloth is given, checked against the installed Unsloth's own source: no GPU is needed to see an argument vanish.

Unsloth is not among the CPU requirements. Without a GPU, install it apart and name the folder:
    pip install --no-deps --target DIR unsloth==2026.10.7 unsloth_zoo==2026.10.7
    UNSLOTH_SITE=DIR pytest tests/pipeline/test_unsloth.py
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from data.schema import InputError
from pipeline import model as loading
from pipeline import unsloth_model
from pipeline.config import Settings, apply_settings
from pipeline.training import train as training

SETTINGS = {
    "model.load_in_4bit": True,
    "model.dtype": "float16",
    "model.max_length": 1024,
    "train.gradient_checkpointing": True,
}


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the installed package."""
    site = os.environ.get("UNSLOTH_SITE")
    found = importlib.util.find_spec("unsloth") if site is None else None
    folder = Path(site) / "unsloth" if site else Path(found.origin).parent if found else None
    if folder is None or not folder.is_dir():
        pytest.skip("Unsloth is not installed, and UNSLOTH_SITE names no folder with it")
    return folder


@pytest.fixture
def settings() -> Settings:
    return apply_settings(SETTINGS)


def parameters(path: Path, owner: str, name: str) -> set[str]:
    """The named parameters of a class's function; what only **kwargs would take is not among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    function = next(
        node
        for parent in ast.walk(tree)
        if isinstance(parent, ast.ClassDef) and parent.name == owner
        for node in parent.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return {argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}


def test_every_argument_of_from_pretrained_exists(source, settings):
    known = parameters(source / "models" / "loader.py", "FastLanguageModel", "from_pretrained")
    assert set(unsloth_model.unsloth_base_arguments(settings)) <= known


def test_every_argument_of_get_peft_model_exists(source, settings):
    known = parameters(source / "models" / "llama.py", "FastLlamaModel", "get_peft_model")
    assert {"layers_to_transform", *unsloth_model.unsloth_lora_arguments(settings)} <= known


def test_get_peft_model_is_the_one_that_was_read(source):
    tree = ast.parse((source / "models" / "loader.py").read_text(encoding="utf-8"))
    owner = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "FastLanguageModel")
    assert [ast.unparse(base) for base in owner.bases] == ["FastLlamaModel"]


@pytest.mark.parametrize("variable", ["UNSLOTH_DISABLE_STATISTICS", "UNSLOTH_COMPILE_LOCATION", "UNSLOTH_RETURN_HIDDEN_STATES"])
def test_the_variables_that_are_set_are_read(source, variable):
    packages = (source, source.with_name("unsloth_zoo"))
    assert any(variable in file.read_text(encoding="utf-8") for package in packages for file in package.rglob("*.py"))


def test_nothing_that_is_given_blocks_padding_free_batches(source):
    """Unsloth turns them on unless `padding_free` is set, or a collator, metrics or logits are asked for."""
    trainer = (source / "trainer.py").read_text(encoding="utf-8")
    assert 'return getattr(config, "padding_free", None) is None' in trainer
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(training))) if isinstance(node, ast.Call)]
    given = {
        name: {keyword.arg for call in calls if ast.unparse(call.func) == name for keyword in call.keywords}
        for name in ("SFTTrainer", "SFTConfig")
    }
    assert "padding_free" not in given["SFTConfig"]
    assert given["SFTTrainer"].isdisjoint({"data_collator", "compute_metrics", "preprocess_logits_for_metrics"})


def test_every_default_that_unsloth_rewrites_is_given(source):
    """Its replacements of TRL's defaults, read from its source; those of other trainers, and of what only prints, aside."""
    tree = ast.parse((source / "models" / "rl.py").read_text(encoding="utf-8"))
    tables = [
        {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "replacements" and isinstance(node.value, ast.Dict)
    ]
    rewritten = max(tables, key=len) | {"loss_type", "warmup_steps"}
    other = {"max_seq_length", "num_generations", "vllm_mode", "generation_kwargs", "padding_free", "logging_nan_inf_filter"}
    harmless = {"include_tokens_per_second", "include_num_input_tokens_seen", "auto_find_batch_size", "output_dir"}
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(training))) if isinstance(node, ast.Call)]
    given = {keyword.arg for call in calls if ast.unparse(call.func) == "SFTConfig" for keyword in call.keywords}
    assert rewritten - other - harmless <= given


def test_values_are_the_settings(settings):
    base, lora = unsloth_model.unsloth_base_arguments(settings), unsloth_model.unsloth_lora_arguments(settings)
    assert (base["load_in_4bit"], base["load_in_16bit"], base["max_seq_length"]) == (True, False, 1024)
    assert str(base["dtype"]) == "torch.float16"
    assert (lora["r"], lora["lora_alpha"], lora["lora_dropout"], lora["bias"], len(lora["target_modules"])) == (
        16,
        32,
        0.0,
        "none",
        7,
    )
    assert base["use_gradient_checkpointing"] == lora["use_gradient_checkpointing"] == "unsloth"
    assert base["use_exact_model_name"]


@pytest.fixture
def tiny() -> Settings:
    return apply_settings({"model.name": "tiny", "model.revision": "a1b2c3", "model.dtype": "float32"})


def test_an_adapter_names_the_base_and_the_revision_of_the_settings(tiny, tmp_path, monkeypatch):
    """Whatever the loader read in their place, as Unsloth reads a repository that was quantised before."""

    def load_elsewhere(*arguments):
        model = loading.load_with_transformers(*arguments)
        model.peft_config["default"].base_model_name_or_path = "unsloth/tiny-unsloth-bnb-4bit"
        return model

    monkeypatch.setattr(loading, "prepare_engine", lambda: "unsloth")
    monkeypatch.setattr(loading, "load_with_unsloth", load_elsewhere)
    loading.load_model(tiny, trainable=True).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == (str(loading.model_path("tiny")), "a1b2c3")


def test_a_model_without_the_4_bits_that_were_asked_for_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(loading, "nf4", lambda settings: None)
    with pytest.raises(InputError, match="model.load_in_4bit=true: tiny was loaded without a 4-bit layer"):
        loading.load_model(apply_settings({"model.load_in_4bit": True}, tiny))
    monkeypatch.undo()
    loading.load_model(apply_settings({"model.load_in_4bit": True}, tiny))


def apply_lora_qkv(self): ...
def apply_lora_o(self): ...
def apply_lora_mlp_swiglu(self, x): ...
def original_apply_qkv(self): ...


def layered(qkv, count: int = 2):
    """A model of empty layers that carry these functions, as Unsloth's patched ones do."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = torch.nn.Module(), torch.nn.Module()
            self.self_attn.apply_qkv, self.self_attn.apply_o = qkv, apply_lora_o
            self.mlp.forward = partial(apply_lora_mlp_swiglu, self.mlp)

    return torch.nn.Sequential(*(Layer() for _ in range(count)))


def test_layers_that_left_the_fused_kernels_are_reported(settings):
    assert unsloth_model.find_unfused(layered(apply_lora_qkv), settings) == []
    (said,) = unsloth_model.find_unfused(layered(original_apply_qkv), settings)
    assert "0 of 2 layers" in said
    assert "biases" in said
    (said,) = unsloth_model.find_unfused(layered(original_apply_qkv), apply_settings({"lora.bias": "all"}, settings))
    assert "lora.bias=all" in said


def test_the_fused_kernels_have_the_names_that_are_looked_for(source):
    text = (source / "models" / "llama.py").read_text(encoding="utf-8")
    assert "layer.self_attn.apply_qkv = apply_lora_qkv" in text
    assert "layer.self_attn.apply_o = apply_lora_o" in text
    assert "_FUSED_LORA_MLPS = (apply_lora_mlp_swiglu," in text


def test_unsloth_is_imported_before_transformers_with_its_ping_off_and_its_cache_placed(tmp_path):
    """In a process of its own, with a package that records what it finds in place of Unsloth."""
    (tmp_path / "unsloth").mkdir()
    (tmp_path / "unsloth" / "__init__.py").write_text(
        "import os, sys\n"
        "print(os.environ['UNSLOTH_DISABLE_STATISTICS'], os.environ['UNSLOTH_COMPILE_LOCATION'])\n"
        "print('transformers' in sys.modules)\n"
    )
    code = (
        "from pathlib import Path; import pipeline.model as m; m.uses_unsloth = lambda: True;"
        f"print(m.prepare_engine(Path({str(tmp_path)!r}) / 'cache'))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNSLOTH")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(loading.__file__).parents[1])])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.split() == ["1", str((tmp_path / "cache").resolve()), "False", "unsloth"]


@pytest.mark.gpu
def test_an_unsloth_model_on_a_gpu_has_fused_kernels_in_every_layer(settings):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available() or importlib.util.find_spec("unsloth") is None:
        pytest.skip("needs a CUDA GPU and Unsloth")
    tiny = apply_settings({"model.name": "tiny", "model.load_in_4bit": False, "model.dtype": "bfloat16"}, settings)
    assert loading.prepare_engine() == "unsloth"
    assert unsloth_model.find_unfused(loading.load_model(tiny, trainable=True), tiny) == []
