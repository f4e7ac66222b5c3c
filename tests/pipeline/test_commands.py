"""`medner compare` and `medner export` through the command line, on runs whose answers or weights are fixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
from fixed_run import make_run
from gguf import GGUFReader

from data.schema import Document
from data.split import read_split_folder
from eval.scoring.parse import Answer, write_predictions
from pipeline.cli import main
from pipeline.run_folder import read_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), test=8)


@pytest.fixture
def runs(made, tmp_path) -> tuple[Path, Path]:
    """Two runs on one split: one answers everything as gold does, the other nothing."""
    first, second = (shutil.copytree(made, tmp_path / name) for name in ("right", "silent"))
    for split in ("validation", "test"):
        documents = read_split_folder(made / "data")[split]
        write_predictions(answers(documents, right=True), first / "eval" / split / "predictions.jsonl")
        write_predictions(answers(documents, right=False), second / "eval" / split / "predictions.jsonl")
    return first, second


def answers(documents: list[Document], *, right: bool) -> dict[tuple[str, str], Answer]:
    asked = [(document, task) for document in documents for task in document.tasks]
    return {(d.id, task): Answer(d.gold(task) if right else (), "ok" if right else "empty") for d, task in asked}


def test_two_runs_are_compared_on_the_same_articles(runs, capsys):
    assert main(["compare", *map(str, runs), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    chemicals = compared["scores"]["chemicals"]
    assert (compared["documents"], chemicals["a"], chemicals["b"], chemicals["difference"]) == (8, 1, 0, -1)
    assert main(["compare", *map(str, runs), "--split", "validation"]) == 0
    shown = capsys.readouterr().out
    assert "right" in shown and "silent" in shown and "same 3 documents" in shown
    assert "|" not in shown and "**" not in shown, "a table for a terminal, not Markdown's source"
    words = " ".join(shown.split())
    assert "3 articles: under 30, these intervals are too narrow" in words
    assert "corrected: by Holm's method, since 5 rows are tested at once" in words


def test_a_run_alone_is_set_beside_its_baselines(runs, capsys):
    right, silent = runs
    assert main(["compare", str(right), "--json"]) == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    assert list(systems)[0] == "dictionary" and systems["adapter"]["tasks"]["chemicals"]["f1"] == 1
    assert list(systems)[-3:] == ["adapter", "adapter, filtered", "adapter, filtered, known names"]
    assert not systems["adapter, filtered"]["rates"]["duplicate"]
    against = systems["adapter"]["against"]["dictionary"]["chemicals"]
    assert against["a"] == systems["dictionary"]["tasks"]["chemicals"]["f1"] < against["b"] == 1
    assert main(["compare", str(right)]) == 0
    assert "ahead of dictionary in" in capsys.readouterr().out
    config = (right / "config.yaml").read_text(encoding="utf-8")
    (right / "config.yaml").write_text(config.replace("grounded: false", "grounded: true"), encoding="utf-8")
    assert main(["compare", str(right), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["systems"])[-2:] == ["grounded", "grounded, known names"]
    (silent / "eval/test/predictions.jsonl").unlink()
    assert main(["compare", str(silent)]) == 2
    assert "evaluate it first: medner evaluate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "eval/test/predictions.jsonl").unlink(), "predictions.jsonl: no such file"),
        (lambda run: (run / "manifest.json").unlink(), "not a run folder"),
        (lambda run: spoil_gold(run / "data/documents.jsonl"), "different test sets"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_a_line(runs, spoil, message, capsys):
    spoil(runs[1])
    assert main(["compare", *map(str, runs)]) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and err.count("\n") == 1


def spoil_gold(path: Path) -> None:
    """The same articles, in each of which a relation is less."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row | {"relations": row["relations"][1:]}) + "\n" for row in rows), encoding="utf-8")


def test_only_what_was_evaluated_is_exported(made, capsys):
    assert main(["export", str(made)]) == 2
    assert "evaluate" in capsys.readouterr().err and not (made / "export").exists()


@pytest.mark.slow
def test_an_export_is_written_compared_and_recorded(made, tmp_path, capsys):
    """Three articles cannot show that nothing was lost, so the command ends with 1 and says what it compared."""
    run = shutil.copytree(made, tmp_path / "run")
    read_run(run).stage("evaluate", dict)
    assert main(["export", str(run), "--gguf", "f16", "--merged", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    (name,) = facts["files"]
    assert name.endswith(".f16.gguf") and (run / "export" / name).is_file() and (run / "export/Modelfile").is_file()
    assert (run / "export/merged/model.safetensors").is_file() and facts["parity"].keys() == {"merged", name}
    assert facts["parity"][name]["verdict"] == "undecided" and read_run(run).manifest["stages"]["export"]["files"] == [name]


@pytest.fixture(scope="module")
def exporting(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("exporting"), ["export.gguf=f16"])


@pytest.mark.slow
def test_a_file_that_answers_otherwise_fails_the_whole_job(exporting, tmp_path, capsys):
    """Three articles leave a good file undecided: the job is done, `export` says 1 and nothing is pushed. A spoilt one: 1."""
    good, spoilt = (shutil.copytree(exporting, tmp_path / name) for name in ("good", "spoilt"))
    (tmp_path / "empty").mkdir()  # no llama.cpp: a setting that the last stage refuses, when all else is done
    assert main(["run", "--out", str(good), "--set", f"export.llama_cpp={tmp_path / 'empty'}"]) == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err
    scored = read_run(good).manifest["stages"]["evaluate_base"]
    assert main(["run", "--out", str(good)]) == 0
    assert read_run(good).manifest["stages"]["evaluate_base"] == scored, "the base was scored again"
    shown = capsys.readouterr().out
    (file,) = (good / "export").glob("*.f16.gguf")
    assert f"{file.name}: UNDECIDED, F1 +0.0 points" in shown
    assert "3 validation articles are too few: of 100 files that lose nothing such a check would pass 0" in shown
    before = read_parity(good)["models"][file.name]
    assert main(["export", str(good), "--gguf", "q8_0"]) == 1
    both = read_parity(good)
    assert both["models"][file.name] == before and len(both["models"]) == 2 and file.is_file()
    assert main(["push", str(good), "--repo", "someone/Llama-thing"]) == 2
    assert "is not shown to answer as the adapter" in capsys.readouterr().err

    (spoilt / "export").mkdir()
    broken = Path(shutil.copy(file, spoilt / "export"))
    (tensor,) = (tensor for tensor in GGUFReader(broken, "r+").tensors if tensor.name == "token_embd.weight")
    tensor.data[:] = numpy.roll(tensor.data, 1, axis=0)
    tensor.data.base.flush()
    assert main(["run", "--out", str(spoilt)]) == 1
    shown = capsys.readouterr().out
    assert f"{file.name}: FAILED" in shown and "of answers are equal, fewer than 90%" in shown
    assert read_parity(spoilt)["models"][file.name]["verdict"] == "failed"


def read_parity(run: Path) -> dict:
    return json.loads((run / "export/parity.json").read_text(encoding="utf-8"))
