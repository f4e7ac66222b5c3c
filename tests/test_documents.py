"""README, docs/ and recipes/: every command is understood, what a processor can run is run, every link leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import FENCE, MARKS, PAGES, RECIPES, ROOT, Command, page_commands

from data import fetch
from data.corpus import read_corpus
from pipeline.arguments import parse_arguments
from pipeline.cli import main

SHOWN = page_commands()
OURS = {command.words: command for command in SHOWN if command.words[0] == "medner"}
FREE = [command for command in OURS.values() if not command.needs]
TO_RUN = list({" ".join(c.words).replace("runs/demo", "runs/mine"): c for c in FREE}.values())  # one run stands for the other
OTHERS = set(
    [
        "hf",
        "git",
        "cd",
        "ollama",
        "llama-server",
        "ray",
        "vllm",
        "docker",
        "torchrun",
        "accelerate",
        "pip",
        "python",
        "bash",
        "make",
        ".",
    ]
)
ENDS_WITH_1 = {"--cases", "export"}  # a tiny model misreads a sentence; few articles cannot show that files are alike
SHORT = ["--set", "train.max_steps=1", "train.evaluations=1", "train.effective_batch_size=2", "train.report_to=none",
         "eval.base_model=false", "eval.splits=test", "eval.max_new_tokens=4", "export.gguf="]  # fmt: skip
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:docs|recipes|notebooks|tests|bench|pipeline|eval|data)/[\w./-]+\.\w+)`")


def test_each_page_opens_with_its_command():
    for page in PAGES[1:]:
        opening = page.read_text(encoding="utf-8").split("\n## ")[0]
        assert opening.startswith("# ") and (FENCE.search(opening) or "\n    medner " in opening), page.name


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_shown_command_is_understood(command: Command):
    first, rest = command.words[0], list(command.words[1:])
    assert command.needs in ("", *MARKS)
    if first == "medner":
        assert parse_arguments([word for word in rest if word != "…"]).command
        return
    assert first in OTHERS, f"{first}: say what program it is"
    if first == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert rest[0] in targets
    if first == "bash":
        assert (ROOT / rest[0]).is_file()
    if "-m" in rest:
        module = rest[rest.index("-m") + 1]
        assert module == "venv" or importlib.util.find_spec(module), module
    if first == "pip" and "-r" in rest:
        assert (ROOT / rest[rest.index("-r") + 1]).is_file()


def test_most_commands_are_run_and_the_others_say_what_they_need():
    assert len(TO_RUN) >= 20 and len(TO_RUN) >= 0.6 * len(OURS)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the files that the pages name, made of invented articles, and three runs without training."""
    from fixed_run import make_run
    from small_corpus import pack, texts

    folder = tmp_path_factory.mktemp("documents")
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in {
        "corpus": lines[:60],
        "data/sample": lines[:60],
        "a": lines[:24],
        "b": lines[24:33],
        "c": lines[33:42],
    }.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(part), encoding="utf-8")
    (folder / "gold.jsonl").write_text("".join(lines[:3]), encoding="utf-8")  # one article, which the CSV lists nothing of
    (gold,) = read_corpus(folder / "gold.jsonl").documents
    listed = "".join(f"{gold.id},{task},\n" for task in gold.tasks)
    (folder / "predictions.csv").write_text(f"document,task,item\n{listed}", encoding="utf-8")
    (folder / "CDR_Data.zip").write_bytes(pack(texts()))
    for name in ("gold", "predictions"):
        (folder / f"{name}.PubTator").write_text(texts()[fetch.FILES["test"]], encoding="utf-8")
    (folder / "abstracts").mkdir()
    (folder / "abstracts" / "one.txt").write_text("Lithium caused tremor.", encoding="utf-8")
    (folder / "papers.jsonl").write_text(json.dumps({"id": "1", "text": "Lithium caused tremor."}) + "\n", encoding="utf-8")
    (folder / "runs").mkdir()
    run = make_run(folder / "made", ["eval.base_model=false"], train=6, validation=2, test=2)
    assert main(["run", "--out", str(run), "--set", "export.gguf=q8_0"]) == 0
    for name in ("mine", "other", "demo"):
        shutil.copytree(run, folder / "runs" / name)
    shutil.copy(next((run / "export").glob("*.gguf")), folder / "model.q8_0.gguf")
    return folder


@pytest.mark.slow
def test_every_command_that_a_processor_can_run_is_run(place, monkeypatch, capsys):
    from hashlib import sha256

    monkeypatch.setattr(fetch, "SHA256", sha256((place / "CDR_Data.zip").read_bytes()).hexdigest())
    monkeypatch.chdir(place)
    failed = []
    for number, command in enumerate(TO_RUN):
        words = list(command.words[1:])
        if "--out" in words:  # pages share names
            at = words.index("--out") + 1
            words[at] = f"made-{number}/{Path(words[at]).name}"
        words += SHORT if words[0] == "run" else []
        code = main(words)
        said = capsys.readouterr().err
        if "Traceback" in said or code and not (code == 1 and ENDS_WITH_1 & {*words}):
            failed.append(f"{command} ended with {code}: {said}")
    assert failed == []


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)}


def broken_links(page: Path, text: str) -> list[str]:
    """Links to no file, to no heading, or that are no address; and paths in code that are not there."""
    broken = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            broken += [] if re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[^\s]*)?", target) else [target]
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or anchor and anchor not in anchors(to):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found():
    page = PAGES[0]
    assert broken_links(page, "[a](docs/data.md#what-is-read) [b](https://example.org/x) `recipes/demo.sh`") == []
    assert len(broken_links(page, "[a](docs/none.md) [b](docs/data.md#none) [c](http://x) [d](#none) `recipes/none.sh`")) == 5


def test_what_troubleshooting_quotes_is_said_by_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").replace(r"\|", "¦")
    rows = re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
    quoted = [part.replace("¦", "|") for row in rows for part in re.findall(r"`([^`]+)`", row)]
    sources = [path for room in ("data", "eval", "pipeline") for path in (ROOT / room).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in (*sources, *(ROOT / "notebooks").glob("*.ipynb")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines
    assert len(quoted) > 20
    assert [part for part in quoted if part not in code and part not in ("torch", "the loss is nan")] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_short_says_what_to_expect_and_is_a_shell_script(recipe):
    text = recipe.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40 and "Expected" in text and "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(recipe)], check=True)


@pytest.fixture
def command(tmp_path, monkeypatch) -> Path:
    """`medner` and `torchrun` on the path are this checkout's, whatever is installed; 30 invented articles beside them."""
    (tmp_path / "bin").mkdir()
    for name, module in (("medner", "pipeline.cli"), ("torchrun", "torch.distributed.run")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m {module} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    lines = (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "articles.jsonl").write_text("".join(lines[:90]), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "arguments"), [("demo.sh", []), ("laptop.sh", ["articles.jsonl"])])
def test_a_recipe_for_a_processor_runs_in_short(recipe, arguments, command, monkeypatch):
    monkeypatch.chdir(command)
    settings = [*SHORT[:-1], "eval.max_new_tokens=8", "export.gguf=f16" if recipe == "demo.sh" else "export.gguf="]
    given = {"OUT": str(command / "run"), "DATA": str(command / "articles.jsonl"), "PRESET": "tiny"}
    ran = subprocess.run(["bash", str(ROOT / "recipes" / recipe), *arguments, *settings], env=os.environ | given,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "F1 beside" in ran.stdout and "relations (the chemical" in ran.stdout


def test_the_hub_job_is_one_that_the_hub_s_client_takes(monkeypatch):
    hf = shutil.which("hf") or str(Path(sys.executable).with_name("hf"))
    monkeypatch.setenv("PATH", f"{Path(hf).parent}{os.pathsep}{os.environ['PATH']}")
    given = {"REPOSITORY": "https://example.org/medner", "REPO": "me/Llama-x", "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(["bash", str(ROOT / "recipes" / "hub_job.sh"), "--dry-run"], env=os.environ | given,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0 and "Job not submitted" in ran.stdout + ran.stderr and "hf_x" not in ran.stdout
    (job,) = re.findall(r"&& (medner run .*?)'?$", ran.stdout, re.MULTILINE)
    assert parse_arguments(job.split()[1:]).push


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_a_recipe_calls_is_understood(recipe, tmp_path):
    """Run with stand-ins for the programs it calls, which write down their arguments."""
    calls = tmp_path / "calls"
    for name in ("medner", "pip", "torchrun", "hf"):
        stand_in = tmp_path / name
        write = f'printf "%s\\0" {name} "$@" >> "{calls}"; printf "\\n" >> "{calls}"'
        stand_in.write_text(f"#!/bin/sh\n{write}\n", encoding="utf-8")
        stand_in.chmod(0o755)
    given = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "OUT": str(tmp_path / "run"), "REPO": "me/Llama-x",
             "REPOSITORY": "https://example.org/medner"}  # fmt: skip
    first = {"laptop.sh": [str(calls)], "many_gpus.sh": ["2", "--data", "x"]}.get(recipe.name, [])
    subprocess.run(["bash", str(recipe), *first], env=os.environ | given, check=True)
    called = [line.rstrip("\0").split("\0") for line in calls.read_text(encoding="utf-8").splitlines()]
    assert called
    for program, *words in called:
        if program == "medner":
            assert parse_arguments(words).command
        elif program == "torchrun":
            module = words.index("-m") + 1
            assert importlib.util.find_spec(words[module]) and parse_arguments(words[module + 1 :]).command
        elif program == "pip" and "-r" in words:
            assert (ROOT / words[words.index("-r") + 1]).is_file()
