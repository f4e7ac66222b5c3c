"""F1 while training, by a real training of the embedded model: what is measured, chosen by it and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from articles import invent

from data.files import read_jsonl
from data.schema import TASKS
from data.split import read_split_folder
from eval.engines.huggingface import ask_model
from eval.scoring.parse import parse_completions
from eval.scoring.score import score_predictions
from pipeline import run as job
from pipeline.config import apply_settings, resolve_explicit
from pipeline.model import load_model, load_tokenizer
from pipeline.training import validation_f1
from pipeline.training.validation_f1 import choose_articles

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.dtype=float32", "train.max_steps=18", "train.evaluations=3", "train.report_to=none", "train.eval_f1_articles=3",
    "train.best_by=f1", "eval.max_new_tokens=24", "eval.base_model=false",
]  # fmt: skip


def test_the_same_few_articles_are_answered_each_time():
    documents = invent(40)
    few = [choose_articles(documents, apply_settings({"train.eval_f1_articles": 5, "data.seed": 3})) for _ in range(2)]
    assert few[0] == few[1] and len({one.id for one in few[0]}) == 5 and few[0] != documents[:5]
    assert choose_articles(documents, apply_settings({"train.eval_f1_articles": 100})) == documents
    assert choose_articles(documents, apply_settings({"train.eval_f1_articles": 0})) == []


@pytest.mark.slow
def test_the_best_checkpoint_has_the_most_f1_and_that_f1_is_its_answers(tmp_path, monkeypatch, capsys):
    """The second checkpoint's micro F1 is put above the last one's, whose loss is less; the tasks' F1 are as measured."""
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (corpus := tmp_path / "corpus.jsonl").write_text("".join(lines[:120]), encoding="utf-8")
    measured, real = [], validation_f1.f1_score

    def raised(*arguments):
        score = real(*arguments)
        return lambda model: measured.append(score(model)) or measured[-1] | {"f1": [0.2, 0.6, 0.4][len(measured) - 1]}

    monkeypatch.setattr(validation_f1, "f1_score", raised)
    explicit = resolve_explicit("tiny", None, [f"data.file={corpus}", *SETTINGS])
    run = job.run_job(tmp_path / "run", explicit, until="train")
    assert list(run.manifest["stages"]) == ["data", "plan", "train"], "the untuned model is not what was asked for"
    facts = run.manifest["stages"]["train"]
    rows = [row for row in facts["losses"] if "eval_loss" in row]
    assert [row["step"] for row in rows] == [6, 12, 18] and rows[2]["eval_loss"] < rows[1]["eval_loss"]
    assert facts["best_step"] == 12 and facts["validation_f1"] == 0.6 and facts["validation_loss"] == rows[1]["eval_loss"]
    best = (run.path / "checkpoints" / "checkpoint-12" / "adapter_model.safetensors").read_bytes()
    assert (run.path / "adapter" / "adapter_model.safetensors").read_bytes() == best
    assert "step 12: validation loss" in (shown := capsys.readouterr().err) and "F1 60.0 (chemicals" in shown

    articles = choose_articles(read_split_folder(run.path / "data")["validation"], run.settings)
    path = ask_model(
        load_model(run.settings, adapter=run.path / "adapter"), load_tokenizer(run.path / "adapter"), articles,
        tmp_path / "completions.jsonl", layout="conversation", max_new_tokens=24, batch_tokens=4096,
    )  # fmt: skip
    scores = score_predictions(articles, parse_completions(row for _, row in read_jsonl(path)))
    assert measured[1] == {"f1": scores["micro"]["f1"]} | {f"f1_{task}": scores["tasks"][task]["f1"] for task in TASKS}
    assert any(figures["f1"] for figures in measured)
    state = json.loads((run.path / "checkpoints" / "checkpoint-18" / "trainer_state.json").read_text())
    assert state["best_metric"] == 0.6  # from which an interrupted training goes on
