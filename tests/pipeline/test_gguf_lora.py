"""An adapter alone as a GGUF file: a real llama.cpp lays it over the base's and computes what transformers and PEFT compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fixed_run import make_run
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_llama import save_adapter, save_base
from transformers import AutoModelForCausalLM

from data.schema import InputError
from eval.engines.client import ask, open_server
from eval.engines.llama_cpp import start_server
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.gguf_lora import convert_adapter
from pipeline.run_folder import read_run
from pipeline.weights import hash_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    convert_to_gguf(save_base(folder / "base"), folder / "base.f16.gguf", "f16", {})
    return folder


def adapter_of(folder: Path, name: str, **changes: object) -> Path:
    """An adapter strong enough to turn every answer, with other settings in its adapter_config.json."""
    adapter = save_adapter(folder / "base", folder / name, strength=0.1)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return adapter


def logprobs(gguf: Path, lora: Path | None, ids: list[int]) -> dict[int, float]:
    server = start_server(gguf, 512, 1, 1, lora)
    with open_server(server.listening_address, timeout=60) as client:
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 40}
        top = ask(client, "POST", "/completion", body)["completion_probabilities"][0]["top_logprobs"]
    return {one["id"]: one["logprob"] for one in top}


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True, "lora_alpha": 5}], ids=["plain", "rank-stabilised"])
def test_llama_cpp_computes_what_peft_computes(folder, changes):
    adapter = adapter_of(folder, f"adapter-{len(changes)}", **changes)
    lora = convert_adapter(folder / "base", adapter, folder / f"{adapter.name}.lora.gguf", {"general.license": "llama3.2"})
    ids = torch.randint(0, 600, (1, 60), generator=torch.Generator().manual_seed(0))
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    with torch.no_grad():
        before = base(ids).logits[0, -1].log_softmax(-1)
        after = PeftModel.from_pretrained(base, adapter)(ids).logits[0, -1].log_softmax(-1)
    assert (before - after).abs().max() > 1, "the adapter changes the model"
    given, bare = (
        logprobs(folder / "base.f16.gguf", lora, ids[0].tolist()),
        logprobs(folder / "base.f16.gguf", None, ids[0].tolist()),
    )
    assert len(given) == 40
    assert all(value == pytest.approx(after[token].item(), abs=0.03) for token, value in given.items())
    assert all(value == pytest.approx(before[token].item(), abs=0.03) for token, value in bare.items())


def test_what_the_file_holds(folder):
    adapter = adapter_of(folder, "held")
    lora = convert_adapter(folder / "base", adapter, folder / "held.lora.gguf", {"general.name": "held"})
    reader = GGUFReader(lora)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"], fields["adapter.lora.alpha"]) == ("adapter", "lora", 32.0)
    assert fields["medner.layout"] == "separate" and fields["general.name"] == "held"
    assert fields["tokenizer.chat_template"] == (adapter / "chat_template.jinja").read_text(encoding="utf-8")
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert len(shapes) == 2 * 7 * 2
    assert shapes["blk.1.attn_k.weight.lora_a"] == [256, 16] and shapes["blk.1.attn_k.weight.lora_b"] == [16, 128]
    assert lora.stat().st_size < (adapter / "adapter_model.safetensors").stat().st_size * 0.6


def test_what_cannot_be_laid_over_a_base_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="use_dora=True"):
        convert_adapter(folder / "base", adapter_of(folder, "dora", use_dora=True), tmp_path / "x.gguf", {})
    with pytest.raises(InputError, match=r"base\.f16\.gguf: no adapter"):
        start_server(folder / "base.f16.gguf", 512, 1, 1, folder / "base.f16.gguf")
    other = convert_to_gguf(save_base(tmp_path / "other", width=512), tmp_path / "other.gguf", "f16", {})
    lora = convert_adapter(folder / "base", adapter_of(folder, "fine"), tmp_path / "fine.gguf", {})
    with pytest.raises(InputError, match=r"of another shape in other\.gguf; the adapter belongs to another base"):
        start_server(other, 512, 1, 1, lora)
    broken = shutil.copytree(folder / "fine", tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(value for name, value in weights.items() if "lora_B" in name)[0, 0] = float("nan")
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(InputError, match="beyond float16's range"):
        convert_adapter(folder / "base", broken, tmp_path / "broken.gguf", {})
    assert not (tmp_path / "broken.gguf").exists()


@pytest.mark.slow
def test_a_run_leaves_its_adapter_alone_with_all_that_it_needs(tmp_path, capsys):
    run = make_run(tmp_path)
    read_run(run).stage("evaluate", dict)
    assert main(["export", str(run), "--gguf-lora", "--json"]) in (0, 1)  # 1: three articles cannot show that it is as good
    facts = json.loads(capsys.readouterr().out)
    folder = run / "export" / "lora"
    (name,) = facts["files"]
    parity = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))["models"][name]
    assert name == "lora/Llama-medical-ner.lora.gguf" and parity["quant"] == "F16"
    assert parity["identical_prompts"] == parity["prompts"] == 9 and parity["exact_completions"] >= 0.9
    assert sorted(path.name for path in folder.iterdir()) == [
        "Llama-medical-ner.lora.gguf", "Modelfile", "Modelfile.safetensors", "README.md", "base.f16.gguf",
        "chat_template.jinja", "safetensors",
    ]  # fmt: skip
    assert not (run / "export" / "merged").exists() and "--lora lora/Llama-medical-ner.lora.gguf" in facts["llama_server"]
    modelfile = (folder / "Modelfile").read_text(encoding="utf-8")
    assert "\nFROM ./base.f16.gguf\nADAPTER ./Llama-medical-ner.lora.gguf\nTEMPLATE " in modelfile
    assert "\nADAPTER ./safetensors\n" in (folder / "Modelfile.safetensors").read_text(encoding="utf-8")
    kept = hash_file(run / "adapter" / "adapter_model.safetensors")
    assert hash_file(folder / "safetensors" / "adapter_model.safetensors") == kept

    base, lora = str(folder / "base.f16.gguf"), str(folder / "Llama-medical-ner.lora.gguf")
    assert main(["extract", "--model", base, "--lora", lora, "Lithium caused tremor.", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["documents"]) == 1
    for arguments, said in (
        (["--model", lora], "an adapter alone; give its base's GGUF file as --model"),
        (["--model", str(run), "--lora", lora], "only with a --model that is a GGUF file"),
    ):
        assert main(["extract", *arguments, "Lithium caused tremor."]) == 2
        assert said in capsys.readouterr().err
