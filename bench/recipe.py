"""Recipes compared at equal processor time:  python -m bench.recipe --data FILE --minutes M --work DIR [--recipes a b …]

Splits FILE as `medner run` does, or, with --validation OTHER, learns from all of it and answers OTHER. Of each recipe, a few
steps are timed; then it is trained from the start for as many steps as M minutes allow, with the learning rate's course fitted
to them. N validation articles are answered and scored, plain and grounded; test is left alone. Prints a table, and writes
bench/results/recipe-cpu.json, or RESULTS (--out), after each recipe, and the tables of docs/recipe.md that are marked as that
file's; the same command goes on from there, and `--again NAME` does one once more. Several terminals that give the same command
share the recipes; `python -m bench.recipe_articles` answers more articles by what they have trained. Answers stay in DIR; the
result file has no text of the corpus.

Time is this process's processor time over its threads: the clock's, were nothing else running.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from bench.processor import processor_name
from bench.recipe_texts import Texts, as_shown, encode_texts
from bench.train_recipes import WARM_UP, processor_clock, time_training
from data.corpus import read_corpus
from data.files import write_json, write_text
from data.schema import TASKS, Document, InputError
from data.split import split_documents
from data.table import NONE, Table, as_markdown, as_text, join_blocks, percent
from eval.report.tables import with_interval
from eval.scoring.compare import LEVEL
from eval.scoring.logprobs import read_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import Scored, match_answers, score_answers
from eval.scoring.stats import compare_counts, remark_on
from pipeline.config import Explicit, Settings, apply_settings, resolve_explicit
from pipeline.evaluate_model import find_learnt
from pipeline.plan.decide import make_plan
from pipeline.training.negatives import add_negatives, without_names
from pipeline.weights import hash_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RESULTS = Path(__file__).parent / "results" / "recipe-cpu.json"
PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
BEGIN, END = "<!-- table of bench/results/{file} -->", "<!-- end of the table -->"
DEFAULT = "default"
TIMED = 4  # steps, after the two that warm up
LOOKED_THROUGH = 100  # held-out articles, at most, for texts that name nothing
READINGS = ("plain", "grounded")
COMPARED = "grounded"  # the reading whose F1 is compared
ALWAYS = ("train.eval_f1_articles=0", "train.evaluations=1", "train.report_to=none", "eval.logprobs=false", "export.gguf=")


@dataclass(frozen=True)
class Recipe:
    """`settings` are laid over the preset; what no setting makes is in `texts`."""

    reason: str
    settings: tuple[str, ...] = ()
    texts: Texts = Texts()


# In the order in which they are run.
RECIPES = {
    DEFAULT: Recipe("the preset and --set, as they were when the first of these was measured"),
    "another-seed": Recipe("how far the start alone moves the figures", ("train.seed=43",)),
    "separate": Recipe("three chats an article take three times the steps a pass", ("train.layout=separate",)),
    "separate-12": Recipe(
        "the separate layout with as many articles a step as the default",
        ("train.layout=separate", "train.effective_batch_size=12"),
    ),
    "learning-rate-2e-3": Recipe("a short training may bear larger steps", ("train.learning_rate=2e-3",)),
    "learning-rate-5e-4": Recipe("smaller steps forget less", ("train.learning_rate=5e-4",)),
    "batch-2": Recipe("twice the steps in the same time", ("train.effective_batch_size=2",)),
    "batch-8": Recipe("half the steps, each of less noise", ("train.effective_batch_size=8",)),
    "rank-64": Recipe("more room for what the base does not know", ("lora.r=64", "lora.lora_alpha=128")),
    "rank-64-2e-3": Recipe(
        "more room and larger steps together", ("lora.r=64", "lora.lora_alpha=128", "train.learning_rate=2e-3")
    ),
    "rank-8": Recipe("less to learn", ("lora.r=8", "lora.lora_alpha=16")),
    "last-20-layers": Recipe("no gradients below them, so more steps in the same time", ("lora.last_layers=20",)),
    "every-spelling": Recipe(
        "lists as the corpus has them: a name again in each other letter case", texts=Texts(every_spelling=True)
    ),
    "negatives": Recipe("one article in 2 also gives a text that names nothing, if it can", ("train.negatives=2",)),
    "negatives-8": Recipe("the same of one article in 8", ("train.negatives=8",)),
    "relations-first": Recipe(
        "the pairs are read from the article, and the lists of names follow", ("train.layout=relations-first",)
    ),
    "rank-64-relations-first": Recipe(
        "more room, and relations first, together", ("lora.r=64", "lora.lora_alpha=128", "train.layout=relations-first")
    ),
    "noisy-lists": Recipe(
        "one article in 2 also gives its relations behind lists with errors, as the model's own have them",
        texts=Texts(noisy_lists=2),
    ),
    "without-title": Recipe("instruct rows have no titles; gold is the whole article's", texts=Texts(titles=False)),
    "cosine": Recipe("the learning rate stays high for longer", ("train.lr_scheduler_type=cosine",)),
    "constant": Recipe("the learning rate never falls", ("train.lr_scheduler_type=constant_with_warmup",)),
}


@dataclass(frozen=True)
class Job:
    """What all recipes share. `negatives`: texts of validation that name nothing, for false alarms."""

    preset: str
    minutes: float
    train: list[Document]
    validation: list[Document]
    negatives: list[Document]
    work: Path
    readings: tuple[str, ...] = READINGS
    base: tuple[str, ...] = ()  # settings over the preset's, below every recipe's


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        run_recipes(options)
    except InputError as error:
        print(f"bench.recipe: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench.recipe: interrupted; finished recipes are kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.recipe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a corpus, in any format that medner reads")
    parser.add_argument("--validation", type=Path, help="a corpus whose articles are answered; --data is then all learnt from")
    parser.add_argument("--minutes", type=float, required=True, help="of training a recipe")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, metavar="NAME", help=f"default: all, {', '.join(RECIPES)}")
    parser.add_argument("--again", nargs="*", choices=RECIPES, default=[], metavar="NAME", help="do these once more")
    parser.add_argument("--articles", type=int, default=50, help="validation articles that are answered")
    parser.add_argument("--answers", nargs="+", choices=READINGS, default=list(READINGS), help="grounded is always answered")
    parser.add_argument("--preset", default="smollm2-135m")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="over the preset, below every recipe")
    parser.add_argument("--work", type=Path, required=True, help="folder for answers and adapters, outside the repository")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or options.articles <= 0:
        parser.error("--minutes and --articles must be above 0")
    return options


def run_recipes(options: argparse.Namespace) -> None:
    """Do the recipes that are missing. Raises InputError before any is trained where one cannot be."""
    import torch

    if torch.cuda.is_available():
        raise InputError("this compares processor time; hide the GPU (CUDA_VISIBLE_DEVICES=)")
    for path in (options.data, options.validation):
        if path and not path.is_file():
            raise InputError(f"{path}: no such file")
    job = make_job(options)
    results = read_results(options.out, describe_job(job, options.data, options.validation))
    require_base(options.out, job, results["job"]["preset_settings"])
    done = results["recipes"]
    wanted = [name for name in RECIPES if name in (options.recipes or RECIPES) or name in options.again]
    todo = [name for name in dict.fromkeys([DEFAULT, *wanted]) if name in options.again or name not in done]
    plans = {name: settle_recipe(job, RECIPES[name], results["job"]["preset_settings"]) for name in todo}
    job.work.mkdir(parents=True, exist_ok=True)
    for number, (name, settings) in enumerate(plans.items(), 1):
        with suppress(Timeout), FileLock(job.work / f"{name}.lock", timeout=0):  # else another command is at it
            known = read_results(options.out, results["job"])["recipes"]
            if known.get(name) == done.get(name):
                print(f"{name}, {number} of {len(plans)}: {RECIPES[name].reason}", file=sys.stderr)
                results = add_result(options.out, job, results["job"], name, run_recipe(job, name, settings))
    print(as_text(results_table(results)))


def require_base(out: Path, job: Job, known: Mapping[str, object]) -> None:
    """Raises InputError where --set asks for another base than the recipes of `out` were laid over."""
    for name, value in resolve_explicit(None, None, job.base).items():
        if name not in known or known[name] != value:
            raise InputError(
                f"{out}: its recipes were laid over {name}={known.get(name, 'the default')}, not {value}, and would not "
                "compare; leave it out of --set, or give another file by --out"
            )


def add_result(out: Path, job: Job, described: dict, name: str, figures: dict) -> dict:
    """The results with this recipe's, written; other commands may have added theirs meanwhile."""
    with FileLock(job.work / "results.lock"):
        results = read_results(out, described)
        done = results["recipes"] | {name: figures}
        results["recipes"] = {one: done[one] for one in RECIPES if one in done}
        if DEFAULT in done:
            compare_with_default(job, results["recipes"])
        write_json(out, results)
        write_page(results, out)
    return results


def make_job(options: argparse.Namespace) -> Job:
    train, held_out = read_both(options.data, options.validation)
    readings = tuple(name for name in READINGS if name in (*options.answers, COMPARED))
    validation = held_out[: options.articles]
    negatives = [text for document in held_out[:LOOKED_THROUGH] if (text := without_names(document))]
    return Job(options.preset, options.minutes, train, validation, negatives, options.work, readings, tuple(options.set))


def read_both(data: Path, validation: Path | None) -> tuple[list[Document], list[Document]]:
    """What is learnt from, and what is held out. Raises InputError where nothing is, or an article is in both, or nearly."""
    documents = read_corpus(data).documents
    if validation is None:
        split = split_documents(documents, apply_settings({}).data.seed)
        if not split["validation"]:
            raise InputError(f"{data}: too few articles to split 80/10/10; give at least 10")
        return split["train"], split["validation"]
    held_out = read_corpus(validation).documents
    if shared := find_learnt(documents, held_out):
        raise InputError(f"{validation}: {len(shared)} articles stand in {data} too, as they are or nearly: {shared[0].id}")
    return documents, held_out


def describe_job(job: Job, data: Path, validation: Path | None = None) -> dict:
    """What results must share to stand in one table."""
    return {
        "data": data.name,
        "data_sha256": hash_file(data),
        "held_out": validation and {"data": validation.name, "data_sha256": hash_file(validation)},  # None: a tenth of the data
        "preset": job.preset,
        "preset_settings": {
            name: value
            for name, value in resolve_explicit(job.preset, None, job.base).items()
            if name.startswith(("model.", "lora.", "train."))
        },
        "minutes": job.minutes,
        "articles": {"train": len(job.train), "validation": len(job.validation), "without_names": len(job.negatives)},
        "processor": processor_name(),
        "threads": count_threads(),
        "loss": "ours",  # with TRL's, a step took half as long again: fewer in the same minutes
    }


def count_threads() -> int:
    import torch

    return torch.get_num_threads()


def read_results(path: Path, job: dict) -> dict:
    """The results so far. Raises InputError where they are of other data, another model, time or machine.

    The preset may have changed since, by what was found: recipes are laid over what it was when the default was measured.
    """
    names = ("python", "torch", "transformers", "peft", "trl")
    versions = {name: platform.python_version() if name == "python" else version(name) for name in names}
    device = f"cpu ({platform.machine()}), {os.cpu_count()} cores"
    if not path.exists():
        return {"device": device, "versions": versions, "level": LEVEL, "job": job, "recipes": {}}
    results = json.loads(path.read_text(encoding="utf-8"))
    before = {"loss": "TRL's", "held_out": None} | results["job"]
    for key, value in job.items():
        if key != "preset_settings" and before[key] != value:
            raise InputError(
                f"{path}: its recipes have {key} {before[key]}, not {value}, and would not compare; "
                "give the same, or another file by --out"
            )
    return results


def settle_recipe(job: Job, recipe: Recipe, preset: Explicit) -> Settings:
    """The settings of a recipe, its plan made; `preset` goes over the preset's own. Raises InputError where they cannot be."""
    from pipeline.model import load_tokenizer, model_path
    from pipeline.plan.architectures import find_architecture
    from pipeline.plan.hardware import detect_device
    from pipeline.plan.lengths import count_lengths

    settings = apply_settings(resolve_explicit(job.preset, None, []) | preset)
    settings = apply_settings(resolve_explicit(None, None, [*ALWAYS, *recipe.settings]), settings)
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    split = {"train": job.train, "validation": job.validation, "test": job.negatives}
    lengths = count_lengths(tokenizer, split, settings)
    architecture = find_architecture(settings.model.name, settings.model.revision)
    return make_plan(settings, architecture, detect_device(), lengths).settings


def run_recipe(job: Job, name: str, settings: Settings) -> dict:
    """Train it and answer by it; figures for the result file."""
    from pipeline.model import load_tokenizer, model_path
    from pipeline.training.loss_mask import encode_documents

    folder, layout, recipe = job.work / name, settings.train.layout, RECIPES[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    gc.collect()  # trainers refer to themselves, and the last recipe's model would stay in memory beside this one's
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    train = encode_texts(tokenizer, add_negatives(job.train, settings.train.negatives), layout, recipe.texts)
    validation = encode_documents(tokenizer, as_shown(job.validation, recipe.texts), layout)
    a_step = time_step(settings, tokenizer, train, folder / "timed")
    steps = max(1, round(60 * job.minutes / a_step))
    print(f"{name}: {a_step:.2f} s a step, so {steps} steps in {job.minutes:g} minutes", file=sys.stderr)
    settings = apply_settings({"train.max_steps": steps}, settings)
    model, figures = train_timed(settings, tokenizer, train, validation, folder)
    examples = steps * settings.train.effective_batch_size
    length = sum(len(example["input_ids"]) for example in train) / len(train)
    return {
        "settings": list(recipe.settings),
        "examples": len(train),
        "seconds_a_step": round(a_step, 3),
        "steps": steps,
        "tokens": round(examples * length),
        "passes": round(examples / len(train), 3),
        **figures,
        "answers": answer_all(job, settings, model, tokenizer, folder, recipe.texts),
    }


def time_step(settings: Settings, tokenizer: PreTrainedTokenizerBase, train: Sequence[dict], folder: Path) -> float:
    """Processor seconds of an optimiser step on examples of evenly spread lengths, the first steps left out."""
    from pipeline.model import load_model
    from pipeline.training.attention import fast_attention
    from pipeline.training.train import make_trainer

    steps = WARM_UP + TIMED
    wanted = min(steps * settings.train.effective_batch_size, len(train))
    by_length = sorted(train, key=lambda example: len(example["input_ids"]))
    spread = [by_length[(2 * i + 1) * len(train) // (2 * wanted)] for i in range(wanted)]
    model = load_model(settings, trainable=True)
    trainer = make_trainer(apply_settings({"train.max_steps": steps}, settings), model, tokenizer, spread, [], folder)
    with fast_attention(model):
        share, _ = time_training(trainer, cuda=False)
    return 1 / (share * steps)


def train_timed(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, train: Sequence[dict], validation: Sequence[dict], folder: Path
) -> tuple[PreTrainedModel, dict]:
    """The trained model; {"seconds": processor seconds of its steps, "clock_seconds", "train_loss", "validation_loss"}."""
    from transformers import TrainerCallback

    from pipeline.model import load_model
    from pipeline.training.train import train_adapter

    times: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            times.append((processor_clock(), time.perf_counter()))

        def on_step_end(self, args, state, control, **kwargs):
            times.append((processor_clock(), time.perf_counter()))

    model = load_model(settings, trainable=True)
    facts = train_adapter(settings, model, tokenizer, train, validation, folder, [Clock()])
    (own, clock), (own_end, clock_end) = times[0], times[-1]
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    losses = {key: round(facts[key], 4) for key in ("train_loss", "validation_loss")}
    return model, {"seconds": round(own_end - own, 1), "clock_seconds": round(clock_end - clock, 1), **losses}


def answer_all(
    job: Job,
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    texts: Texts,
) -> dict:
    """By reading, the figures of the answers to validation; "false_alarms": of the texts that name nothing, grounded."""
    figures: dict = {}

    def ask(documents: Sequence[Document], name: str, grounded: bool) -> float:
        started = processor_clock()
        ask_documents(job, settings, model, tokenizer, documents, folder / name, grounded=grounded)
        return processor_clock() - started

    for reading in job.readings:
        seconds = ask(as_shown(job.validation, texts), reading, reading == COMPARED)
        figures[reading] = score_reading(folder / reading, job.validation)
        figures[reading]["seconds_an_article"] = round(seconds / len(job.validation), 2)
    if job.negatives:
        ask(job.negatives, "without-names", True)
        alarms = read_answers(folder / "without-names", job.negatives).predicted
        figures["false_alarms"] = {
            task: sum(bool(items) for (_, asked), items in alarms.items() if asked == task) / len(job.negatives)
            for task in TASKS
        }
    return figures


def ask_documents(
    job: Job,
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    folder: Path,
    *,
    grounded: bool,
) -> None:
    """The answers that the folder lacks, added to it."""
    from eval.engines.huggingface import ask_model
    from pipeline.plan.lengths import answer_budgets

    ask_model(
        model,
        tokenizer,
        documents,
        folder / "completions.jsonl",
        layout=settings.train.layout,
        max_new_tokens=settings.eval.max_new_tokens or answer_budgets(tokenizer, job.train),
        batch_tokens=settings.eval.batch_tokens,
        grounded=grounded,
    )


def score_reading(folder: Path, documents: Sequence[Document]) -> dict:
    """Figures of the answers that are kept there."""
    scores = score_answers(read_answers(folder, documents))
    kept = ("precision", "recall", "f1", "ci95")
    return {
        "articles": len(documents),
        "tasks": {task: {key: own[key] for key in kept} for task, own in scores["tasks"].items()},
        "micro": {key: scores["micro"][key] for key in kept},
        "rates": scores["rates"],
    }


def read_answers(folder: Path, documents: Sequence[Document]) -> Scored:
    """Kept answers to these documents, of perhaps more, beside gold. Raises InputError where they are not there any more."""
    path = folder / "completions.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no answers there to compare with; give the same --work, or --again {folder.parent.name}")
    asked = {document.id for document in documents}
    return match_answers(documents, parse_completions([row for row in read_completions(path) if row["document"] in asked]))


def compare_with_default(job: Job, recipes: Mapping[str, dict]) -> None:
    """Add to each recipe but the default "against_default": by task and "micro", the paired test's row."""
    before = read_answers(job.work / DEFAULT / COMPARED, job.validation).counts
    kept = ("difference", "ci95", "p", "p_corrected", "resolvable")
    for name, one in recipes.items():
        if name != DEFAULT:
            compared = compare_counts(before, read_answers(job.work / name / COMPARED, job.validation).counts)
            one["against_default"] = {task: {key: row[key] for key in kept} for task, row in compared.items()}


def results_table(results: Mapping) -> Table:
    job, recipes = results["job"], results["recipes"]
    count = job["articles"]["validation"]
    plain = max((one["answers"].get("plain", {}).get("articles", 0) for one in recipes.values()), default=0)
    held_out = f"articles of {other['data']}" if (other := job.get("held_out")) else "validation articles"
    title = f"{job['preset']}, {job['minutes']:g} minutes of training a recipe: F1 on {count} {held_out}, percent"
    header = ("recipe", "steps", "passes", "validation loss", *TASKS, "micro", "better in", "worse in", "false alarms",
              "answering, s an article", *(("repeated", "truncated", "not in the text") if plain else ()))  # fmt: skip
    of_plain = f"repeated, not in the text: of items; truncated: of answers; these of {plain} articles' plain answers. "
    note = (
        f"{job['processor']}, threads: {job['threads']}. " + (f"{remark}. " if (remark := remark_on(count)) else "")
        + "F1 of grounded answers, with 95 % intervals over articles. "
        + (of_plain if plain else "")
        + f"false alarms: of {job['articles']['without_names']} texts that name nothing, those with a relation. "
        f"better, worse: than the default, where the paired test's corrected p is under {results['level']}."
    )  # fmt: skip
    # what plain answers give stands last in a row
    rows = tuple(results_row(results, name)[: len(header)] for name in recipes)
    return Table(header, rows, title, note, ("better in", "worse in"))


def results_row(results: Mapping, name: str) -> tuple[str, ...]:
    one = results["recipes"][name]
    answers = one["answers"]
    scores, rates = answers[COMPARED], answers.get("plain", {}).get("rates", {})
    figures = [{**scores["tasks"], "micro": scores["micro"]}.get(task) for task in (*TASKS, "micro")]
    against = one.get("against_default", {})
    differs = {task: row["difference"] for task, row in against.items() if row["p_corrected"] < results["level"]}
    sides = [[task for task in differs if task != "macro" and sign * differs[task] > 0] for sign in (1, -1)]
    return (
        name,
        f"{one['steps']}",
        f"{one['passes']:.2f}",
        f"{one['validation_loss']:.3f}",
        *(with_interval(own["f1"], own["ci95"]) if own else NONE for own in figures),
        *(", ".join(side) or (NONE if against else "") for side in sides),
        percent(answers.get("false_alarms", {}).get("relations")),
        NONE if (seconds := scores["seconds_an_article"]) is None else f"{seconds:.1f}",
        *(percent(rates.get(kind)) for kind in ("duplicate", "truncated", "ungrounded")),
    )


def recipes_table(names: Sequence[str], preset: Mapping) -> Table:
    """What each recipe lays over the preset; of the default, what the preset itself had when it was measured."""
    own = tuple(f"{name}={value}" for name, value in preset.items())
    laid = {name: own if name == DEFAULT else RECIPES[name].settings for name in names}
    rows = ((name, ", ".join(laid[name]) or NONE, RECIPES[name].reason) for name in names)
    return Table(("recipe", "laid over the preset", "why"), tuple(rows), words=("laid over the preset", "why"))


def render_page(results: Mapping) -> str:
    """What stands in docs/recipe.md between a result file's two marks."""
    left = [name for name in RECIPES if name not in results["recipes"]]
    blocks = [
        as_markdown(results_table(results)),
        as_markdown(recipes_table(list(results["recipes"]), results["job"]["preset_settings"])),
    ]
    if left:
        blocks.append(f"Not measured: {', '.join(f'`{name}`' for name in left)}.")
    return join_blocks(blocks)


def write_page(results: Mapping, out: Path, page: Path = PAGE) -> None:
    """Writes the tables anew, where the page has marks for this file of bench/results."""
    text, begin = page.read_text(encoding="utf-8"), BEGIN.format(file=out.name)
    if out.resolve().parent == RESULTS.parent and begin in text:
        before, _, rest = text.partition(begin)
        write_text(page, f"{before}{begin}\n\n{render_page(results)}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
