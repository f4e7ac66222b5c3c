"""What is kept of a demo with another seed: its figures as the run's own files have them, a row each."""

from __future__ import annotations

import json

from bench.demo import as_table, read_demo
from data.files import write_json
from data.schema import TASKS
from data.table import as_text


def test_a_run_is_read_from_its_own_files(tmp_path):
    figures = {"tasks": {task: {"f1": 0.8} for task in TASKS}, "micro": {"f1": 0.75}, "documents": 104}
    write_json(tmp_path / "eval/test/metrics.json", figures)
    write_json(tmp_path / "eval/test/grounded/metrics.json", figures | {"micro": {"f1": 0.77}})
    write_json(tmp_path / "manifest.json", {"stages": {"train": {"seconds": 226.4}}})
    change = {"change": -0.001, "ci95": [-0.02, 0.01]}
    model = {"quant": "F16", "micro": change | {"power": {}}, "verdict": "passed", "exact_completions": 0.99}
    write_json(tmp_path / "export/parity.json", {"models": {"x.f16.gguf": model}})
    read = read_demo(tmp_path)
    assert read["parity"] == {"F16": change | {"verdict": "passed", "exact_completions": 0.99}}
    assert read["f1"] == dict.fromkeys(TASKS, 0.8) | {"micro": 0.75} and json.dumps(read)
    shown = as_text(as_table([{"seed": 3, "threads": 1, "tests": {"passed": 6}, **read}])).splitlines()
    assert shown[2].split() == ["3", "1", *["80.0"] * 3, "75.0", "77.0", "226", "6", "passed"]
