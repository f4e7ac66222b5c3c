"""A run folder is gone on with by the command that made it, refused to any other, and never taken for something it is not."""

from __future__ import annotations

import json

import pytest

from data.files import write_text
from data.schema import InputError
from pipeline.config import read_settings_file
from pipeline.run_folder import hash_files, open_run, read_run

EXPLICIT = {"model.name": "tiny", "train.max_steps": 2}


@pytest.fixture
def data(tmp_path):
    return {"file": write_text(tmp_path / "corpus.jsonl", "some rows")}


@pytest.fixture
def run(tmp_path, data):
    run = open_run(tmp_path / "runs" / "one", EXPLICIT, data, fresh=False)
    run.stage("data", lambda: {"train": 8})
    return run


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_records_what_it_is_made_of(run, data):
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == run.manifest
    assert manifest["data"] == {"file": str(data["file"])} and manifest["data_sha256"] == hash_files(data.values())
    assert manifest["seed"] == 42 and manifest["versions"]["torch"]
    assert {"medner", "created", "git_commit"} <= manifest.keys()
    assert manifest["stages"]["data"]["train"] == 8 and manifest["stages"]["data"]["seconds"] >= 0
    saved = read_settings_file(run.path / "config.yaml")
    assert saved["model.name"] == "tiny" and saved["train.max_steps"] == 2 and saved["lora.r"] == 16


def test_a_stage_runs_once_and_counts_only_when_it_ended(run, data):
    worked = []
    assert not run.stage("data", lambda: worked.append("again"))
    with pytest.raises(KeyboardInterrupt):
        run.stage("plan", lambda: interrupt(worked))
    again = open_run(run.path, {}, data, fresh=False)
    assert not again.done("plan")
    assert again.stage("plan", lambda: worked.append("plan"))
    assert worked == ["begun", "plan"] and open_run(run.path, {}, data, fresh=False).done("plan")


def interrupt(worked):
    worked.append("begun")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "explicit", [{}, EXPLICIT, {"train.max_steps": 2, "model.dtype": None}, {"data.file": "elsewhere.jsonl"}]
)
def test_the_same_command_or_less_of_it_goes_on(run, data, explicit):
    again = open_run(run.path, explicit, data, fresh=False)
    assert again.done("data") and again.settings == run.settings and again.manifest == run.manifest


@pytest.mark.parametrize(
    ("explicit", "message"),
    [
        ({"train.max_steps": 3}, "holds a run with train.max_steps=2, not 3"),
        ({"train.learning_rate": 1.0}, "holds a run with train.learning_rate=0.0002, not 1.0"),
        ({"data.seed": 7}, "holds a run with data.seed=42, not 7"),
    ],
)
def test_other_settings_are_refused(run, data, explicit, message):
    before = files_of(run.path)
    with pytest.raises(InputError) as refused:
        open_run(run.path, explicit, data, fresh=False)
    assert message in str(refused.value) and "--fresh" in str(refused.value)
    assert files_of(run.path) == before


def test_other_data_is_refused_and_the_same_from_elsewhere_is_not(run, data, tmp_path):
    moved = {"file": write_text(tmp_path / "moved.jsonl", "some rows")}
    assert open_run(run.path, {}, moved, fresh=False).done("data")
    data["file"].write_text("other rows", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds a run on other data \(.*corpus.jsonl\)"):
        open_run(run.path, {}, data, fresh=False)


def test_a_run_that_got_nowhere_is_begun_again(tmp_path, data):
    """A corpus that was refused, mended and given again must not need --fresh."""
    path = tmp_path / "run"
    open_run(path, EXPLICIT, data, fresh=False)
    data["file"].write_text("mended rows", encoding="utf-8")
    run = open_run(path, {"train.max_steps": 3}, data, fresh=False)
    assert run.settings.train.max_steps == 3 and run.manifest["data_sha256"] == hash_files(data.values())
    assert read_run(path).manifest == run.manifest


def test_fresh_starts_over(run, data):
    (run.path / "adapter").mkdir()
    again = open_run(run.path, {"train.max_steps": 3}, data, fresh=True)
    assert not again.done("data") and again.settings.train.max_steps == 3
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "manifest.json"]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "mine"},
        {"deep/thesis.txt": "mine"},
        {"manifest.json": '{"name": "an extension for a browser"}', "background.js": "mine"},
        {"manifest.json": "[]"},
    ],
)
def test_what_is_no_run_is_left_alone(tmp_path, data, files, fresh):
    folder = tmp_path / "home"
    for name, text in files.items():
        write_text(folder / name, text)
    before = files_of(folder)
    with pytest.raises(InputError, match="not a run folder"):
        open_run(folder, EXPLICIT, data, fresh)
    assert files_of(folder) == before


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_is_no_run(tmp_path, data, fresh):
    file = write_text(tmp_path / "file", "mine")
    with pytest.raises(InputError, match="not a run folder"):
        open_run(file, EXPLICIT, data, fresh)
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("fresh", [False, True])
def test_an_empty_folder_will_do(tmp_path, data, fresh):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert open_run(folder, EXPLICIT, data, fresh).path == folder


def test_a_broken_manifest_is_named_with_its_line(run, data):
    (run.path / "manifest.json").write_text('{\n"stages": {', encoding="utf-8")
    for fresh in (False, True):
        with pytest.raises(InputError, match=r"manifest\.json:2: broken JSON"):
            open_run(run.path, EXPLICIT, data, fresh)


def test_reading_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="medner run --out"):
        read_run(tmp_path / "none")


@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_kill_left_before_the_first_manifest_is_begun_again(tmp_path, data, fresh):
    write_text(tmp_path / "runs" / "killed" / "config.yaml", "model:\n  name: other\n")
    run = open_run(tmp_path / "runs" / "killed", EXPLICIT, data, fresh=fresh)
    assert read_run(run.path).settings.model.name == "tiny"
