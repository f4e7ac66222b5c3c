"""The notebook's own Python runs as it stands; its shell lines name commands and files that are there."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "medner.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_it_holds_no_outputs_and_defines_nothing():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert not any(line.startswith(("def ", "class ")) for cell in code_cells() for line in cell.splitlines())


def test_its_commands_are_understood():
    from pipeline.cli import parse_arguments

    values = {"$DATA": "data/sample.jsonl", "$PRESET": "t4", "$RUN": "runs/notebook"}
    lines = [line for cell in code_cells() for line in cell.splitlines() if line.startswith("!medner ")]
    assert len(lines) >= 5
    for line in lines:
        words = [values.get(word, word) for word in line.removeprefix("!medner ").split()]
        assert parse_arguments(words).command


def test_the_mask_cell_shows_the_answers_in_bold():
    (cell,) = [cell for cell in code_cells() if "completion_mask" in cell]
    cell = cell.replace("from IPython.display import HTML\n", "HTML = str\n").replace("HTML(f", "shown_html = HTML(f")
    scope: dict = {"PRESET": "tiny", "DATA": str(NOTEBOOK.parents[1] / "data" / "sample.jsonl")}
    exec(cell, scope)
    html = scope["shown_html"]
    assert "<b>" in html
    assert html.count("<b>&lt;|eot_id|&gt;</b>") == 3  # an end token for each of the three answers
    assert "<b>&lt;|begin_of_text|&gt;</b>" not in html
