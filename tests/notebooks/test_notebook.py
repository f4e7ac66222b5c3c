"""Both notebooks, run from top to bottom by a Jupyter kernel with the tiny preset; and what each platform would do."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import types
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WARNING = re.compile(r"warning|error|traceback", re.IGNORECASE)
QUICK = {  # after eight steps all tokens are near ties, and a file of 16 bits may answer otherwise
    "train": {"max_steps": 24, "evaluations": 2, "effective_batch_size": 4, "report_to": "none"},
    "eval": {"max_new_tokens": 16},
    "export": {"gguf": ["f16"]},
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def sources(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with 40 invented articles, where `medner` is this checkout's, whatever is installed."""
    folder = tmp_path_factory.mktemp("notebooks")
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "articles.jsonl").write_text("".join(lines[:120]), encoding="utf-8")
    command = folder / "bin" / "medner"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m pipeline.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return folder


def execute(name: str, values: dict, place: Path, monkeypatch) -> nbformat.NotebookNode:
    """The notebook as it looks after Run all, with `values` in place of what its parameters cell chooses."""
    notebook = read(name)
    (at,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    chosen = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(chosen))
    monkeypatch.setenv("PATH", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(place))
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(notebook, timeout=600, coalesce_streams=True, resources=where)
    try:
        client.execute()
    finally:
        nbformat.write(notebook, place / f"{name}.ipynb")
    return notebook


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    return [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]


def html(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {}))


@pytest.fixture(scope="module")
def ran(place) -> nbformat.NotebookNode:
    values = {"DATA": str(place / "articles.jsonl"), "PRESET": "tiny", "SETTINGS": QUICK, "RUN": str(place / "first")}
    with pytest.MonkeyPatch.context() as monkeypatch:
        return execute("medical_ner_fine_tuning", values, place, monkeypatch)


@pytest.mark.slow
def test_run_all_trains_scores_and_exports_without_a_warning(ran, place):
    said = "".join(texts(ran))
    assert not [line for line in said.splitlines() if WARNING.search(line)], said
    assert sorted(path.name for path in (place / "first" / "export").glob("*.gguf"))
    assert "F1 beside" in said and "dictionary" in said and "CRF" in said  # beside what it has to beat
    assert "relations (the chemical causes" in said and "PUSH_TO is empty" in said


@pytest.mark.slow
def test_it_shows_the_mask_three_plots_and_the_report_in_a_frame(ran):
    page = html(ran)
    assert page.count("<b>&lt;|eot_id|&gt;</b>") == 3 and "<b>&lt;|begin_of_text|&gt;</b>" not in page
    assert page.count("<iframe") == 1 and "sandbox=" in page
    assert sum("image/png" in o.get("data", {}) for cell in ran.cells for o in cell.get("outputs", [])) == 2


@pytest.mark.slow
def test_two_runs_are_compared_and_their_errors_listed(ran, place, monkeypatch):
    from pipeline.cli import main

    other = ["run", "--preset", "tiny", "--data", str(place / "articles.jsonl"), "--out", str(place / "second"), "--set"]
    settings = [f"{s}.{k}={v}" for s in ("train", "eval") for k, v in QUICK[s].items()]
    assert main([*other, *settings, "train.seed=7", "train.max_steps=4", "eval.base_model=false", "export.gguf="]) == 0
    values = {"RUNS": [str(place / "first"), str(place / "second")], "SPLIT": "test"}
    compared = execute("compare_runs", values, place, monkeypatch)
    said = "".join(texts(compared))
    assert not WARNING.search(said) and "difference" in said
    tables = [o["data"]["text/markdown"] for cell in compared.cells for o in cell.get("outputs", []) if "data" in o]
    assert "F1 on test" in tables[0] and "what it is" in tables[1] and "near" in tables[2]


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_it_holds_no_outputs_defines_nothing_and_uses_no_command_whose_failure_is_ignored(name):
    cells = read(name).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    lines = [line.strip() for source in sources(name) for line in source.splitlines()]
    assert not [line for line in lines if line.startswith(("def ", "class ", "%"))]
    for source in sources(name):
        commands = [n for n, line in enumerate(source.splitlines()) if line.lstrip().startswith("!")]
        assert all(source.splitlines()[n + 1].lstrip().startswith("assert _exit_code") for n in commands)


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_what_it_imports_of_ours_is_there(name):
    for source in sources(name):
        code = re.sub(r"^( *)!.*", r"\1pass", source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in ("data", "eval", "pipeline"):
                module = importlib.import_module(node.module)
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], node.module


def cell_with(word: str) -> str:
    (source,) = [source for source in sources("medical_ner_fine_tuning") if word in source]
    return source


class NotThere(Exception):
    pass


def give(store: dict[str, str]):
    def get(name: str) -> str:
        if name not in store:
            raise NotThere
        return store[name]

    return get


@pytest.mark.parametrize("platform", ["colab", "kaggle", "local"])
def test_secrets_reach_child_processes_and_are_not_printed(platform, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    get = give({"HF_TOKEN": "hf_secret"})
    colab = types.SimpleNamespace(userdata=types.SimpleNamespace(get=get))
    kaggle = types.SimpleNamespace(UserSecretsClient=lambda: types.SimpleNamespace(get_secret=get))
    monkeypatch.setitem(sys.modules, "google", types.SimpleNamespace(colab=colab))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", kaggle)
    exec(cell_with("WANDB_API_KEY"), {"PLATFORM": platform, "os": os})
    shown = capsys.readouterr().out
    assert "hf_secret" not in shown and "WANDB_API_KEY is not set" in shown
    assert os.environ.get("HF_TOKEN") == (None if platform == "local" else "hf_secret")


def test_a_run_is_kept_on_drive_or_fetched_from_the_hub_and_sent_there(tmp_path, monkeypatch):
    mounted, calls = [], []
    colab = types.SimpleNamespace(drive=types.SimpleNamespace(mount=mounted.append))
    monkeypatch.setitem(sys.modules, "google", types.SimpleNamespace(colab=colab))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    programs = types.SimpleNamespace(run=calls.append, Popen=calls.append)
    kept = {"KEEP": "drive", "RUN": "runs/mine", "Path": Path, "subprocess": programs}
    exec(cell_with("drive.mount"), kept)
    assert mounted == ["/content/drive"] and kept["RUN"] == "/content/drive/MyDrive/medner/runs/mine" and not calls
    run = str(tmp_path / "mine")
    exec(cell_with("drive.mount"), kept | {"KEEP": "me/run", "RUN": run})
    download, upload = calls
    assert download == ["hf", "download", "me/run", "--local-dir", run]
    assert upload[:5] == ["hf", "upload", "me/run", run, "."] and "--private" in upload and Path(run).is_dir()


def test_without_a_copy_it_stops_and_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="set REPOSITORY"):
        exec(cell_with('"clone"'), {"REPOSITORY": ""})


def test_with_an_address_it_clones_and_goes_there_once(tmp_path, monkeypatch, capsys):
    import subprocess

    origin = tmp_path / "origin"
    (origin / "pipeline").mkdir(parents=True)
    (origin / "pipeline" / "cli.py").touch()
    git = ["git", "-C", str(origin), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "environ", os.environ | {"COLAB_RELEASE_TAG": "x"})
    for _ in range(2):  # as after a disconnect, in the folder where the first time ended
        exec(cell_with('"clone"'), {"REPOSITORY": origin.as_uri()})
        assert Path.cwd() == tmp_path / "here" / "medner"
    assert capsys.readouterr().out.startswith("colab, in ")


@pytest.mark.parametrize(("gpu", "preset"), [("", "tiny"), ("Tesla T4", "t4"), ("NVIDIA A100-SXM4-40GB", "llama-3.2-3b")])
def test_the_preset_follows_the_gpu_and_a_missing_one_is_explained(gpu, preset, monkeypatch, capsys):
    answer = types.SimpleNamespace(stdout=f"{gpu}\n")
    scope = {"PLATFORM": "colab", "PRESET": "", "sys": sys, "subprocess": types.SimpleNamespace(run=lambda *_, **__: answer)}
    exec(cell_with("get_device_name"), scope)
    assert scope["PRESET"] == preset
    assert ("Change runtime type" in capsys.readouterr().out) == (not gpu)
