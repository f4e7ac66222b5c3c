"""bench/train.py: the recipes are what they say, every article is seen once, and what was not measured says why."""

from __future__ import annotations

import json

import pytest

from bench.train import SAMPLE, lengthen, main, make_report, parse_arguments, render_report, repeat
from bench.train_recipes import RECIPES, recipe_settings
from data.schema import Document
from pipeline.config import apply_settings
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import make_plan
from pipeline.plan.hardware import named_device
from pipeline.plan.lengths import usual_lengths

FIGURES = {"articles_per_second": 2.0, "tokens_per_second": 900.0, "matrix_share": 0.1, "padding": 0.2, "peak_memory": 2**30}


@pytest.fixture
def plan():
    settings = apply_settings({"model.name": "unsloth/Llama-3.2-3B-Instruct"})
    return make_plan(settings, find_architecture(settings.model.name), named_device("h200"), usual_lengths())


def test_the_stock_notebook_is_2_x_4_in_4_bit_with_checkpointing(plan):
    settings = recipe_settings(RECIPES["unsloth"], plan)
    train = settings.train
    assert (settings.model.load_in_4bit, train.gradient_checkpointing, train.layout) == (True, True, "separate")
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (2, 4)


def test_the_tuned_one_differs_from_ours_in_nothing_but_our_own_work(plan):
    tuned, ours = recipe_settings(RECIPES["unsloth_tuned"], plan), recipe_settings(RECIPES["ours_separate"], plan)
    assert tuned == ours


def test_a_report_has_every_ratio_or_a_reason():
    results = {"original": FIGURES, "unsloth": {"skipped": "Unsloth needs a CUDA GPU"}}
    results["ours_conversation"] = FIGURES | {"articles_per_second": 8.0, "f1": {"micro": 0.5}}
    report = json.loads(json.dumps(make_report(results, "cpu", "tiny", parse_arguments(["--tiny"]))))
    assert report["ratios"] == {
        "ours_vs_original": 4.0,
        "ours_vs_trl": None,
        "ours_vs_unsloth": None,
        "ours_vs_unsloth_tuned": None,
    }
    assert report["reasons"]["ours_vs_unsloth"] == "Unsloth needs a CUDA GPU"
    assert report["reasons"]["ours_vs_trl"] == "not run"
    text = render_report(report)
    assert "not run: Unsloth needs a CUDA GPU" in text
    assert "ours_vs_original: 4.0" in text


def test_documents_are_repeated_under_ids_of_their_own():
    documents = repeat([Document("a", "x"), Document("b", "y")], 5)
    assert len({document.id for document in documents}) == 5


def test_articles_are_given_a_real_length():
    def tokenizer(text, add_special_tokens):
        return {"input_ids": text.split()}

    assert len(lengthen(Document("a", "one two three"), tokenizer, 450).text.split()) == 390
    assert lengthen(Document("a", "one two " * 400), tokenizer, 450).text.count(" ") == 389


@pytest.mark.slow
def test_a_recipe_runs_on_a_cpu(capsys):
    main(["--tiny", "--model", "tiny", "--recipe", "ours_conversation", "--articles", "24", "--test-articles", "0"])
    figures = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert figures["articles_per_second"] > 0
    assert figures["steps"] == 6
    assert 0 <= figures["padding"] < 0.5
    assert SAMPLE.exists()
