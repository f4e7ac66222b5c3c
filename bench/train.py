"""Training recipes side by side, in one run: the original, plain TRL, stock and tuned Unsloth, and ours.

    python -m bench.train --tiny          on a CPU: the tiny model and the invented sample, F1 at equal articles seen included
    python -m bench.train                 on a CUDA GPU: Llama 3.2 3B's architecture with random weights, nothing downloaded
    python -m bench.train --model NAME --data FILE

Prints a table and writes bench/results/train-<device>.json. Each recipe runs in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.corpus import read_corpus
from data.files import write_json
from data.prompts import Layout
from data.schema import Document
from data.split import split_documents
from data.table import Table, as_text, join_blocks, percent
from pipeline.config import apply_settings
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import Plan, make_plan
from pipeline.plan.hardware import Device, detect_device, named_device
from pipeline.run_folder import versions

ROOT = Path(__file__).parent
SAMPLE = ROOT.parent / "data" / "sample.jsonl"
ORIGINAL_JOB = 800 * 3  # its articles read: 2,400 rows of three tasks, three epochs
SEED = 42
PROMPT_TOKENS = 450  # of the user's own rows, chat template included
RATIOS = {
    "original": "ours_vs_original",
    "trl": "ours_vs_trl",
    "unsloth": "ours_vs_unsloth",
    "unsloth_tuned": "ours_vs_unsloth_tuned",
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.recipe:
            print(json.dumps(run_one(options, Path(folder))))
            return
        device = detect_device()
        if device.kind == "cpu" and not options.tiny:
            sys.exit("bench.train: no CUDA GPU here; use --tiny")
        model = "tiny" if options.tiny else options.model or str(write_random_model(Path(folder) / "model"))
        results = {name: run_apart(name, model, options) for name in choose_recipes(options)}
        if options.test_articles and {"ours_separate", "ours_conversation"} <= set(results):
            results["ours_separate_in_equal_time"] = run_apart("ours_separate", model, shorten(options, results))
        report = make_report(results, device.name, model, options)
    print(render_report(report), file=sys.stderr)
    name = device.name.lower().replace(" ", "-") + (f"-as-{options.gpu}" if options.gpu else "")
    write_json(ROOT / "results" / f"train-{name}.json", report)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="the tiny model on this machine's CPU")
    parser.add_argument("--model", help="a Hub id or folder in place of random weights")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="a corpus in place of the invented sample")
    parser.add_argument("--gpu", help="plan for this card, and allocate no more memory than it has: t4, l4, …")
    parser.add_argument("--articles", type=int, help="articles to train on (default: 96 with --tiny, else 800)")
    parser.add_argument("--test-articles", type=int, help="articles to score (default: 24 with --tiny, else none)")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--recipes", nargs="*", help="only these")
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.articles = options.articles or (96 if options.tiny else 800)
    options.test_articles = options.test_articles if options.test_articles is not None else 24 if options.tiny else 0
    return options


def choose_recipes(options: argparse.Namespace) -> list[str]:
    from bench.train_recipes import RECIPES

    return [name for name in RECIPES if not options.recipes or name in options.recipes]


def run_apart(name: str, model: str, options: argparse.Namespace) -> dict:
    """One recipe's figures, or {"skipped": reason}."""
    from bench.train_recipes import RECIPES

    reason = unsloth_missing()
    if RECIPES[name].engine == "unsloth" and reason:
        return {"skipped": reason}
    command = [sys.executable, "-m", "bench.train", "--recipe", name, "--model", model, "--data", str(options.data)]
    command += ["--articles", str(options.articles), "--test-articles", str(options.test_articles)]
    command += ["--epochs", str(options.epochs)] + ["--tiny"] * options.tiny + ["--gpu", str(options.gpu)] * bool(options.gpu)
    print(f"{name} …", file=sys.stderr)
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT.parent, check=False)
    if ran.returncode:
        sys.exit(f"bench.train: recipe {name} failed; its error is above")
    return json.loads(ran.stdout.strip().split("\n")[-1])


def shorten(options: argparse.Namespace, results: dict[str, dict]) -> argparse.Namespace:
    """The options under which the separate layout trains for as long as the conversation layout did."""
    slower, faster = (results[name]["articles_per_second"] for name in ("ours_separate", "ours_conversation"))
    return argparse.Namespace(**vars(options) | {"epochs": round(options.epochs * slower / faster, 4)})


def unsloth_missing() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "Unsloth needs a CUDA GPU"
    return None if importlib.util.find_spec("unsloth") else "Unsloth is not installed"


def run_one(options: argparse.Namespace, folder: Path) -> dict:
    """In a process of its own: the recipe's figures."""
    from bench.train_recipes import RECIPES, run_recipe

    recipe = RECIPES[options.recipe]
    if recipe.engine == "unsloth" or (not recipe.engine and not unsloth_missing()):
        from pipeline.model import prepare_engine

        prepare_engine(folder / "unsloth_compiled_cache")  # before transformers
    from pipeline.model import load_tokenizer, model_path

    tokenizer = load_tokenizer(model_path(options.model))
    split = split_documents(read_corpus(options.data).documents, SEED)
    train = repeat(split["train"], options.articles)
    if not options.tiny and options.data == SAMPLE:
        train = [lengthen(document, tokenizer, PROMPT_TOKENS) for document in train]
    test = split["test"][: options.test_articles]
    plan = plan_recipe(options, tokenizer, train, test, recipe.layout)
    return run_recipe(recipe, plan, train, test, folder, epochs=options.epochs)


def plan_recipe(
    options: argparse.Namespace, tokenizer: object, train: Sequence[Document], test: Sequence[Document], layout: Layout
) -> Plan:
    from pipeline.plan.lengths import count_lengths

    batch = {"train.effective_batch_size": 4, "train.learning_rate": 3e-3} if options.tiny else {}
    settings = apply_settings({"model.name": options.model, "train.layout": layout} | batch)
    lengths = count_lengths(tokenizer, {"train": train, "test": test}, settings)
    return make_plan(settings, find_architecture(options.model), bounded_device(options.gpu), lengths)


def bounded_device(gpu: str | None) -> Device:
    """The device at hand; or a named one, this GPU's allocations then being limited to that one's memory."""
    if not gpu:
        return detect_device()
    import torch

    device = named_device(gpu)
    if device.kind == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, device.memory / torch.cuda.get_device_properties(0).total_memory))
    return device


def repeat(documents: Sequence[Document], count: int) -> list[Document]:
    """`count` documents, from the start again where there are too few; each has an id of its own."""
    return [
        document if index < len(documents) else replace(document, id=f"{document.id}-{index // len(documents)}")
        for index in range(count)
        for document in [documents[index % len(documents)]]
    ]


def lengthen(document: Document, tokenizer: object, tokens: int) -> Document:
    """The document with its text repeated, or cut, to about `tokens` tokens: real articles' length. Its answers stay."""
    words = document.text.split()
    per_word = len(tokenizer(document.text, add_special_tokens=False)["input_ids"]) / len(words)
    wanted = max(1, round((tokens - 60) / per_word))  # about 60 are the chat template's and the question's
    return replace(document, text=" ".join((words * (wanted // len(words) + 1))[:wanted]))


def write_random_model(folder: Path) -> Path:
    """Llama 3.2 3B's shape with random bfloat16 weights, and the tiny model's tokenizer, whose ids all fit its vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from pipeline.base_model import TINY

    shape = find_architecture("unsloth/Llama-3.2-3B-Instruct")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    fields = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    config = LlamaConfig(
        **{name: getattr(shape, name) for name in (*fields, "vocab_size", "tie_word_embeddings")},
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_report(results: dict[str, dict], device: str, model: str, options: argparse.Namespace) -> dict:
    ours = results.get("ours_conversation", {}).get("articles_per_second")
    ratios, reasons = {}, {}
    for name, ratio in RATIOS.items():
        speed = results.get(name, {}).get("articles_per_second")
        ratios[ratio] = round(ours / speed, 2) if ours and speed else None
        if ratios[ratio] is None:
            reasons[ratio] = results.get(name, {}).get("skipped", "not run")
    return {
        "device": device,
        "versions": versions(),
        "model": "Llama 3.2 3B, random weights" if Path(model).is_absolute() else model,
        "planned_for": options.gpu,
        "n": options.articles,
        "epochs": options.epochs,
        "clock": "processor seconds over threads" if options.tiny else "seconds",
        "recipes": results,
        "ratios": ratios,
        "reasons": reasons,
        "original_job_seconds": round(ORIGINAL_JOB / ours, 1) if ours else None,
    }


def render_report(report: dict) -> str:
    columns = ("articles_per_second", "tokens_per_second", "matrix_share", "padding")
    rows, notes = [], []
    for name, figures in report["recipes"].items():
        if "skipped" in figures:
            notes.append(f"{name}: not run: {figures['skipped']}")
            continue
        f1 = percent(figures["f1"]["micro"] if "f1" in figures else None)
        rows.append((name, *(f"{figures[key]:,.3f}" for key in columns), f"{figures['peak_memory'] / 2**30:.2f}", f1))
    notes += [
        f"{name}: {value if value is not None else 'not measured, ' + report['reasons'][name]}"
        for name, value in report["ratios"].items()
    ]
    header = ("recipe", *(name.replace("_per_second", "/s") for name in columns), "peak GiB", "F1")
    return join_blocks([as_text(Table(header, tuple(rows))), "\n".join(notes)])


if __name__ == "__main__":
    main()
