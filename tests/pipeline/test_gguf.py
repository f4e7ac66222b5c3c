"""GGUF files: a real llama.cpp reads the same tokens from a text and computes the same answers as transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from hard_strings import HARD
from llama_server import complete, prompt_ids, serve, tokenize
from tiny_llama import ROPE, save_base
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from data.prompts import SYSTEM, render_answer, render_next_prompt, render_prompt
from data.schema import InputError
from pipeline.export.gguf import convert_to_gguf, read_config, rope_factors, tensor_name

METADATA = {
    "general.name": "Llama-3.2-3B-medical-ner",
    "general.license": "llama3.2",
    "general.base_model.0.name": "Llama 3.2 3B Instruct",
    "medner.data.sha256": "0" * 64,
}
ARTICLE = "Naloxone reverses the antihypertensive effect of clonidine\nIn 5-HT(1A)-treated rats, 12345.67 μg/kg α-methyldopa …"
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": render_prompt(ARTICLE, "chemicals")},
    {"role": "assistant", "content": render_answer(["naloxone", "α-methyldopa"])},
    {"role": "user", "content": render_next_prompt("relations")},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("model"), dtype="bfloat16")


@pytest.fixture(scope="module")
def f16(model, tmp_path_factory) -> Path:
    return convert_to_gguf(model, tmp_path_factory.mktemp("gguf") / "model.f16.gguf", "f16", METADATA)


def random_prompts(count: int, length: int) -> list[list[int]]:
    return torch.randint(0, 600, (count, length), generator=torch.Generator().manual_seed(0)).tolist()


def greedy(model: Path, ids: list[int], tokens: int) -> list[int]:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    given = loaded.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, eos_token_id=-1)
    return given[0, len(ids) :].tolist()


def test_a_chat_gives_the_same_prompt_ids(model, f16):
    tokenizer = AutoTokenizer.from_pretrained(model)
    with serve(f16) as client:
        for messages in (MESSAGES[:2], MESSAGES):
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
            assert prompt_ids(client, messages) == ids
            assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("length", [40, 700])  # 700 is past the context of before the scaling, where its factors matter
def test_the_next_tokens_probabilities_agree(length, model, f16):
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    (ids,) = random_prompts(1, length)
    with torch.no_grad():
        expected = loaded(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    with serve(f16) as client:
        given = complete(client, ids, 1, n_probs=20)["completion_probabilities"][0]["top_logprobs"]
    assert len(given) == 20
    for token in given:
        assert token["logprob"] == pytest.approx(expected[token["id"]].item(), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("quant", "least"), [("f16", 0.95), ("bf16", 0.5), ("q8_0", 0.3)])
def test_greedy_completions_agree(quant, least, model, tmp_path):
    """A random model's choices are near ties: q8_0 turns some, and so does bf16, in which llama.cpp rounds activations too."""
    gguf = convert_to_gguf(model, tmp_path / f"model.{quant}.gguf", quant, METADATA)
    prompts = random_prompts(20, 60)
    with serve(gguf) as client:
        same = [complete(client, ids, 12, ignore_eos=True)["tokens"] == greedy(model, ids, 12) for ids in prompts]
    assert sum(same) / len(same) >= least


@pytest.mark.parametrize(("tied", "shard_size"), [(True, "1MB"), (False, "5GB")])
def test_every_layout_of_the_weights_is_read(tied, shard_size, tmp_path):
    model = save_base(tmp_path / "model", tied=tied, shard_size=shard_size)
    gguf = convert_to_gguf(model, tmp_path / "model.gguf", "f16", {})
    assert ("output.weight" in {tensor.name for tensor in GGUFReader(gguf).tensors}) != tied
    (ids,) = random_prompts(1, 30)
    with serve(gguf) as client:
        assert complete(client, ids, 5, ignore_eos=True)["tokens"] == greedy(model, ids, 5)


@pytest.mark.parametrize("quant", ["f16", "bf16", "q8_0"])
def test_what_the_file_holds(quant, model, tmp_path):
    reader = GGUFReader(convert_to_gguf(model, tmp_path / "model.gguf", quant, METADATA))
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert types["token_embd.weight"] == types["blk.1.attn_q.weight"] == GGMLQuantizationType[quant.upper()]
    assert types["blk.0.attn_norm.weight"] == types["rope_freqs.weight"] == GGMLQuantizationType.F32
    settings = {name: field.contents() for name, field in reader.fields.items()}
    assert METADATA.items() <= settings.items()
    assert settings["general.base_model.count"] == 1
    assert settings["llama.attention.head_count_kv"] == 2
    assert settings["llama.rope.freq_base"] == 500000.0
    assert settings["tokenizer.ggml.pre"] == "llama-bpe"
    tokens = settings["tokenizer.ggml.tokens"]
    assert tokens[settings["tokenizer.ggml.bos_token_id"]] == "<|begin_of_text|>"
    assert tokens[settings["tokenizer.ggml.eos_token_id"]] == "<|eot_id|>"
    assert tokens[settings["tokenizer.ggml.padding_token_id"]] == "<|finetune_right_pad_id|>"
    assert settings["tokenizer.chat_template"] == (model / "chat_template.jinja").read_text(encoding="utf-8")
    assert "26 Jul 2024" in settings["tokenizer.chat_template"]


@pytest.mark.parametrize("size", [64, 128])
def test_rope_factors_are_those_of_transformers(size):
    rope = {**ROPE, "original_max_position_embeddings": 8192, "factor": 32.0}  # Llama 3.2's own
    config = LlamaConfig(hidden_size=size * 4, num_attention_heads=4, rope_parameters=rope, max_position_embeddings=131072)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / rope["rope_theta"] ** (numpy.arange(0, size, 2) / size)
    factors = rope_factors({"head_dim": size, "rope": rope})
    assert numpy.allclose(plain / scaled.numpy(), factors, rtol=1e-5)
    assert factors.min() == 1
    assert factors.max() == 32


def test_settings_of_older_versions_of_transformers_are_read(model, tmp_path):
    older = shutil.copytree(model, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config = {**config, "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (older / "config.json").write_text(json.dumps(config))
    assert read_config(older)["rope"] == read_config(model)["rope"]


@pytest.mark.parametrize("text", HARD)
def test_hard_strings_give_the_same_ids(text, model, f16):
    with serve(f16, context=64) as client:
        assert tokenize(client, text) == AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"architectures": ["Qwen2ForCausalLM"]}, "Qwen2ForCausalLM is not converted here"),
        ("config.json", {"attention_bias": True}, "without biases"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ("config.json", {"vocab_size": 600}, "600 embeddings"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "ByteLevel"}}, "Llama 3's split"),
        ("tokenizer_config.json", {"eos_token": "</s>"}, "eos_token '</s>'"),
    ],
)
def test_what_would_answer_otherwise_is_refused(file, change, message, model, tmp_path):
    changed = shutil.copytree(model, tmp_path / "changed")
    content = json.loads((changed / file).read_text(encoding="utf-8"))
    (changed / file).write_text(json.dumps({**content, **change}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        convert_to_gguf(changed, tmp_path / "model.gguf", "f16", {})
    assert list(tmp_path.iterdir()) == [changed]


def test_unknown_quantisations_and_tensors_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="q4_k_m"):
        convert_to_gguf(model, tmp_path / "model.gguf", "q4_k_m", {})
    with pytest.raises(InputError, match="model.layers.0.mlp.router"):
        tensor_name("model.layers.0.mlp.router.weight")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        convert_to_gguf(tmp_path / "empty", tmp_path / "model.gguf", "f16", {})
