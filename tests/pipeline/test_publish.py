"""`medner push` with the real Hub client, in a process of its own, against a Hub on loopback; no run may show the token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer, Repository, hub

from data.schema import InputError
from pipeline.export.names import default_name
from pipeline.publish.push import check_name

REPO = "tester/Llama-3.2-3B-medical-ner-test"


@pytest.fixture
def server():
    with hub() as server:
        yield server


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run's files, with bytes where weights would be: pushing never looks into them."""
    run = tmp_path / "run"
    files = {
        "adapter/adapter_model.safetensors": os.urandom(200_000),
        "adapter/adapter_config.json": json.dumps({"base_model_name_or_path": "/somewhere/here/tiny", "r": 16}).encode(),
        "adapter/tokenizer.json": b"{}",
        "adapter/medner.json": json.dumps({"base_model": "unsloth/Llama-3.2-3B-Instruct", "layout": "separate"}).encode(),
        "adapter/training_args.bin": b"holds paths of this machine",
        "adapter/README.md": b"PEFT's own",
        "checkpoints/checkpoint-10/adapter_model.safetensors": os.urandom(1000),
        "checkpoints/checkpoint-10/adapter_config.json": b"{}",
        "checkpoints/checkpoint-10/optimizer.pt": b"large and of no use to others",
        "export/merged/model.safetensors": os.urandom(300_000),
        "export/merged/config.json": b"{}",
        "export/merged/merge.json": b'{"base": "/somewhere/here"}',
        "export/run.q8_0.gguf": os.urandom(400_000),
        "export/Modelfile": b"FROM ./run.q8_0.gguf\n",
        "config.yaml": b"{}\n",
        "eval/test/metrics.json": b'{"tasks": {}, "documents": 0}',
    }
    for name, content in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    manifest = {"data_sha256": "0" * 64, "data": {}, "stages": {}, "seed": 42, "created": "2026-11-22T12:00:00+00:00"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    write_parity(run)
    return run


def write_parity(run: Path, *, passed: bool = True) -> None:
    digest = sha256((run / "export/run.q8_0.gguf").read_bytes()).hexdigest()
    facts = {"exact_completions": 1.0, "tasks": {}}
    models = {"merged": {**facts, "passed": True}, "run.q8_0.gguf": {**facts, "passed": passed, "sha256": digest}}
    (run / "export/parity.json").write_text(json.dumps({"documents": 20, "passed": passed, "models": models}))


def push(
    server: HubServer,
    run: Path,
    repo: str = REPO,
    artifacts: str = "",
    *,
    force: bool = False,
    token: str = TOKEN,
) -> subprocess.CompletedProcess:
    """The command in a fresh process with a home of its own; fails if the token shows anywhere.

    `artifacts`: what publish.artifacts says, a comma between two; else the adapter and all that was exported.
    """
    if artifacts:
        (run / "config.yaml").write_text(f"publish: {{artifacts: [{artifacts}]}}\n", encoding="utf-8")
    home = run.parent / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))} | {
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "HF_DEBUG": "1",  # the client then logs every request
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **({"HF_TOKEN": token} if token else {}),
    }
    flags = [*(["--repo", repo] if repo else []), *(["--force"] if force else [])]
    command = [sys.executable, "-m", "pipeline.cli", "push", str(run), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=run.parent, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    written = [path for path in run.parent.rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *(path.read_bytes().decode("latin-1") for path in written)):
        assert not token or token not in text
    return done


def held(server: HubServer, repo: str = REPO) -> dict[str, bytes]:
    files = server.repositories[repo].files
    return {path: server.objects[entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]] for path, entry in files.items()}


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_everything_arrives_adapter_first_and_private(server, run):
    done = push(server, run)
    assert (done.returncode, done.stdout) == (0, f"pushed to {server.url}/{REPO}\n"), done.stderr
    files = held(server)
    assert set(files) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "medner.json",
        "merged/model.safetensors",
        "merged/config.json",
        "run.q8_0.gguf",
        "Modelfile",
        "eval/metrics.json",
        "eval/parity.json",
        "README.md",
    }
    assert files["run.q8_0.gguf"] == (run / "export/run.q8_0.gguf").read_bytes()
    assert files["README.md"] == (run / "README.md").read_bytes()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "unsloth/Llama-3.2-3B-Instruct"
    assert not any(b"somewhere" in content for content in files.values())
    repository = server.repositories[REPO]
    assert repository.private
    assert "adapter_model" in repository.commits[0]
    assert "README" in repository.commits[-1]


@pytest.mark.slow
def test_figures_go_to_the_leaderboard_of_data_that_are_on_the_hub(server, run):
    import yaml
    from huggingface_hub._eval_results import parse_eval_result_entries

    push(server, run)
    assert ".eval_results/medner.yaml" not in held(server)
    (run / "config.yaml").write_text("publish: {dataset: someone/bc5cdr}\n", encoding="utf-8")
    metrics = {"tasks": {"chemicals": {"precision": 0.9, "recall": 0.8, "f1": 0.8471, "support": 9}}, "documents": 50}
    metrics |= {"micro": metrics["tasks"]["chemicals"], "macro": metrics["tasks"]["chemicals"]}
    for figures in metrics["tasks"].values():
        figures["ci95"] = [0.8, 0.9]
    (run / "eval/test/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    done = push(server, run)
    assert done.returncode == 0, done.stderr
    (entry,) = parse_eval_result_entries(yaml.safe_load(held(server)[".eval_results/medner.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("someone/bc5cdr", "chemicals", 0.8471)
    assert "50 articles" in entry.notes


@pytest.mark.slow
def test_the_default_name_is_kept_for_the_next_push(server, run):
    first = push(server, run, "", "adapter")
    (repo,) = server.repositories
    assert first.stdout == f"pushed to {server.url}/{repo}\n"
    assert repo.startswith("tester/Llama-3.2-3B-medical-ner-20")
    assert json.loads((run / "manifest.json").read_text())["repo"] == repo
    assert push(server, run, "", "adapter,gguf").returncode == 0
    assert list(server.repositories) == [repo]
    assert "run.q8_0.gguf" in held(server, repo)


@pytest.mark.slow
def test_a_second_push_sends_nothing_again(server, run):
    push(server, run)
    uploads, commits = server.count("PUT", "/lfs/"), len(server.repositories[REPO].commits)
    assert push(server, run).returncode == 0
    assert (server.count("PUT", "/lfs/"), len(server.repositories[REPO].commits)) == (uploads, commits)


def test_checkpoints_go_without_the_optimizer(server, run):
    assert push(server, run, artifacts="checkpoints").returncode == 0
    assert {path for path in held(server) if path.startswith("checkpoints/")} == {
        "checkpoints/checkpoint-10/adapter_model.safetensors",
        "checkpoints/checkpoint-10/adapter_config.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "part", "how"),
    [
        ("POST", "/api/repos/create", {"status": 429, "headers": {"Retry-After": "2"}}),
        ("POST", "/commit/", {"status": 503}),
        ("POST", "/preupload/", {"status": 429}),
        ("POST", "/objects/batch", {"status": 503}),
        ("PUT", "/lfs/", {"status": 500}),
        ("PUT", "/lfs/", {"cut_after": 50_000}),
        ("POST", "/commit/", {"cut_after": 10}),
        ("GET", "/tree/", {"status": 502}),
        ("GET", "/whoami", {"status": 503}),
    ],
)
def test_what_passes_is_waited_for(method, part, how, server, run):
    server.fail(method, part, **how)
    done = push(server, run)
    assert done.returncode == 0, done.stderr
    assert held(server)["adapter_model.safetensors"] == (run / "adapter/adapter_model.safetensors").read_bytes()
    assert server.count(method, part) >= 2


@pytest.mark.slow
def test_a_push_that_was_given_up_is_continued(server, run):
    """The line is cut in the middle of the GGUF for good: what was sent stays, and the command that is named goes on."""
    push(server, run, artifacts="adapter")
    before = server.count("PUT", "/lfs/")
    server.fail("PUT", sha256((run / "export/run.q8_0.gguf").read_bytes()).hexdigest(), times=1000, cut_after=100_000)
    done = push(server, run, artifacts="adapter,gguf")
    assert done.returncode == 1
    assert "run.q8_0.gguf could not be uploaded" in last_line(done)
    assert last_line(done).endswith(f"go on with: medner push {run}")
    assert (run / "export/run.q8_0.gguf").exists()
    assert "run.q8_0.gguf" not in held(server)
    server.faults.clear()
    tries = server.count("PUT", "/lfs/")
    assert tries > before
    assert push(server, run, "", "adapter,gguf").returncode == 0
    assert server.count("PUT", "/lfs/") == tries + 1, "only the file that was missing is sent"
    assert "run.q8_0.gguf" in held(server)


@pytest.mark.slow
def test_a_hub_that_stays_down_is_told_in_a_line(server, run):
    server.fail("POST", "/api/repos/create", times=1000, status=503)
    done = push(server, run)
    assert done.returncode == 1
    assert "cannot be created" in last_line(done)
    assert "503" in last_line(done)
    assert "medner push" in last_line(done)


@pytest.mark.parametrize(
    ("token", "role", "message"),
    [("hf_" + "Wrong" * 7, "write", "refuses the token"), ("", "write", "No Hub token"), (TOKEN, "read", "may only read")],
)
def test_tokens_that_will_not_do(token, role, message, server, run):
    server.role = role
    done = push(server, run, token=token)
    assert done.returncode == 2
    assert message in last_line(done)
    assert "settings/tokens" in last_line(done)
    assert server.repositories == {}
    assert "repo" not in json.loads((run / "manifest.json").read_text())


@pytest.mark.slow
def test_another_models_repository_is_left_alone(server, run):
    server.repositories[REPO] = Repository(private=False, files={"model.bin": {"size": 3, "oid": "0" * 40}})
    done = push(server, run)
    assert done.returncode == 2
    assert "already has other files (model.bin)" in last_line(done)
    assert list(server.repositories[REPO].files) == ["model.bin"]
    done = push(server, run, force=True)
    assert done.returncode == 0, done.stderr
    assert "exists and is public" in done.stderr
    assert {"model.bin", "adapter_model.safetensors"} <= set(server.repositories[REPO].files)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["/objects/batch", "/commit/", "/preupload/"])
def test_a_full_account_is_told(part, server, run):
    server.fail("POST", part, times=9, status=403, message="Private repository storage limit reached, please upgrade your plan")
    done = push(server, run)
    assert done.returncode == 1
    assert "storage limit reached" in last_line(done)
    assert f"go on with: medner push {run}" in last_line(done)


def test_anothers_name_is_told(server, run):
    server.fail("POST", "/api/repos/create", times=9, status=403, message="You don't have the rights to create a model there")
    done = push(server, run, "google/Llama-ner")
    assert done.returncode == 2
    assert "don't have the rights" in last_line(done)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["failed", "missing", "changed"])
def test_the_parity_gate(fault, server, run):
    if fault == "failed":
        write_parity(run, passed=False)
    elif fault == "missing":
        (run / "export/parity.json").unlink()
    else:
        with (run / "export/run.q8_0.gguf").open("r+b") as file:
            file.write(b"one corrupted tensor")
    done = push(server, run)
    assert done.returncode == 2
    assert "run.q8_0.gguf" in last_line(done)
    assert "--force" in last_line(done)
    assert server.requests == []
    assert push(server, run, artifacts="adapter").returncode == 0
    assert push(server, run, force=True).returncode == 0


@pytest.mark.parametrize(
    ("artifacts", "message"), [("adaptor", "artifacts: must be one of adapter, merged, gguf"), ("merged", "merged is missing")]
)
def test_what_is_not_there_cannot_be_pushed(artifacts, message, server, run):
    (run / "export/merged").rename(run / "export/elsewhere")
    done = push(server, run, artifacts=artifacts)
    assert done.returncode == 2
    assert message in last_line(done)
    assert server.requests == []


@pytest.mark.parametrize(
    ("repo", "base", "message"),
    [
        (REPO, "unsloth/Llama-3.2-3B-Instruct", None),
        ("me/medical-ner", "mistralai/Mistral-7B", None),
        ("me/medical-ner", "unsloth/Llama-3.2-3B-Instruct", "me/Llama-medical-ner"),
        ("Llama-ner", "tiny", "expected USER/NAME"),
        ("a/b/c", "tiny", "expected USER/NAME"),
        ("me/Llama ner", "tiny", "expected USER/NAME"),
        ("me/..", "tiny", "expected USER/NAME"),
    ],
)
def test_repository_names(repo, base, message):
    if message is None:
        check_name(repo, base)
    else:
        with pytest.raises(InputError, match=message):
            check_name(repo, base)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("unsloth/Llama-3.2-3B-Instruct", r"Llama-3\.2-3B-medical-ner-\d{8}_\d{6}"),
        ("meta-llama/Meta-Llama-3-8B", r"Llama-3-8B-medical-ner-\d{8}_\d{6}"),
        ("unsloth/llama-3.2-1b-instruct-bnb-4bit", r"Llama-3\.2-1b-medical-ner-\d{8}_\d{6}"),
        ("tiny", r"Llama-medical-ner-\d{8}_\d{6}"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", r"Llama-3\.1-8B-medical-ner-\d{8}_\d{6}"),
        ("Qwen/Qwen2.5-3B-Instruct-bnb-4bit", r"Qwen2\.5-3B-medical-ner-\d{8}_\d{6}"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", r"SmolLM2-135M-medical-ner-\d{8}_\d{6}"),
        ("/models/smollm2-135m-instruct-q4_1.gguf", r"smollm2-135m-medical-ner-\d{8}_\d{6}"),
        ("./out/my base", r"my-base-medical-ner-\d{8}_\d{6}"),
    ],
)
def test_default_names(base, name):
    import re

    assert re.fullmatch(name, default_name(base))
