"""The model card tells what the run's files hold, and nothing else."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from data.prompts import ASKED, LAYOUTS, conversations, order_tasks
from data.schema import TASKS, Document, InputError, Mention
from pipeline.publish.card import write_card
from pipeline.publish.card_use import TEXT, TITLE

REPO = "me/Llama-3.2-3B-medical-ner-20261122_120000"
FIGURES = {"precision": 0.91, "recall": 0.87, "f1": 0.89, "tp": 10, "fp": 1, "fn": 2, "support": 12, "ci95": [0.85, 0.92]}
SMALL = {"precision": 0.5, "recall": 0.4, "f1": 0.4444, "support": 12, "ci95": [0.3, 0.6]}
MANIFEST = {
    "seed": 42,
    "created": "2026-11-22T12:00:00+00:00",
    "data": {"file": "/home/somebody/private/corpus.jsonl"},
    "data_sha256": "ab" * 32,
    "device": "NVIDIA A40",
    "versions": {"torch": "2.13.0"},
    "stages": {"train": {"seconds": 600.0, "examples": 2400, "steps": 450, "best_step": 300}},
}
FILES = {
    "manifest.json": {**MANIFEST, "repo": REPO},
    "adapter/medner.json": {
        "base_model": "unsloth/Llama-3.2-3B-Instruct",
        "layout": "conversation",
        "system_prompt": "You read.",
        "max_new_tokens": {"chemicals": 99, "diseases": 80, "relations": 90},
    },
    "data/audit.json": {
        "split": {"train": {"documents": 800}, "validation": {"documents": 100}, "test": {"documents": 100}},
        "given_split": False,
        "leaks": {"leaking": False, "articles": 0},
        "seen": {"chemicals": {"test_items": 200, "seen": 138, "seen_share": 0.69}},
    },
    "eval/test/metrics.json": {
        "tasks": {"chemicals": FIGURES, "diseases": {**FIGURES, "f1": 0.8012}, "relations": SMALL},
        "micro": FIGURES,
        "macro": FIGURES,
        "rates": {"malformed": 0.01, "truncated": 0.0, "empty": 0.03, "wrongly_empty": 0.02, "duplicate": None},
        "baselines": {"dictionary": {"chemicals": {**FIGURES, "f1": 0.764}}, "cooccurrence": None},
        "documents": 100,
    },
    "export/parity.json": {
        "documents": 20,
        "passed": True,
        "models": {
            "run.q8_0.gguf": {
                "prompts": 60,
                "identical_prompts": 60,
                "exact_completions": 0.983,
                "passed": True,
                "tasks": {"chemicals": {"f1": 0.88, "adapter_f1": 0.884, "change": -0.004, "ci95": [-0.012, 0.003]}},
            }
        },
    },
}


def make_run(folder: Path, files: dict) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    settings = {"model": {"load_in_4bit": True}, "train": {"learning_rate": 2e-4}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture
def card(tmp_path) -> str:
    run = make_run(tmp_path, FILES)
    (run / "export" / "run.q8_0.gguf").write_bytes(b"")
    return write_card(run)


def test_metadata_is_what_the_hub_reads(card):
    data = ModelCard(card).data
    assert (data.license, data.base_model, data.library_name) == ("llama3.2", "unsloth/Llama-3.2-3B-Instruct", "peft")
    assert "gguf" in data.tags
    assert data.model_name == REPO.partition("/")[2]
    results = {result.metric_name: result for result in data.eval_results}
    assert len(results) == 9
    chemicals = results["f1 of sets of strings, chemicals"]
    assert (chemicals.metric_type, chemicals.metric_value) == ("f1", 0.89)
    assert chemicals.dataset_args == {"sha256": "ab" * 32, "documents": 100}


@pytest.mark.parametrize(
    "told",
    [
        "| chemicals | 89.0 (85.0–92.0) | 91.0 | 87.0 | 10 | 1 | 2 | 12 |",
        "| task | this model | dictionary |",
        "| chemicals | 89.0 | 76.4 |",
        "| run.q8\\_0.gguf | -0.4 (-1.2 to +0.3) |  |  | 98.3 | 60 of 60 | yes |",
        "malformed 1.0%, truncated 0.0%, wrongly empty 2.0%",
        "corpus.jsonl, sha256 `abababab",
        "train 800, validation 100, test 100 articles",
        "Leaks between the splits (articles, near-duplicates, answers): none found",
        "chemicals 69.0 %",
        "4 bits (NF4)",
        "Hardware: NVIDIA A40, 10.0 minutes of training",
        "learning_rate 0.0002",
        f"hf download {REPO} run.q8_0.gguf Modelfile --local-dir .",
        "ollama create medner -f Modelfile",
        f"vllm serve unsloth/Llama-3.2-3B-Instruct --tokenizer {REPO} --enable-lora --lora-modules medner={REPO}",
        "llama-server --model run.q8_0.gguf --jinja",
        "Not a medical device",
        "Built with Llama",
        "resampling documents",
        "three questions in turn",
    ],
)
def test_the_card_tells(told, card):
    assert told in card


def test_the_card_keeps_local_paths_to_itself(card):
    assert "somebody" not in card


def test_the_commands_name_the_file_that_the_modelfile_serves(tmp_path):
    run = make_run(tmp_path, FILES)
    for name in ("run.f16.gguf", "run.q4_k_m.gguf", "run.q8_0.gguf"):
        (run / "export" / name).write_bytes(b"")
    (run / "export/Modelfile").write_text("# ollama create\nFROM ./run.q4_k_m.gguf\n", encoding="utf-8")
    card = write_card(run)
    assert f"hf download {REPO} run.q4_k_m.gguf Modelfile --local-dir ." in card
    assert "llama-server --model run.q4_k_m.gguf" in card


def python_of(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_code_in_the_card_is_python_and_asks_all_three_questions(card):
    codes = python_of(card)
    assert len(codes) == 4
    for code in codes:
        ast.parse(code)
        assert "You read." in code and "99" in code
        assert all(f"List of extracted {asked}:" in code for asked in ASKED.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("taught", [("chemicals",), ("diseases",), ("chemicals", "relations")])
def test_a_model_taught_fewer_tasks_is_asked_only_those_and_no_more_is_said_of_it(taught, layout, tmp_path):
    adapter = {**FILES["adapter/medner.json"], "layout": layout, "max_new_tokens": dict.fromkeys(taught, 99)}
    run = make_run(tmp_path, {**FILES, "adapter/medner.json": adapter})
    (run / "export/run.q8_0.gguf").write_bytes(b"")
    card = write_card(run)
    use = card.partition("## Use")[2]
    for task in TASKS:
        assert (f"List of extracted {ASKED[task]}:" in use) == (task in taught)
    for code in python_of(card):
        exec(code[code.index("article = ") : code.index("system = ")], names := {})
        assert list(names["questions"]) == [ASKED[task] for task in order_tasks(taught, layout)]
    for told in ("chemical | disease", "A listed pair", "pairs of a chemical"):
        assert (told in card) == ("relations" in taught)
    assert ("in the same conversation" in use) == (layout != "separate" and len(taught) > 1)
    assert ("`/clear`" in use) == (layout == "separate" and len(taught) > 1)
    assert "three questions" not in use


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """A random base, its adapter and the GGUF of both: what a card's commands name."""
    from tiny_llama import save_adapter, save_base

    from pipeline.export.gguf import convert_to_gguf
    from pipeline.export.merge import merge_adapter

    run = tmp_path_factory.mktemp("run")
    save_adapter(save_base(run / "base"), run / "adapter")
    merged = merge_adapter(run / "base", run / "adapter", run / "merged")
    convert_to_gguf(merged, run / "export/run.f16.gguf", "f16", {})
    return run


def make_shipped(run: Path, layout: str) -> list[str]:
    adapter = {"base_model": str(run / "base"), "layout": layout, "max_new_tokens": dict.fromkeys(TASKS, 8)}
    make_run(run, {"manifest.json": MANIFEST, "adapter/medner.json": adapter})
    return python_of(write_card(run))


def check_asked(code: str, layout: str, capsys) -> None:
    """Run it as printed; it asks what training asked, and prints an answer to each question."""
    document = Document("1", TEXT, TITLE)
    names: dict = {}
    exec(compile(code, "card", "exec"), names)
    trained = conversations(document, layout)
    questions = [turn["content"] for chat in trained for turn in chat if turn["role"] == "user"]
    assert list(names["questions"].values()) == questions
    last = [turn["role"] for turn in names["messages"] if turn["role"] != "assistant"]
    assert last == [turn["role"] for turn in trained[-1] if turn["role"] != "assistant"]
    printed = capsys.readouterr().out
    asked = [ASKED[task] for task in order_tasks(TASKS, layout)]
    assert [line for line in printed.splitlines() if line in ASKED.values()] == asked


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_code_for_transformers_runs_as_printed(layout, shipped, monkeypatch, capsys):
    monkeypatch.chdir(shipped)
    check_asked(make_shipped(shipped, layout)[0], layout, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_code_for_servers_runs_as_printed(layout, shipped, capsys):
    from llama_server import serve

    codes = make_shipped(shipped, layout)[1:]
    assert len(codes) == 3  # llama.cpp, Ollama and vLLM: alike but for the port
    with serve(shipped / "export/run.f16.gguf") as client:
        for code in codes:
            at_hand, changed = re.subn(r"http://localhost:\d+", str(client.base_url).rstrip("/"), code)
            assert changed == 1
            check_asked(at_hand, layout, capsys)


@pytest.mark.parametrize(
    ("base", "licence", "built"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3.1", "Llama 3.1 Community License"),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama3.2", "Llama 3.2 Community License"),
        ("meta-llama/Meta-Llama-3-8B", "llama3", "Llama 3 Community License"),
        ("/home/me/llama-stuff/Qwen2.5-3B-Instruct", None, None),
        ("Qwen/Qwen2.5-3B-Instruct", None, None),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", None),
        ("/models/smollm2-135m-instruct-q4_1.gguf", "apache-2.0", None),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "apache-2.0", None),
    ],
)
def test_the_licence_is_the_base_familys(base, licence, built, tmp_path):
    card = write_card(make_run(tmp_path, {"manifest.json": MANIFEST, "adapter/medner.json": {"base_model": base}}))
    assert ModelCard(card).data.license == licence
    assert ("Built with Llama" in card) == bool(built)
    assert built is None or built in card


def test_what_is_missing_is_said_and_not_invented(tmp_path):
    card = write_card(make_run(tmp_path / "run", {"manifest.json": MANIFEST, "adapter/medner.json": {"base_model": "tiny"}}))
    imports = {one for one in re.findall(r"from pipeline\S* import \w+", card)}
    assert imports
    for one in imports:
        exec(one, names := {})
        assert (names["TINY"] / "config.json").is_file()
    data = ModelCard(card).data
    assert data.eval_results is None
    assert data.base_model is None
    assert data.license == "apache-2.0"
    assert "has not been evaluated" in card
    assert "No exported file was compared" in card
    assert "No audit of the split" in card
    assert "ollama" not in card
    assert "None" not in card
    assert "Llama 3" not in card


def test_a_leak_is_told_in_bold(tmp_path):
    audit = {**FILES["data/audit.json"], "leaks": {"leaking": True, "articles": 3}, "given_split": True}
    card = write_card(make_run(tmp_path, {**FILES, "data/audit.json": audit}))
    assert "**3 articles stand in two splits**" in card
    assert "as given by the user" in card


def test_no_run_no_card(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        write_card(tmp_path)


def test_conventions_and_slices_are_folded_in_without_a_word_of_the_corpus(tmp_path):
    from eval.scoring.metrics import score_split
    from eval.scoring.parse import Answer
    from eval.scoring.score import match_answers
    from pipeline.publish.card import render_results

    document = Document("1", "Zorbine caused morlitis.", None, (Mention("Zorbine", "Chemical"), Mention("morlitis", "Disease")))
    answers = {("1", task): Answer((), "empty") for task in document.tasks}
    metrics = score_split([document], match_answers([document], answers), [])
    results = render_results(metrics)
    assert "<details>" in results and "alias-aware" in results and "What makes chemicals hard" in results
    assert "Zorbine" not in results and "morlitis" not in results
