"""Measured figures in README.md and docs/ are those of the committed results.

A figure carries its source right behind it: `3.75 <!-- bench/results/train-cpu.json: ratios.ours_vs_original -->`, with
`* 100` behind the path where it is given in percent.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.recipe import BEGIN, END, PAGE, RESULTS, render_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- (bench/results/[\w.-]+\.json): ([\w.]+)( \* 100)? -->")
FIGURE = re.compile(r"(\d[\d,]*(?:\.\d+)?)(?: s| %)?\s*$")
MUST_BE_MARKED = {"README.md": ("## Measured", "## A small Llama on real abstracts"), "gpus.md": ("| recipe |",)}


def read(text: str) -> list[tuple[str, str, str, str]]:
    """(figure, file, path, " * 100" or "") of each mark; a mark behind no figure gives ""."""
    found = []
    for line in text.splitlines():
        for mark in MARK.finditer(line):
            figure = FIGURE.search(line[: mark.start()])
            found.append((figure[1].replace(",", "") if figure else "", mark[1], mark[2], mark[3] or ""))
    return found


def look_up(tree: object, path: str) -> float:
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def wrong_figures(text: str) -> list[str]:
    wrong = []
    for figure, file, path, percent in read(text):
        value = look_up(json.loads((ROOT / file).read_text(encoding="utf-8")), path) * (100 if percent else 1)
        decimals = len(figure.partition(".")[2])
        if not figure or abs(float(figure) - value) > 0.5 * 10**-decimals + 1e-9:
            wrong.append(f"{figure or 'no figure'} where {file} holds {path} = {value}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_figures_are_those_of_the_committed_results(page):
    assert wrong_figures(page.read_text(encoding="utf-8")) == []


def test_a_wrong_figure_is_found():
    mark = "<!-- bench/results/train-cpu.json: ratios.ours_vs_original -->"
    assert wrong_figures(f"3.75 {mark}") == []
    assert wrong_figures(f"3.76 {mark}") and wrong_figures(f"ours {mark}")
    assert wrong_figures("27.2 <!-- bench/results/train-cpu.json: recipes.ours_conversation.f1.micro * 100 -->") == []


@pytest.mark.parametrize(("page", "start"), [(page, start) for page, starts in MUST_BE_MARKED.items() for start in starts])
def test_every_row_of_a_table_of_measurements_is_marked(page, start):
    (path,) = [one for one in PAGES if one.name == page]
    text = path.read_text(encoding="utf-8")
    lines = text[text.index(start) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    rows = [line for line in lines[first + 1 :] if line.startswith("|")]
    rows = rows[: next((i for i, line in enumerate(lines[first + 1 :]) if not line.startswith("|")), len(rows))]
    assert rows and all(MARK.search(row) for row in rows), [row for row in rows if not MARK.search(row)]


def test_the_tables_of_recipes_are_those_of_the_committed_results():
    page = PAGE.read_text(encoding="utf-8")
    tables = re.findall(f"{BEGIN.format(file='(.+?)')}(.+?){END}", page, re.DOTALL)
    assert RESULTS.name in [name for name, _ in tables]
    for name, shown in tables:
        assert shown.strip() == render_page(json.loads(RESULTS.with_name(name).read_text(encoding="utf-8"))), name


def test_a_ratio_of_training_speeds_says_that_it_compares_layouts_and_what_f1_was():
    """Ours reads an article once, the others once a task: a speed alone would hide that, and what it costs."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if "ratios.ours_vs_" in line:
                other = re.search(r"ratios\.ours_vs_(\w+)", line)[1]
                assert "conversation" in line and "row per task" in line and "F1" in line, line
                for recipe in ("ours_conversation", other):
                    assert f"recipes.{recipe}.f1.micro * 100" in line, line
