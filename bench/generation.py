"""Generation side by side, in one run on one machine:  python -m bench.generation

(a) the original's way, one sample at a time and task by task through `model.generate`; (b) batches of separate prompts;
(c) batches of conversations that read each article once; (d) the same, grounded; and through which each answer is counted.

    python -m bench.generation [--model DIR|NAME] [--adapter DIR] [--data FILE] [--documents N] [--threads N]

Prints a table and writes bench/results/generation-<device>.json. On a CPU the seconds are the processor's on one thread, so
that other programs on the machine do not count; on a GPU, or with more threads, they are the clock's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data.corpus import read_corpus
from data.files import write_json
from data.prompts import render_answer
from data.schema import TASKS, Document
from data.split import split_documents
from data.table import Table, as_text, join_blocks
from eval.chats import Engine, plan_chats

ROOT = Path(__file__).parent
TINY = ROOT.parent / "pipeline" / "tiny"
SAMPLE = ROOT.parent / "data" / "sample.jsonl"
ROWS = 32  # of a batch
REPEATS = 3
RATIOS = {
    "conversation_vs_single": ("conversation", "single"),
    "batched_vs_single": ("separate", "single"),
    "grounded_vs_plain": ("grounded", "conversation"),
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.generation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=str(TINY), help="folder or Hub id")
    parser.add_argument("--adapter", help="an adapter over it, so that answers have the lengths of a trained model's")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="corpus; its test documents are answered")
    parser.add_argument("--documents", type=int, default=64, help="how many of them")
    parser.add_argument("--singles", type=int, default=8, help="how many the original's way answers: it is slow")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--seed", type=int, default=42, help="of the split")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    import torch

    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model, options.adapter)
    documents, budgets = choose_documents(options, tokenizer)
    clock = time.perf_counter if model.device.type == "cuda" or options.threads > 1 else time.process_time
    variants = measure_all(model, tokenizer, documents, budgets, clock, options.singles)
    report = make_report(model, options, len(documents), variants)
    print(render_report(report))
    device = report["device"].lower().replace(" ", "-")
    path = write_json(ROOT / "results" / f"generation-{device}.json", report)
    print(f"wrote {path}", file=sys.stderr)


def load(name: str, adapter: str | None) -> tuple:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16 if cuda else torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.to("cuda" if cuda else "cpu").eval(), AutoTokenizer.from_pretrained(adapter or name)


def choose_documents(options: argparse.Namespace, tokenizer) -> tuple[list[Document], dict[str, int]]:
    """Test documents, every task asked, and for each task the tokens of train's longest answer as the budget."""
    split = split_documents(read_corpus(options.data).documents, options.seed)
    budgets = {
        task: 1 + max(len(tokenizer(render_answer(document.gold(task)))["input_ids"]) for document in split["train"])
        for task in TASKS
    }
    return [replace(document, tasks=TASKS) for document in split["test"][: options.documents]], budgets


def measure_all(
    model, tokenizer, documents: list[Document], budgets: dict[str, int], clock: Callable[[], float], singles: int
) -> dict[str, dict]:
    """Each variant `REPEATS` times in turn, the quickest counted: a slow spell of the machine then hits all alike."""
    from eval.engines.huggingface import transformers_engine

    longest = max(len(tokenizer(document.article)["input_ids"]) for document in documents) + 300 + sum(budgets.values())
    settings = {"batch_tokens": longest * ROWS}
    plain = transformers_engine(model, tokenizer, **settings)
    grounded = transformers_engine(model, tokenizer, **settings, grounded=True)
    works = {
        "single": lambda: answer_singly(model, tokenizer, documents[:singles], budgets),
        "separate": lambda: answer_with(plain, tokenizer, documents, budgets, "separate"),
        "conversation": lambda: answer_with(plain, tokenizer, documents, budgets, "conversation"),
        "grounded": lambda: answer_with(grounded, tokenizer, documents, budgets, "conversation"),
    }
    counts = {name: singles if name == "single" else len(documents) for name in works}
    measured: dict[str, list[tuple[float, int]]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            started = clock()
            tokens = work()
            measured[name].append((clock() - started, tokens))
    return {name: figures(min(times), counts[name]) for name, times in measured.items()}


def figures(measured: tuple[float, int], documents: int) -> dict:
    seconds, tokens = measured
    return {
        "documents": documents,
        "seconds": round(seconds, 3),
        "documents_per_second": documents / seconds,
        "tokens_per_document": tokens / documents,
        "milliseconds_per_token": 1000 * seconds / tokens,
    }


def answer_singly(model, tokenizer, documents: Sequence[Document], budgets: dict[str, int]) -> int:
    """As the original evaluated: one prompt, one `generate`, one answer. Returns the number of generated tokens."""
    import torch

    from eval.chat_template import read_template
    from eval.engines.huggingface import stop_ids

    template, tokens = read_template(tokenizer), 0
    for chat in plan_chats(documents, layout="separate", max_new_tokens=budgets):
        ids = torch.tensor([template.prompt_ids(chat.prompts)[0]], device=model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=chat.budgets[0],
            do_sample=False,
            temperature=None,
            top_p=None,
            eos_token_id=list(stop_ids(model, tokenizer, template.end)),
            pad_token_id=tokenizer.pad_token_id,
        )
        tokenizer.decode(output[0, ids.shape[1] :])
        tokens += output.shape[1] - ids.shape[1]
    return tokens


def answer_with(engine: Engine, tokenizer, documents: Sequence[Document], budgets: dict[str, int], layout) -> int:
    """Returns the number of generated tokens, the end tokens included."""
    rows = [row for batch in engine(plan_chats(documents, layout=layout, max_new_tokens=budgets)) for row in batch]
    return sum(len(tokenizer(row["completion"], add_special_tokens=False)["input_ids"]) + 1 for row in rows)


def make_report(model, options: argparse.Namespace, documents: int, variants: dict[str, dict]) -> dict:
    import torch
    import transformers

    speed = {name: variant["documents_per_second"] for name, variant in variants.items()}
    pace = {name: variant["milliseconds_per_token"] for name, variant in variants.items()}
    cuda = model.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "n": documents,
        "model": Path(options.model).name,
        "adapter": bool(options.adapter),
        "rows_per_batch": ROWS,
        "threads": options.threads,
        "seconds_are": "clock" if cuda or options.threads > 1 else "processor",
        "variants": variants,
        "ratios": {name: speed[ours] / speed[theirs] for name, (ours, theirs) in RATIOS.items()}
        | {"grounded_vs_plain_per_token": pace["conversation"] / pace["grounded"]},
    }


def render_report(report: dict) -> str:
    columns = {
        "documents/s": "documents_per_second",
        "tokens/document": "tokens_per_document",
        "ms/token": "milliseconds_per_token",
    }
    rows = [(name, *(f"{figures[key]:,.3f}" for key in columns.values())) for name, figures in report["variants"].items()]
    ratios = [(name, f"{ratio:.2f}") for name, ratio in report["ratios"].items()]
    return join_blocks(
        [as_text(Table(("variant", *columns), tuple(rows))), as_text(Table(("", "times as fast"), tuple(ratios)))]
    )


if __name__ == "__main__":
    main()
