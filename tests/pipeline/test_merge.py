"""Merging: the merged model computes what base and adapter compute, and nothing half-written is ever left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_llama import save_adapter, save_base
from transformers import AutoModelForCausalLM

from data.schema import InputError
from pipeline.export.merge import merge_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("adapter"))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(300).remainder(600).view(1, -1)).logits


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "shard_size"), [(True, "5GB"), (False, "5GB"), (True, "1MB"), (False, "1MB")])
def test_merged_logits_are_the_adapters(tied, shard_size, tmp_path):
    base = save_base(tmp_path / "base", tied=tied, shard_size=shard_size)
    adapter = save_adapter(base, tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(base, adapter, tmp_path / "merged"))
    plain = AutoModelForCausalLM.from_pretrained(base)
    untouched = logits(plain)
    adapted = logits(PeftModel.from_pretrained(plain, adapter))
    assert (logits(merged) - adapted).abs().max() < 1e-4
    assert (adapted - untouched).abs().max() > 0.1  # the adapter does something that a forgotten merge would miss
    assert ((tmp_path / "merged" / "model.safetensors.index.json").exists()) == (shard_size == "1MB")


def test_the_bases_number_type_is_kept(tmp_path):
    base = save_base(tmp_path / "base", dtype="bfloat16")
    merged = merge_adapter(base, save_adapter(base, tmp_path / "adapter"), tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert (merged / "model.safetensors").stat().st_size == (base / "model.safetensors").stat().st_size


def test_the_adapters_tokenizer_and_greedy_settings_go_with_it(base, adapter, tmp_path):
    merged = merge_adapter(base, adapter, tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "medner.json"):
        assert (merged / name).read_bytes() == (adapter / name).read_bytes()
    assert json.loads((merged / "generation_config.json").read_text())["do_sample"] is False


def test_a_finished_merge_is_kept_and_another_adapter_replaces_it(base, adapter, tmp_path):
    merged = merge_adapter(base, adapter, tmp_path / "merged")
    written = (merged / "model.safetensors").stat().st_mtime_ns
    merge_adapter(base, adapter, merged)
    assert (merged / "model.safetensors").stat().st_mtime_ns == written
    other = save_adapter(base, tmp_path / "other", seed=2)
    before = (merged / "model.safetensors").read_bytes()
    merge_adapter(base, other, merged)
    assert (merged / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("setting", "value"),
    [("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("alpha_pattern", {"q_proj": 8})],
)
def test_what_a_merge_would_lose_is_refused(setting, value, base, adapter, tmp_path):
    changed = shutil.copytree(adapter, tmp_path / "changed")
    config = json.loads((changed / "adapter_config.json").read_text())
    (changed / "adapter_config.json").write_text(json.dumps({**config, setting: value}))
    with pytest.raises(InputError, match=setting):
        merge_adapter(base, changed, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_errors_say_what_is_missing(base, adapter, tmp_path):
    with pytest.raises(InputError, match="Train one first"):
        merge_adapter(base, tmp_path, tmp_path / "merged")
    quantised = shutil.copytree(base, tmp_path / "quantised")
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(InputError, match="16-bit base"):
        merge_adapter(quantised, adapter, tmp_path / "merged")
    with pytest.raises(InputError, match="neither a folder"):
        merge_adapter("no/such/folder", adapter, tmp_path / "merged")
    incomplete = shutil.copytree(base, tmp_path / "incomplete")
    (incomplete / "model.safetensors").unlink()
    with pytest.raises(InputError, match="weight file model.safetensors is missing"):
        merge_adapter(incomplete, adapter, tmp_path / "merged")
    with pytest.raises(InputError, match="belongs to another base"):
        merge_adapter(save_base(tmp_path / "wider", width=512), adapter, tmp_path / "merged")
    with pytest.raises(InputError, match="belongs to another base"):
        merge_adapter(save_base(tmp_path / "shallow", layers=1), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_disk_without_room_is_told_before_anything_is_written(base, adapter, tmp_path):
    vast = shutil.copytree(base, tmp_path / "vast")
    with (vast / "model.safetensors").open("r+b") as file:
        file.truncate(shutil.disk_usage(tmp_path).free + 10**9)  # a hole: takes no room itself
    with pytest.raises(InputError, match=r"needs [\d,]+ bytes and .* has [\d,]+ free"):
        merge_adapter(vast, adapter, tmp_path / "merged")
    assert not list(tmp_path.glob("*merged*"))
