"""A processor's ways to train and to answer, side by side in one run:  python -m bench.processor RUN

RUN is a run of `medner run --preset smollm2-135m` (or of another model). Its train articles are trained on and, where it is
finished, its test articles answered by its adapter and its exported files. Ratios are to float32 with PyTorch's attention and,
in training, TRL's chunked loss.

    python -m bench.processor RUN [--articles N] [--answered N] [--rounds N] [--threads N]

Prints two tables and writes bench/results/processor-cpu.json. Seconds are the clock's: run it alone on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.train_recipes import RECIPES, make_recipe_trainer
from data.files import write_json
from data.split import read_split_folder
from data.table import Table, as_text, join_blocks
from eval.chats import Chat, Engine, plan_chats
from pipeline.config import apply_settings
from pipeline.run_folder import RunFolder, read_run, versions

RESULTS = Path(__file__).parent / "results" / "processor-cpu.json"
AS_BEFORE, NOW = "float32", "bfloat16, by matrices, head on answers"
TRAINING = {  # precision, attention by matrices, the loss of the answers alone
    AS_BEFORE: ("float32", False, False),
    "float32, head on answers": ("float32", False, True),
    "bfloat16": ("bfloat16", False, False),
    "bfloat16, by matrices": ("bfloat16", True, False),
    NOW: ("bfloat16", True, True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.processor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--articles", type=int, default=8, help="trained on in each round")
    parser.add_argument("--answered", type=int, default=16, help="test articles answered")
    parser.add_argument("--rounds", type=int, default=2, help="of all variants in turn; the best counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    run = read_run(options.run)
    training = measure_training(run, options.articles, options.rounds)
    trained = (run.path / "adapter").is_dir()
    answering = measure_answering(run, options.answered, options.rounds, options.threads) if trained else {}
    report = {
        "device": "cpu",
        "processor": processor_name(),
        "threads": options.threads,
        "versions": versions(),
        "model": run.settings.model.name,
        "n": {"trained": options.articles, "answered": options.answered, "rounds": options.rounds},
        "training": training,
        "answering": answering,
        "ratios": {
            "training": training[NOW]["tokens_per_second"] / training[AS_BEFORE]["tokens_per_second"],
            **{f"answering {name}": answering[AS_BEFORE]["seconds"] / one["seconds"] for name, one in answering.items()},
        },
    }
    write_json(RESULTS, report)
    print(render(report))
    print(f"wrote {RESULTS}", file=sys.stderr)


def measure_training(run: RunFolder, articles: int, rounds: int) -> dict[str, dict]:
    """By variant, tokens a second of forward and backward passes, the best of the rounds, which take turns."""
    from pipeline.model import load_model, load_tokenizer, model_path
    from pipeline.training.attention import fast_attention
    from pipeline.training.loss_mask import encode_documents

    tokenizer = load_tokenizer(model_path(run.settings.model.name), run.settings.model.revision)
    examples = encode_documents(tokenizer, read_split_folder(run.path / "data")["train"][:articles], run.settings.train.layout)
    tokens, seconds = sum(len(example["input_ids"]) for example in examples), {name: [] for name in TRAINING}
    losses = {}
    with TemporaryDirectory() as folder:
        trainers = {}
        for name, (dtype, _, ours) in TRAINING.items():
            settings = apply_settings({"model.dtype": dtype, "train.report_to": "none"}, run.settings)
            model = load_model(settings, trainable=True)
            recipe = RECIPES["ours_conversation" if ours else "trl"]
            trainers[name] = make_recipe_trainer(recipe, settings, model, tokenizer, examples, Path(folder) / name)
        for _, (name, trainer) in itertools.product(range(rounds), trainers.items()):
            with fast_attention(trainer.model) if TRAINING[name][1] else nullcontext():
                started = time.perf_counter()
                each = [float(step(trainer, [example])) for example in trainer.train_dataset]
                seconds[name].append(told("training", name, time.perf_counter() - started))
            trainer.model.zero_grad()
            losses[name] = sum(each) / len(each)
    return {name: {"tokens_per_second": tokens / min(own), "mean_loss": losses[name]} for name, own in seconds.items()}


def told(what: str, name: str, seconds: float) -> float:
    print(f"{what}, {name}: {seconds:.1f} s", file=sys.stderr)
    return seconds


def step(trainer, rows: Sequence[dict]):
    """Forward and backward of one batch, as the trainer does it. Returns its loss."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # what its loop over batches would set
    return trainer.training_step(trainer.model, trainer._prepare_inputs(trainer.data_collator(rows)))


def measure_answering(run: RunFolder, count: int, rounds: int, threads: int) -> dict[str, dict]:
    """By variant, the seconds for the same test articles, best of the rounds, and the share of answers equal to float32's."""
    documents = read_split_folder(run.path / "data")["test"][:count]
    chats = plan_chats(documents, layout=run.settings.train.layout, max_new_tokens=run.manifest["max_new_tokens"])
    engines = dict(open_engines(run, threads))
    seconds, answers = {name: [] for name in engines}, {}
    for _, (name, engine) in itertools.product(range(rounds), engines.items()):
        started = time.perf_counter()
        answers[name] = read_answers(engine, chats)
        seconds[name].append(told("answering", name, time.perf_counter() - started))
    before = answers[AS_BEFORE]
    return {
        name: {
            "seconds": min(own),
            "documents_per_second": count / min(own),
            "equal_answers": sum(answers[name][key] == text for key, text in before.items()) / len(before),
        }
        for name, own in seconds.items()
    }


def read_answers(engine: Engine, chats: Sequence[Chat]) -> dict[tuple[str, str], str]:
    return {(row["document"], row["task"]): row["completion"] for rows in engine(chats) for row in rows}


def open_engines(run: RunFolder, threads: int) -> Iterator[tuple[str, Engine]]:
    """Our loop in both precisions, plain and grounded; transformers' generate; llama.cpp on the exported files."""
    from eval.engines.huggingface import transformers_engine
    from eval.engines.llama_cpp import llama_cpp_engine
    from pipeline.model import load_model, load_tokenizer

    tokenizer = load_tokenizer(run.path / "adapter")
    for dtype in ("float32", "bfloat16"):
        model = load_model(apply_settings({"model.dtype": dtype}, run.settings), adapter=run.path / "adapter")
        yield dtype, transformers_engine(model, tokenizer, batch_tokens=run.settings.eval.batch_tokens)
    yield "bfloat16_grounded", transformers_engine(
        model, tokenizer, batch_tokens=run.settings.eval.batch_tokens, grounded=True
    )
    yield "bfloat16_generate", generate_engine(model, tokenizer)
    context = run.settings.model.max_length + sum(run.manifest["max_new_tokens"].values())
    for path in sorted((run.path / "export").glob("*.gguf")):
        quant = path.stem.rpartition(".")[2]
        yield f"llama_cpp_{quant}", llama_cpp_engine(str(path), context=context, parallel=8, threads=threads)


def generate_engine(model, tokenizer, rows: int = 16) -> Engine:
    """transformers' `generate` in sorted batches, a call a turn: what there would be without a loop of our own."""
    from collections import deque

    from eval.chat_template import read_template
    from eval.chats import read_chat
    from eval.engines.decode_loop import Decoding, decode_text
    from eval.engines.huggingface import stop_ids
    from eval.engines.unsloth_generate import Calls

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        template = read_template(tokenizer)
        requests = sorted((read_chat(template, chat) for chat in chats), key=lambda one: one.positions, reverse=True)
        decoding = Decoding(model, tokenizer, stop_ids(model, tokenizer, template.end), rows * requests[0].positions)
        for states in Calls(decoding, len(requests), {}).run(deque(requests)):
            for state in states:
                yield [
                    {"document": state.chat.chat.document.id, "task": task, "completion": decode_text(tokenizer, one.ids)}
                    for task, one in zip(state.chat.chat.tasks, state.answers, strict=False)
                ]

    return answer


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def render(report: dict) -> str:
    before = {"training": report["training"][AS_BEFORE], "answering": report["answering"].get(AS_BEFORE)}
    trained = [
        (name, f"{one['tokens_per_second']:,.0f}", f"{one['tokens_per_second'] / before['training']['tokens_per_second']:.2f}",
         f"{one['mean_loss']:.4f}")
        for name, one in report["training"].items()
    ]  # fmt: skip
    answered = [
        (name, f"{one['documents_per_second']:.2f}", f"{before['answering']['seconds'] / one['seconds']:.2f}",
         f"{one['equal_answers']:.1%}")
        for name, one in report["answering"].items()
    ]  # fmt: skip
    where = f"{report['model']} on {report['processor']}, {report['threads']} threads"
    tables = [
        Table(("training", "tokens/s", "times float32", "loss"), tuple(trained), where),
        Table(("answering", "documents/s", "times float32", "equal answers"), tuple(answered)),
    ]
    return join_blocks(as_text(table) for table in tables if table.rows)


if __name__ == "__main__":
    main()
