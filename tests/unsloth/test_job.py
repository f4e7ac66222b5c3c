"""`medner run --preset t4` on a Llama of two layers: plan, untuned score, 4-bit training, evaluation, export and its check."""

from __future__ import annotations

import json

import pytest
import torch
from quick_kernels import use_quick_kernels
from two_layer_job import documents

from data.files import write_jsonl
from data.readers.rows import document_rows

pytestmark = pytest.mark.skipif(torch.cuda.get_device_capability() != (7, 5), reason="the preset is a T4's")


def test_the_whole_job_with_preset_t4(reference, tmp_path, monkeypatch, capsys):
    from pipeline.cli import main

    use_quick_kernels(monkeypatch)
    known = documents(4)
    files = [
        f"data.{name}={write_jsonl(tmp_path / f'{name}.jsonl', document_rows(part))}"
        for name, part in {"train": known, "validation": known[:2], "test": known[2:]}.items()
    ]
    run, chosen = tmp_path / "run", [f"model.name={reference / 'knowing'}", "train.max_steps=2", "train.evaluations=2"]
    chosen += ["train.layout=conversation"]  # the one that the base knows
    chosen += ["train.effective_batch_size=2", "train.learning_rate=1e-5", "train.report_to=none"]
    chosen += ["export.gguf=[q8_0]", "export.merge=true"]
    code = main(["run", "--preset", "t4", "--out", str(run), "--set", *files, *chosen])
    said = capsys.readouterr().err
    assert code == 0, said
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["engine"], manifest["device"]) == ("unsloth", "Tesla T4")
    metrics = json.loads((run / "eval/test/metrics.json").read_text())
    assert metrics["micro"]["f1"] == 1.0 and metrics["baselines"]["base_model"]
    parity = json.loads((run / "export/parity.json").read_text())
    assert parity["models"].keys() == {"merged", next(one.name for one in (run / "export").glob("*.q8_0.gguf"))}
    assert all(facts["exact_completions"] == 1.0 for facts in parity["models"].values())
    adapter = json.loads((run / "adapter/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(reference / "knowing")
