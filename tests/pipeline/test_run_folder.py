"""A run folder is gone on with by the command that made it, refused to any other, and never taken for something it is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from data.files import write_text
from data.schema import InputError
from pipeline.config import apply_settings, read_settings_file, write_settings
from pipeline.lock import lock_run
from pipeline.run_folder import hash_adapter, hash_files, open_run, read_run, require_stage

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
        ({"train.max_steps": 3}, "has a run with train.max_steps=2, not 3"),
        ({"train.learning_rate": 1.0}, "has a run with train.learning_rate=0.0002, not 1.0"),
        ({"data.seed": 7}, "has a run with data.seed=42, not 7"),
    ],
)
def test_what_a_finished_stage_read_cannot_be_changed(run, data, explicit, message):
    run.stage("train", dict)
    before = files_of(run.path)
    with pytest.raises(InputError) as refused:
        open_run(run.path, explicit, data, fresh=False)
    assert message in str(refused.value) and "--fresh" in str(refused.value)
    assert files_of(run.path) == before


def test_what_no_finished_stage_has_read_can_be_changed(run, data, capsys):
    run.stage("plan", dict)
    again = open_run(run.path, {"train.max_steps": 3, "train.optim": "sgd"}, data, fresh=False)
    assert again.settings.train.max_steps == 3 and again.settings.model.name == "tiny"
    assert again.done("data") and not again.done("plan")  # planned again with what was changed
    assert "changed since this run began: train.max_steps, train.optim" in capsys.readouterr().err
    assert read_run(run.path).settings.train.max_steps == 3


def test_a_refused_setting_is_taken_back_by_leaving_it_out(run, data):
    def refuse():
        raise InputError("train.optim=foo: no such optimiser")

    wrong = open_run(run.path, EXPLICIT | {"train.optim": "foo"}, data, fresh=False)
    with pytest.raises(InputError):
        wrong.stage("plan", refuse)
    again = open_run(run.path, EXPLICIT, data, fresh=False)
    assert again.settings.train.optim == "adamw_torch" and again.done("data")
    again.stage("plan", dict)
    assert "refused" not in read_run(run.path).manifest


def test_a_later_stage_can_be_corrected_without_doing_the_earlier_ones_again(run, data):
    for stage in ("plan", "evaluate_base", "train", "evaluate"):
        run.stage(stage, dict)
    again = open_run(run.path, EXPLICIT | {"export.llama_cpp": "elsewhere", "publish.repo": "me/it"}, data, fresh=False)
    assert again.settings.export.llama_cpp == "elsewhere" and again.settings.publish.repo == "me/it"
    assert list(again.manifest["stages"]) == ["data", "plan", "evaluate_base", "train", "evaluate"]


def test_what_was_planned_stays_where_the_plan_does(run, data):
    run.settings = apply_settings({"eval.batch_tokens": 4096, "train.per_device_eval_batch_size": 3}, run.settings)
    write_settings(run.settings, run.path / "config.yaml")
    for stage in ("plan", "train"):
        run.stage(stage, dict)
    again = open_run(run.path, EXPLICIT | {"export.gguf": ("q8_0",)}, data, fresh=False)
    assert again.settings.eval.batch_tokens == 4096 and again.settings.train.per_device_eval_batch_size == 3
    assert again.settings.export.gguf == ("q8_0",) and again.done("plan")


def test_checkpoints_of_other_settings_are_kept_aside(run, data, capsys):
    run.stage("plan", dict)
    write_text(run.path / "checkpoints" / "checkpoint-1" / "weights", "old")
    open_run(run.path, {"publish.private": False, "eval.base_model": False}, data, fresh=False)
    assert (run.path / "checkpoints" / "checkpoint-1").exists()  # training does not read these
    open_run(run.path, {"train.learning_rate": 0.1}, data, fresh=False)
    assert not (run.path / "checkpoints").exists()
    assert (run.path / "checkpoints-1" / "checkpoint-1" / "weights").read_text(encoding="utf-8") == "old"
    assert "training begins anew" in capsys.readouterr().err


def test_another_number_of_processes_is_planned_again(run, data, monkeypatch, capsys):
    run.stage("plan", lambda: {"processes": 1})
    write_text(run.path / "checkpoints" / "checkpoint-1" / "weights", "old")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not open_run(run.path, EXPLICIT, data, fresh=False).done("plan")
    assert (run.path / "checkpoints-1" / "checkpoint-1" / "weights").exists()  # whose steps had other shares
    assert "processes (planned for 1, now 2)" in capsys.readouterr().err


def test_the_number_of_processes_is_nothing_to_a_trained_run(run, data, monkeypatch):
    run.stage("plan", lambda: {"processes": 2})
    run.stage("train", dict)
    assert open_run(run.path, EXPLICIT, data, fresh=False).done("plan")


@pytest.mark.parametrize("later", [{"format": 2}, {"medner": "99.0"}])
def test_a_run_of_a_later_version_says_so(run, data, later):
    write_text(run.path / "manifest.json", json.dumps(run.manifest | later))
    for fresh in (False, True):
        with pytest.raises(InputError, match="later than this one .*update medner"):
            open_run(run.path, EXPLICIT, data, fresh)


@pytest.mark.parametrize(("spoil", "message"), [("missing", "is missing"), ("half", "is damaged"), ("zeroed", "is damaged")])
def test_an_adapter_is_used_only_as_it_was_trained(run, spoil, message):
    file = write_text(run.path / "adapter" / "adapter_model.safetensors", "weights " * 10)
    run.stage("train", lambda: {"adapter_sha256": hash_adapter(file.parent)})
    require_stage(run, "train")
    if spoil == "missing":
        file.unlink()
    else:
        file.write_text("weights " * 5 + ("\0" * 40 if spoil == "zeroed" else ""), encoding="utf-8")
    with pytest.raises(InputError, match=message) as refused:
        require_stage(read_run(run.path), "train")
    assert str(refused.value).startswith(str(file))


def test_two_programs_cannot_hold_one_folder(tmp_path):
    program = "import sys, pathlib; from pipeline.lock import lock_run\n"
    program += "with lock_run(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    held = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=rf"at work in it \(pid {held.pid} on .* since 20"), lock_run(tmp_path):
        pass
    held.kill()
    held.communicate()
    with lock_run(tmp_path):  # nothing of the killed one stands in the way
        pass


def test_other_data_is_refused_and_the_same_from_elsewhere_is_not(run, data, tmp_path):
    moved = {"file": write_text(tmp_path / "moved.jsonl", "some rows")}
    assert open_run(run.path, {}, moved, fresh=False).done("data")
    data["file"].write_text("other rows", encoding="utf-8")
    with pytest.raises(InputError, match=r"has a run on other data \(.*corpus.jsonl\)"):
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


def test_a_machine_without_git_still_runs(tmp_path, data, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_run(tmp_path / "run", EXPLICIT, data, fresh=False).manifest["git_commit"] is None
