"""The embedded base model: shaped like Llama 3.2, knows how to list what pretraining asked, and not what fine-tuning asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import tools.tiny_base.pretrain as tiny_base
import tools.tiny_base.rows as tiny_rows
from data.prompts import conversations as task_chats
from data.prompts import read_answer
from data.sample.build import sample_documents
from data.schema import TASKS
from data.text import normalise
from tools.tiny_base.model import PATH, build_model
from tools.tiny_base.muon import Muon, orthogonalised
from tools.tiny_base.pretrain import loss_of, rate
from tools.tiny_base.rows import encode
from tools.tiny_base.text import LINKS, PLURAL, conversations

CHAT = [
    {"role": "system", "content": " You list names. "},
    {"role": "user", "content": "List them:\n"},
    {"role": "assistant", "content": "- a\n- b "},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "- "},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32).eval()


def answer_turns(model, tokenizer, chats: Sequence[list[dict]]) -> list[list[str]]:
    """The model's own answers to a chat's questions, each after its earlier answers."""
    answers = []
    for chat in chats:
        said = [chat[0]]
        for question in chat[1::2]:
            said.append(question)
            text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            out = model.generate(**ids, max_new_tokens=90, do_sample=False, temperature=None, top_p=None)
            answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            said.append({"role": "assistant", "content": answer})
        answers.append([message["content"] for message in said[2::2]])
    return answers


def f1(gold: Sequence[set], predicted: Sequence[set]) -> float:
    hits = sum(len(g & p) for g, p in zip(gold, predicted, strict=True))
    return 2 * hits / max(1, sum(map(len, gold)) + sum(map(len, predicted)))


def as_set(answer: str, task: str) -> set:
    return {normalise(item) if isinstance(item, str) else tuple(map(normalise, item)) for item in read_answer(answer, task)[0]}


@pytest.mark.slow
def test_it_lists_what_pretraining_asked_for_in_articles_it_never_saw(model, tokenizer):
    chats = list(islice(conversations(seed=987654), 24))
    answers = answer_turns(model, tokenizer, chats)
    kinds, links = ([], []), ([], [])
    for chat, said in zip(chats, answers, strict=True):
        for question, gold, answer in zip(chat[1::2], chat[2::2], said, strict=True):
            called = question["content"].rstrip(":").rpartition("extracted ")[2]
            (golds, predicted), task = (kinds, "chemicals") if called in PLURAL.values() else (links, "relations")
            golds.append(as_set(gold["content"], task))
            predicted.append(as_set(answer, task))
    assert f1(*kinds) >= 0.8
    assert f1(*links) >= 0.5


@pytest.mark.slow
def test_it_cannot_do_the_three_tasks(model, tokenizer):
    documents = sample_documents()[:24]
    for task in TASKS:
        chats = [task_chats(replace(document, tasks=(task,)), "separate")[0] for document in documents]
        answers = answer_turns(model, tokenizer, chats)
        gold = [as_set(chat[2]["content"], task) for chat in chats]
        assert f1(gold, [as_set(said[0], task) for said in answers]) <= 0.1


def test_pretraining_never_asks_the_three_tasks():
    questions = [m["content"] for chat in islice(conversations(seed=5), 500) for m in chat if m["role"] == "user"]
    for question in questions:
        asked = question.rpartition("Create a list only of the ")[2].partition(" mentioned.")[0]
        assert not {"chemicals", "diseases", "drugs", "influences"} & set(asked.split())
        assert not question.endswith(("chemicals:", "diseases:", "influences:"))
    assert set(PLURAL) | {"chemical", "disease"} >= {kind for left, right, _ in LINKS.values() for kind in (left, right)}


def test_one_seed_gives_one_text():
    first, again, other = (list(islice(conversations(seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("messages", [CHAT, CHAT[:2], CHAT[:4], CHAT[1:3], CHAT[1:]])
@pytest.mark.parametrize("prompt", [True, False])
def test_the_template_renders_as_trls_copy_of_llamas(tokenizer, messages, prompt):
    import trl

    theirs = (Path(trl.__file__).parent / "chat_templates" / "llama3_2.jinja").read_text()
    ours = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    assert ours == tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt, chat_template=theirs, date_string="26 Jul 2024"
    )
    assert ours.count("<|begin_of_text|>") == 1


def test_the_template_asks_no_clock():
    template = (PATH / "chat_template.jinja").read_text()
    assert "26 Jul 2024" in template and "strftime" not in template and "date_string" not in template


def test_its_special_tokens_are_llamas(tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert tokenizer("x")["input_ids"].count(tokenizer.bos_token_id) == 1
    for token in ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>", "<|eom_id|>"):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1


def test_it_splits_as_llama_3_does(tokenizer):
    split = json.loads((PATH / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    assert split == (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("Na+ 12345 it's\n\n- x")]
    assert pieces == ["Na", "+", "Ġ", "123", "45", "Ġit", "'s", "ĊĊ", "-", "Ġx"]


@pytest.mark.parametrize("text", ["α-tocopherol 5-HT(1A) Ca²⁺ naïve — 10 µM", " two  blanks\n\n\ttab ", "日本語 🙂"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_prompts_tokens_are_a_prefix_of_the_chats(tokenizer):
    for document in sample_documents()[:40]:
        for chat in task_chats(document, "conversation"):
            ids, weights = encode(tokenizer, chat)
            for turn in (2, 4, 6):
                text = tokenizer.apply_chat_template(chat[:turn], tokenize=False, add_generation_prompt=True)
                prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert ids[: len(prompt)] == prompt
            answers = "".join(m["content"] + "<|eot_id|>" for m in chat if m["role"] == "assistant")
            assert tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight >= 1]) == answers


def test_it_is_shaped_like_llama_3_2(model):
    config = AutoConfig.from_pretrained(PATH)
    assert config.model_type == "llama" and config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.rope_parameters["rope_type"] == "llama3" and config.max_position_embeddings >= 3072
    assert config.rope_parameters["original_max_position_embeddings"] < config.max_position_embeddings
    stops = {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"}
    assert len(model.generation_config.eos_token_id) == len(stops)


def test_every_matrix_can_be_k_quantised(model):
    rows = {name: weight.shape[1] for name, weight in model.named_parameters() if weight.ndim == 2}
    assert {name: width for name, width in rows.items() if width % 256} == {}


def test_it_is_small_and_its_card_names_its_weights():
    assert sum(file.stat().st_size for file in PATH.iterdir()) <= 10_000_000
    weights = (PATH / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (PATH / "README.md").read_text()


def test_it_starts_out_looking_back(tokenizer):
    torch.manual_seed(0)
    start = build_model(tokenizer)
    start.set_attn_implementation("eager")
    attention = start(torch.randint(0, 1500, (1, 60)), output_attentions=True).attentions[0][0, :, 2:]
    assert attention[0].diagonal(1, 0, 1).mean() > 0.7  # to the token before
    assert attention[1].diagonal(0, 0, 1).mean() > 0.7  # to the one before that


def test_the_rate_rises_holds_and_falls_to_nothing():
    rates = [rate(step, 1000) for step in range(1001)]
    assert rates[0] < 0.03 and max(rates) == rates[500] == 1.0 and rates[1000] == 0.0
    assert rates[:150] == sorted(rates[:150]) and rates[600:] == sorted(rates[600:], reverse=True)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (48, 48)])
def test_muon_updates_in_every_direction_alike(shape):
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(shape))
    matrix.grad = torch.randn(shape) @ torch.diag(torch.logspace(0, -1, shape[1]))
    assert (
        0.6
        < torch.linalg.svdvals(orthogonalised(matrix.grad)).min()
        < torch.linalg.svdvals(orthogonalised(matrix.grad)).max()
        < 1.3
    )
    Muon([matrix], lr=0.01).step()
    assert matrix.pow(2).mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)  # as large as Adam's, by its own scale
    assert (matrix * matrix.grad).sum() < 0


@pytest.mark.slow
def test_pretraining_is_repeatable_and_goes_on_after_an_interruption(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_base, "build_tokenizer", lambda seed: AutoTokenizer.from_pretrained(PATH))
    for module, name, value in ((tiny_rows, "TOKENS", 512), (tiny_rows, "COPY_STEPS", 2), (tiny_base, "KEEP_EVERY", 3)):
        monkeypatch.setattr(module, name, value)
    whole, _ = tiny_base.train(None, 5)
    (tmp_path / "work").mkdir()
    losses = []

    def interrupt(model, batch):
        losses.append(loss_of(model, batch))
        if len(losses) == 5:
            raise KeyboardInterrupt
        return losses[-1]

    monkeypatch.setattr(tiny_base, "loss_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_base.train(tmp_path / "work", 5)
    resumed, _ = tiny_base.train(tmp_path / "work", 5)
    assert len(losses) == 7
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
