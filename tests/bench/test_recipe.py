"""Recipes at equal time: two are really trained and compared, resumed, and refused where they would not compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from bench.recipe import (
    BEGIN,
    DEFAULT,
    END,
    RECIPES,
    RESULTS,
    Job,
    main,
    read_answers,
    results_table,
    settle_recipe,
    write_page,
)
from bench.recipe_articles import main as answer_more
from data.corpus import read_corpus
from data.files import write_json
from data.schema import TASKS
from pipeline.config import apply_settings, resolve_explicit
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import make_plan
from pipeline.plan.hardware import named_device
from pipeline.plan.lengths import usual_lengths

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.mark.slow
def test_two_recipes_are_trained_compared_resumed_and_others_refused(tmp_path, capsys):
    data, out, work = tmp_path / "rows.jsonl", tmp_path / "out.json", tmp_path / "work"
    data.write_text("".join(SAMPLE[:90]), encoding="utf-8")
    command = ["--data", str(data), "--minutes", "0.03", "--articles", "2", "--preset", "tiny"]
    command += ["--work", str(work), "--out", str(out)]
    assert main([*command, "--recipes", "separate"]) == 0
    first = json.loads(out.read_text(encoding="utf-8"))
    assert list(first["recipes"]) == [DEFAULT, "separate"] and first["job"]["articles"] == {
        "train": 24,
        "validation": 2,
        "without_names": first["job"]["articles"]["without_names"],
    }
    assert first["job"]["preset_settings"]["train.learning_rate"] == 2e-3
    own = first["recipes"]["separate"]
    assert own["steps"] >= 1 and own["seconds"] > 0 and own["validation_loss"] > 0 and own["examples"] == 72
    assert set(own["answers"]["plain"]["tasks"]) == set(TASKS) and own["answers"]["grounded"]["rates"]["ungrounded"] == 0
    assert -1 <= own["against_default"]["micro"]["difference"] <= 1 and "against_default" not in first["recipes"][DEFAULT]
    assert "zolamine" not in out.read_text(encoding="utf-8") and "completion" not in out.read_text(encoding="utf-8")

    capsys.readouterr()
    assert main([*command, "--recipes", "separate"]) == 0  # all there: nothing is trained
    assert json.loads(out.read_text(encoding="utf-8")) == first and "s a step" not in capsys.readouterr().err

    with FileLock(work / "batch-8.lock"):  # as another command that is at it
        assert main([*command, "--recipes", "batch-8"]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == first

    more = [*command[:2], "--articles", "3", *command[-4:]]
    with FileLock(work / "separate.lock"):  # as another command that is at it
        assert answer_more(more) == 0
    assert "not answered yet: separate" in capsys.readouterr().out and json.loads(out.read_text(encoding="utf-8")) == first
    answered = [(work / name / "grounded" / "completions.jsonl").read_text(encoding="utf-8") for name in (DEFAULT, "separate")]
    assert answer_more(more) == 0
    last = json.loads(out.read_text(encoding="utf-8"))
    assert last["job"]["articles"]["validation"] == 3 and "on 3 validation articles" in capsys.readouterr().out
    for before, name in zip(answered, (DEFAULT, "separate"), strict=True):
        assert last["recipes"][name]["answers"]["grounded"]["articles"] == 3
        assert (work / name / "grounded" / "completions.jsonl").read_text(encoding="utf-8").startswith(before)
    assert last["recipes"]["separate"]["seconds"] == own["seconds"]  # nothing was trained
    assert last["recipes"]["separate"]["answers"]["plain"] == own["answers"]["plain"]
    assert main([*command, "--articles", "3", "--recipes", "separate"]) == 0  # goes on from there
    assert answer_more([*more[:3], "2", *more[4:]]) == 2
    assert "has 3 articles already" in capsys.readouterr().err
    write_json(out, first)

    changed = json.loads(out.read_text(encoding="utf-8"))
    changed["job"]["preset_settings"]["train.learning_rate"] = 1e-4  # as if the preset had been changed since
    write_json(out, changed)
    assert main([*command, "--recipes", "separate"]) == 0
    job = Job("tiny", 0.03, *[read_corpus(data).documents[:4]] * 3, work)
    assert settle_recipe(job, RECIPES["batch-8"], changed["job"]["preset_settings"]).train.learning_rate == 1e-4
    write_json(out, first)

    data.write_text("".join(SAMPLE[3:93]), encoding="utf-8")
    assert main(command) == 2
    assert "data_sha256" in capsys.readouterr().err
    data.write_text("".join(SAMPLE[:90]), encoding="utf-8")
    assert main([*command, "--minutes", "0.05"]) == 2
    assert "minutes 0.03, not 0.05" in capsys.readouterr().err
    assert main([*command, "--recipes", "separate", "--set", "train.learning_rate=2e-3"]) == 0  # what they were laid over
    capsys.readouterr()
    assert main([*command, "--set", "lora.r=8"]) == 2
    assert "laid over lora.r=64, not 8" in capsys.readouterr().err
    write_json(out, first | {"job": {key: value for key, value in first["job"].items() if key != "loss"}})
    assert main(command) == 2
    assert "have loss TRL's, not ours" in capsys.readouterr().err
    write_json(out, first)
    assert json.loads(out.read_text(encoding="utf-8")) == first


@pytest.mark.slow
def test_another_corpus_can_be_answered_and_none_that_was_learnt_from(tmp_path, capsys):
    data, other, out, work = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "out.json", "work"))
    data.write_text("".join(SAMPLE[:30]), encoding="utf-8")
    other.write_text("".join(SAMPLE[30:60]), encoding="utf-8")
    command = ["--data", str(data), "--validation", str(other), "--minutes", "0.02", "--articles", "2", "--preset", "tiny"]
    command += ["--work", str(work), "--out", str(out), "--answers", "grounded"]
    assert main([*command, "--recipes", "without-title"]) == 0
    results = json.loads(out.read_text(encoding="utf-8"))
    assert "F1 on 2 articles of b.jsonl" in capsys.readouterr().out and results["job"]["held_out"]["data"] == "b.jsonl"
    assert results["job"]["articles"]["train"] == 10 and results["recipes"][DEFAULT]["examples"] == 10
    assert answer_more([*command[:4], "--articles", "3", *command[10:14]]) == 0
    assert "F1 on 3 articles of b.jsonl" in capsys.readouterr().out
    other.write_text("".join(SAMPLE[33:60]), encoding="utf-8")
    assert main(command) == 2 and "held_out" in capsys.readouterr().err
    other.write_text("".join(SAMPLE[27:60]), encoding="utf-8")
    assert main(command) == 2
    assert f"{other}: 1 articles stand in {data} too" in capsys.readouterr().err
    assert main([*command[:2], *command[4:]]) == 2 and "not None" in capsys.readouterr().err


def test_every_recipe_can_be_planned_and_differs_from_the_default():
    seen = {}
    for name, recipe in RECIPES.items():
        settings = apply_settings(resolve_explicit("llama-3.2-3b", None, ["train.layout=conversation", *recipe.settings]))
        plan = make_plan(settings, find_architecture(settings.model.name), named_device("h200"), usual_lengths())
        seen[name] = (plan.settings, recipe.texts)
    assert len({str(one) for one in seen.values()}) == len(RECIPES)


def example_results() -> dict:
    figures = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "ci95": [0.4, 0.6]}
    answers = {
        "grounded": {"tasks": dict.fromkeys(TASKS, figures), "micro": figures, "rates": {}, "seconds_an_article": 1.5},
        "plain": {"articles": 20, "rates": {"duplicate": 0.25, "truncated": 0.125, "ungrounded": 0.0625}},
        "false_alarms": dict.fromkeys(TASKS, 0.3),
    }
    one = {"steps": 40, "passes": 0.2, "validation_loss": 0.5, "answers": answers}
    rows = {task: {"difference": 0.1, "p_corrected": 0.01} for task in TASKS}
    rows["diseases"] = {"difference": -0.1, "p_corrected": 0.04}
    rows["relations"] = {"difference": 0.1, "p_corrected": 0.2}
    job = {
        "preset": "tiny",
        "preset_settings": {"lora.r": 64},
        "minutes": 8,
        "articles": {"validation": 20, "without_names": 9},
        "processor": "x",
        "threads": 2,
    }
    return {"level": 0.05, "job": job, "recipes": {DEFAULT: one, "separate": one | {"against_default": rows}}}


def test_answers_to_other_articles_beside_those_asked_count_for_nothing(tmp_path):
    one, other = read_corpus(ROOT / "data" / "sample.jsonl").documents[:2]
    rows = [{"document": each.id, "task": task, "completion": "-", "finish": "stop"} for each in (one, other) for task in TASKS]
    (tmp_path / "completions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert [document.id for document in read_answers(tmp_path, [other]).documents] == [other.id]


def test_the_table_says_what_the_paired_test_decided():
    table = results_table(example_results())
    default, separate = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert (separate["better in"], separate["worse in"]) == ("chemicals", "diseases") and default["better in"] == ""
    assert (separate["repeated"], separate["truncated"], separate["not in the text"], separate["false alarms"]) == (
        "25.0", "12.5", "6.2", "30.0",
    )  # fmt: skip
    assert separate["answering, s an article"] == "1.5" and "under 30" in table.note


def test_without_plain_answers_the_table_has_no_columns_of_them():
    results = example_results()
    del results["recipes"][DEFAULT]["answers"]["plain"]  # the other recipe shares them
    table = results_table(results)
    assert table.header[-1] == "answering, s an article" and {len(row) for row in table.rows} == {len(table.header)}
    assert "plain" not in table.note and "false alarms: of 9 texts" in table.note


def test_the_page_has_every_recipe_measured_or_not(tmp_path):
    page = tmp_path / "page.md"
    own, other = (BEGIN.format(file=name) for name in ("recipe-cpu.json", "other.json"))
    page.write_text(f"# Title\n\n{own}\nold\n{END}\n\n{other}\nkept\n{END}\n\nrest\n", encoding="utf-8")
    write_page(example_results(), RESULTS, page)
    text = page.read_text(encoding="utf-8")
    for elsewhere in (tmp_path / "other.json", RESULTS.with_name("unmarked.json")):
        write_page(example_results(), elsewhere, page)
    assert page.read_text(encoding="utf-8") == text and f"{other}\nkept\n" in text
    assert text.startswith("# Title") and text.endswith("rest\n") and "old" not in text
    assert text.index("Not measured: ") > text.index("| separate |") and "`batch-8`" in text
    assert "| default | lora.r=64 |" in text
