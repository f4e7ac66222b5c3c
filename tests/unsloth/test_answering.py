"""Answers of a model that Unsloth has loaded against those of the plain engine, in float32."""

from __future__ import annotations

import pytest
import torch
from quick_kernels import use_quick_kernels
from two_layer_job import answer, settings

from data.files import read_jsonl
from data.schema import InputError


@pytest.fixture(scope="module")
def model(reference):
    from pipeline.model import load_model

    return load_model(settings(reference / "base", "float32"), adapter=reference / "adapter")


def same(rows: list[dict], path, tolerance: float = 1e-4) -> None:
    wanted = [row for _, row in read_jsonl(path)]
    wanted = sorted(wanted, key=lambda row: (row["document"], row["task"]))
    assert [{**row, "logprobs": None} for row in rows] == [{**row, "logprobs": None} for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        texts, chances = zip(*row["logprobs"], strict=True)
        assert list(texts) == [text for text, _ in other["logprobs"]]
        assert list(chances) == pytest.approx([chance for _, chance in other["logprobs"]], abs=tolerance)


@pytest.mark.parametrize("batch_tokens", [4096, 300])
def test_answers_and_log_probabilities_are_the_plain_ones(model, reference, tokenizer, tmp_path, monkeypatch, batch_tokens):
    """Both documents at once, padded, and one after the other."""
    from eval.engines.unsloth_generate import is_patched

    use_quick_kernels(monkeypatch)
    assert is_patched(model)
    same(answer(model, tokenizer, tmp_path / "answers.jsonl", batch_tokens=batch_tokens), reference / "16bit/answers.jsonl")


def test_grounded_answers_are_the_plain_ones(model, reference, tokenizer, tmp_path, monkeypatch):
    use_quick_kernels(monkeypatch)
    rows = answer(model, tokenizer, tmp_path / "answers.jsonl", grounded=True, max_new_tokens=24)
    same(rows, reference / "16bit/grounded.jsonl")
    assert any(row["completion"] != "-" for row in rows)


def test_a_chat_longer_than_the_model_was_loaded_for_is_refused(reference, tokenizer, tmp_path):
    """Unsloth would cut its ids and not its mask, and fail on the difference."""
    from pipeline.model import load_model

    short = load_model(settings(reference / "base", "float32", model__max_length=128), adapter=reference / "adapter")
    with pytest.raises(InputError, match=r"128"):
        answer(short, tokenizer, tmp_path / "answers.jsonl")


def test_without_a_length_the_models_own_positions_are_the_limit(reference):
    from pipeline.model import load_model

    whole = load_model(settings(reference / "base", "float32", model__max_length=None), adapter=reference / "adapter")
    assert whole.max_seq_length == whole.config.max_position_embeddings == 2048


def test_what_stands_in_for_the_slow_kernels_gives_what_they_give(model, tokenizer, monkeypatch):
    """A padded batch of two, read by the interpreted kernels and by the quick ones."""
    read = torch.tensor([[0] * 8 + tokenizer.encode("Lithium gave tremor.")[:8], tokenizer.encode("Lithium " * 16)[:16]])
    kept = torch.tensor([[0] * 8 + [1] * 8, [1] * 16])
    wanted = {"max_new_tokens": 2, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    slow = model.generate(input_ids=read, attention_mask=kept, **wanted)
    use_quick_kernels(monkeypatch)
    quick = model.generate(input_ids=read, attention_mask=kept, **wanted)
    assert slow.sequences.tolist() == quick.sequences.tolist()
    for one, other in zip(slow.logits, quick.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
