"""The command line: exit codes, one line an error, one JSON object, and nothing heavy imported for light work."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from articles import invent

from data.files import write_jsonl, write_text
from data.prompts import render_prompt
from data.readers.rows import document_rows
from data.schema import Document, InputError, Mention
from pipeline.cli import main
from pipeline.run_folder import open_run, read_run

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}
GOOD = json.dumps({"prompt": render_prompt("A text.", "chemicals"), "completion": "- a"})


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", document_rows(invent(20)))


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def call(*arguments):
    """A process of its own, which tells at its end whether it imported something heavy."""
    tell = f"import atexit, sys; atexit.register(lambda: print(*({HEAVY!r} & sys.modules.keys()), file=sys.stderr)); "
    run = f"from pipeline.cli import main; sys.exit(main({[str(argument) for argument in arguments]!r}))"
    done = subprocess.run([sys.executable, "-c", tell + run], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["--help", "run --help", "data audit {corpus}", "score {corpus} {corpus}", "settings"])
def test_light_work_imports_nothing_heavy(corpus, command):
    code, out, err = call(*command.format(corpus=corpus).split())
    assert (code, err.strip()) == (0, "") and out.strip()


@pytest.mark.parametrize(
    "command",
    [
        "settings --preset tiny",
        "data audit {corpus}",
        "score {corpus} {corpus}",
        "data convert {corpus} {corpus}.txt --to pubtator",
    ],
)
def test_json_is_one_object_and_alone(corpus, capsys, command):
    assert main([*command.format(corpus=corpus).split(), "--json"]) == 0
    out, err = capsys.readouterr()
    assert isinstance(json.loads(out), dict) and not err


def test_what_a_command_prints_on_its_way_goes_to_standard_error(corpus, tmp_path, capsys):
    given = [f"data.{name}={corpus}" for name in ("train", "validation", "test")]
    leaking = ["train", "--preset", "tiny", "--out", str(tmp_path / "run"), "--json", "--set", *given, "model.max_length=3"]
    assert main(leaking) == 2
    out, err = capsys.readouterr()
    assert not out and "WARNING: the given split leaks" in err and "data: done" in err


BAD = [
    (f"{GOOD}\n{GOOD[:-1]}", ":2: broken JSON"),
    ('{"prompt": "x"}', ':1: missing key "completion"'),
    (GOOD.replace('"- a"', "3"), ':1: "completion" must be a string, got int'),
    ('{"prompt": "What?", "completion": "-"}', ":1: unknown prompt"),
    ("", ": the file is empty"),
    (b'{"prompt": "caf\xe9"}', ":1: not UTF-8"),
    (None, ": is a directory, expected a file"),
    ("a,b,c\n", ":1: neither instruct JSONL"),
    ("\ufeff", ": the file is empty"),
    (b"\x1f\x8b\x08\x00", ": is packed with gzip; unpack it first"),
    (b"7|t|Z\x00l\n", ":1: contains a NUL byte"),
    ('{"prompt": ' + "9" * 5000 + "}", ":1: contains a number of thousands of digits"),
    ('{"prompt": ' + "[" * 5000, ":1: JSON nested too deeply"),
]


@pytest.mark.parametrize("command", ["run --preset tiny --out {out} --data {file}", "data convert {file} {out} --to pubtator"])
@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_bad_corpus_is_one_line_with_its_place(tmp_path, capsys, command, content, message):
    file, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(command.format(file=file, out=out).split()) == 2
    stdout, stderr = capsys.readouterr()
    assert not stdout and stderr.startswith(f"medner {name_of(command)}: {file}{message}") and stderr.count("\n") == 1
    if out.exists():  # a run that got nowhere: the mended file may be given with the same command
        assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["stages"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--set train.max_step=3", "unknown setting 'train.max_step'; did you mean train.max_steps?"),
        ("--set train.max_steps=few", "must be a whole number, got 'few'"),
        ("--preset small", "no such preset"),
        ("--config none.yaml", "none.yaml: no such file"),
        ("--set model.name=./none", "model.name=./none: no config.json there"),
        ("--set model.name=none --fresh", "model.name=none: no config.json there"),
        ("--set data.seed=3", "has a run with data.seed=42, not 3"),
        ("--set publish.repo=a/b/c", "must be USER/NAME"),
        ("--data {other}", "has a run on other data"),
        ("--data {folder}", "is a directory, expected a file"),
        ("--data {folder}/none --fresh", "no such file"),
        ("--set data.test={other}", "a given split needs data.train, data.validation and data.test"),
        ("--out {folder}", "exists and is not a run folder"),
        ("--out {folder} --fresh", "not a run folder"),
        ("--out {other}", "not a run folder"),
    ],
)
def test_settings_that_are_wrong_change_nothing(corpus, tmp_path, capsys, arguments, message):
    run = open_run(tmp_path / "run", {"model.name": "tiny", "train.max_steps": 2}, {"file": corpus}, fresh=False)
    run.stage("data", dict)
    other = write_text(tmp_path / "folder" / "other.jsonl", GOOD)
    before = files_of(tmp_path)
    asked = arguments.format(other=other, folder=other.parent).split()
    assert main(["run", "--data", str(corpus), "--out", str(run.path), *asked]) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and 1 <= err.count("\n") <= 2
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "command", ["data audit {file}", "score {file} {file}", "plan --data {file}", "extract --model {file} {file}"]
)
def test_a_packed_file_is_named_with_its_cure(corpus, tmp_path, capsys, command):
    file = tmp_path / "corpus.jsonl.gz"
    file.write_bytes(gzip.compress(corpus.read_bytes()))
    assert main(command.format(file=file).split()) == 2
    err = capsys.readouterr().err
    assert f"{file}: is packed with gzip; unpack it first: gunzip FILE" in err and err.count("\n") == 1


def test_a_run_needs_data(tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "run")]) == 2
    assert "no data: give --data FILE" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_corpus_too_small_to_split_says_so(tmp_path, capsys):
    corpus = write_jsonl(tmp_path / "corpus.jsonl", document_rows(invent(4)))
    assert main(["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run")]) == 2
    assert "4 articles are too few to split 80/10/10" in capsys.readouterr().err


def test_converting_writes_over_nothing(corpus, tmp_path, capsys):
    target = write_text(tmp_path / "target", "mine")
    assert main(["data", "convert", str(corpus), str(target), "--to", "instruct"]) == 2
    assert "exists already; nothing was written" in capsys.readouterr().err
    assert target.read_text(encoding="utf-8") == "mine"


def test_a_path_that_cannot_be_written_is_one_line_and_exit_code_2(corpus, capsys):
    below_a_file = ["data", "convert", str(corpus), str(corpus / "target"), "--to", "instruct"]
    assert main(below_a_file) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"medner data convert: {corpus}") and "choose a folder" in err and err.count("\n") == 1
    with pytest.raises(InputError):
        main([*below_a_file, "--debug"])


WRITERS = [
    "run --preset tiny --data {corpus} --out {place}",
    "train --preset tiny --data {corpus} --out {place}",
    "data convert {corpus} {place} --to instruct",
    "data fetch bc5cdr --from {corpus} --out {place}",
    "evaluate --model {corpus} --data {corpus} --out {place}",
    "extract text --model {corpus} --out {place}.jsonl",
    "serve --model {corpus} --export-space {place}",
]
NO_PLACES = ["{folder}/corpus.jsonl/below", "{folder}/" + 300 * "x", "/proc/x", "/sys/kernel/x"]
NO_PLACES = [place for place in NO_PLACES if place.startswith("{") or Path(place).parent.exists()]


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("place", NO_PLACES)
def test_what_cannot_be_written_is_told_by_every_command_before_it_works(corpus, tmp_path, capsys, command, place):
    place = place.format(folder=tmp_path)
    before = files_of(tmp_path)
    assert main(command.format(corpus=corpus, place=place).split()) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"medner {name_of(command)}: {place}") and "choose a folder that can be written" in err
    assert err.count("\n") == 1 and files_of(tmp_path) == before


def test_many_hours_without_a_gpu_want_a_yes(corpus, tmp_path, monkeypatch, capsys):
    from pipeline import run as job

    monkeypatch.setattr(job, "STAGES", {name: job.STAGES[name] for name in ("data", "plan")})
    command = ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run")]
    long = [*command, "--set", "train.num_train_epochs=1000000"]
    assert main(long) == 2
    err = capsys.readouterr().err
    assert "without a GPU this may take" in err and "give --yes to begin all the same" in err
    assert "plan: " in err and " on cpu, counted, not measured" in err  # the estimate, before anything begins
    assert main([*long, "--yes", "--json"]) == 0
    assert main([*command, "--set", "train.num_train_epochs=1"]) == 0  # minutes need no yes


@pytest.mark.parametrize("name", ["nobody/nothing-3b", "unsloth/Llama-3.2-3B-Instruct"])
def test_without_a_network_a_hub_id_is_refused_at_once(name, tmp_path, monkeypatch, capsys):
    from pipeline.run import SAMPLE

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    command = ["run", "--preset", "tiny", "--data", str(SAMPLE), "--out", str(tmp_path / "run"), "--set", f"model.name={name}"]
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)  # what retries spend, however busy the machine is
    assert main(command) == 2
    err = capsys.readouterr().err
    assert sum(waited) < 5 and "Retry" not in err and name in err


def test_what_bitsandbytes_says_of_a_kernel_on_a_cpu_is_no_news(capsys):
    assert main(["settings"]) == 0
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("command", [WRITERS[0].replace("place", "out"), "data convert {corpus} {out} --to instruct"])
def test_a_disk_that_fills_up_is_told_with_the_path(corpus, tmp_path, command):
    """A file may have 2,000 bytes, and the corpus has more: the write fails for real, in a process of its own."""
    out = tmp_path / "out"
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); from pipeline.cli import main; "
    words = command.format(corpus=corpus, out=out).split()
    done = subprocess.run([sys.executable, "-c", f"{limit}sys.exit(main({words!r}))"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"medner {name_of(command)}: {out}")
    assert done.stderr.endswith("free some space, and give the same command again\n") and done.stderr.count("\n") == 1
    assert not any(path.name.endswith(".part") for path in tmp_path.rglob("*"))


def test_a_disk_without_room_for_checkpoints_is_told_before_the_base_is_scored(corpus, tmp_path, monkeypatch, capsys):
    free = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert main(["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run")]) == 2
    assert "Training, with its checkpoints, needs" in capsys.readouterr().err and not (tmp_path / "run/eval").exists()


SEEN_LATE = {
    "train.optim=foo": "train.optim=foo",
    "train.lr_scheduler_type=foo": "train.lr_scheduler_type=foo",
    "lora.target_modules=foo": "lora.target_modules",
    "lora.lora_dropout=7": "lora.lora_dropout=7: must be below 1",
    "train.seed=-1": "train.seed=-1: must be at least 0",
    "train.learning_rate=.inf": "must be a finite number",
    "train.learning_rate=.nan": "must be a finite number",
    "train.max_steps=0": "must be -1",
    "train.max_steps=-5": "must be -1",
    "train.warmup_steps=-1": "train.warmup_steps=-1: must be at least 0",
    "publish.repo=a/b/c": "must be USER/NAME",
    "model.name={corpus}": "no config.json there",
}


@pytest.mark.parametrize("setting", SEEN_LATE)
def test_a_setting_that_cannot_be_is_told_before_anything_is_scored(corpus, tmp_path, capsys, setting):
    command = ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run"), "--set"]
    assert main([*command, setting.format(corpus=corpus)]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if ": done in" not in line]
    assert len(err) <= 2 and err[0].startswith("medner run: ") and SEEN_LATE[setting] in err[0], err
    assert not (tmp_path / "run/eval").exists() and len(err[0]) < 300


def test_a_setting_that_failed_is_corrected_or_left_out_without_starting_over(corpus, tmp_path, monkeypatch, capsys):
    from pipeline import run as job

    monkeypatch.setattr(job, "STAGES", {name: job.STAGES[name] for name in ("data", "plan")})
    command = ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run")]
    for given in (["--set", "train.optim=foo"], ["--set", "lora.target_modules=foo"]):
        assert main([*command, *given]) == 2
    assert main([*command, "--set", "lora.target_modules=all-linear"]) == 0
    settings = read_run(tmp_path / "run").settings
    assert settings.train.optim == "adamw_torch" and len(settings.lora.target_modules) == 7


def test_checkpoints_go_where_repo_says(corpus, tmp_path, monkeypatch):
    from pipeline import run as job

    monkeypatch.setattr(job, "STAGES", {name: job.STAGES[name] for name in ("data", "plan")})
    command = ["run", "--preset", "tiny", "--data", str(corpus), "--out", str(tmp_path / "run")]
    assert main([*command, "--set", "publish.checkpoints=true", "--repo", "someone/Llama-thing"]) == 0
    assert read_run(tmp_path / "run").settings.publish.repo == "someone/Llama-thing"


@pytest.mark.parametrize("content", [None, "{", '{"model": {}}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(corpus, tmp_path, capsys, content):
    path = tmp_path / "tokenizer.json"
    if content:
        path.write_text(content)
    assert main(["data", "audit", str(corpus), "--tokenizer", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"medner data audit: --tokenizer {path}: ") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["run --out {run}", "evaluate {run}", "export {run}", "push {run}", "compare {run} {run}"])
def test_a_run_of_a_later_version_says_so_to_every_command(corpus, tmp_path, capsys, command):
    run = open_run(tmp_path / "run", {"model.name": "tiny"}, {"file": corpus}, fresh=False)
    run.record(format=99)
    assert main(command.format(run=run.path).split()) == 2
    err = capsys.readouterr().err
    assert "later than this one" in err and "update medner" in err and err.count("\n") == 1


FOLDED_FOR_EVER = "ǰẖẗẘẙẚΐΰὐὒὔὖᾶῆῖῒΐῗῢΰῤῦῧῶŉև"


@pytest.mark.parametrize("command", ["data audit {file}", "score {file} {file}", "data convert {file} {file}.x --to pubtator"])
def test_letters_that_fold_into_themselves_stop_no_command(tmp_path, capsys, command):
    names = [f"na{letter}me" for letter in FOLDED_FOR_EVER]
    mentions = tuple(Mention(name, "Chemical") for name in names)
    rows = document_rows([Document("d", f"{' '.join(names)} stand here.", None, mentions, ())])
    file = write_jsonl(tmp_path / "corpus.jsonl", rows)
    assert main(command.format(file=file).split()) == 0
    shown = capsys.readouterr().out
    assert not command.startswith("score") or shown.splitlines()[2].split()[1] == "100.0"


def test_work_that_fails_is_one_line_and_exit_code_1(corpus, monkeypatch, capsys):
    monkeypatch.setattr("data.audit.audit_path", lambda *_: 1 / 0)
    assert main(["data", "audit", str(corpus)]) == 1
    out, err = capsys.readouterr()
    assert not out and err == "medner data audit: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["run"], ["data"], ["data", "convert", "a", "b", "--to", "c"]])
def test_a_command_that_is_none_is_exit_code_2(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def name_of(command):
    """The command's whole name: "data fetch" of "data fetch bc5cdr --out x"."""
    words = command.split()
    return " ".join(words[: 2 if words[0] == "data" else 1])


def test_settings_prints_every_setting_with_its_type_default_and_meaning(capsys):
    assert main(["settings", "--preset", "tiny", "--set", "train.max_steps=7", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["train.max_steps"]["value"] == 7 and described["train.max_steps"]["default"] == -1
    assert described["model.name"]["value"] == "tiny" and all({"type", "about"} <= one.keys() for one in described.values())
    assert main(["settings"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} = " in shown for name in described) and "float >= 0 < 1: " in shown
    assert main(["settings", "--set", "lora.rank=3"]) == 2
    assert "unknown setting 'lora.rank'; did you mean lora." in capsys.readouterr().err


def test_a_machine_taken_away_while_the_result_is_printed_is_told_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr("pipeline.cli.tell", lambda text: signal.raise_signal(signal.SIGTERM))
    assert main(["settings"]) == 1
    assert capsys.readouterr().err == "medner settings: interrupted; the same command goes on where it stopped\n"
