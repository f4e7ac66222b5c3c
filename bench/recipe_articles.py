"""More articles for recipes that are trained already:  python -m bench.recipe_articles --data FILE --articles N --work DIR

Answers, grounded, by each recipe's adapter in DIR the validation articles up to N that `bench.recipe` left out, then writes
the figures and the comparison anew. Several terminals that give the same command share the recipes; the last to end writes.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bench.recipe import (
    COMPARED,
    RECIPES,
    RESULTS,
    Job,
    ask_documents,
    compare_with_default,
    describe_job,
    make_job,
    read_results,
    results_table,
    score_reading,
    settle_recipe,
    write_page,
)
from bench.recipe_texts import as_shown
from data.files import write_json
from data.schema import InputError
from data.table import as_text
from eval.scoring.logprobs import read_completions
from pipeline.config import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recipe_articles", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the corpus that the recipes were trained on")
    parser.add_argument("--articles", type=int, required=True, help="validation articles that are answered in the end")
    parser.add_argument("--work", type=Path, required=True, help="the folder of the recipes' adapters")
    parser.add_argument("--validation", type=Path, help="the corpus that is answered, if bench.recipe was given one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        answer_more(options)
    except InputError as error:
        print(f"bench.recipe_articles: {error}", file=sys.stderr)
        return 2
    return 0


def answer_more(options: argparse.Namespace) -> None:
    """Raises InputError where the results are of other data or another machine, or an adapter is not there."""
    before = json.loads(options.out.read_text(encoding="utf-8"))
    options.preset, options.minutes, options.answers = before["job"]["preset"], before["job"]["minutes"], [COMPARED]
    options.set = []  # what it was is in the results
    job = make_job(options)
    described = describe_job(job, options.data, options.validation)
    described["loss"] = before["job"].get("loss", "TRL's")  # nothing is trained
    if before["job"]["articles"]["validation"] > len(job.validation):
        raise InputError(f"{options.out}: has {before['job']['articles']['validation']} articles already")
    described["articles"]["validation"] = before["job"]["articles"]["validation"]
    for name in (names := list(read_results(options.out, described)["recipes"])):
        if not (job.work / name / "adapter").is_dir():
            raise InputError(f"{job.work / name / 'adapter'}: not there; give the --work of bench.recipe")
    for name in names:
        with suppress(Timeout), FileLock(job.work / f"{name}.lock", timeout=0):  # else another command is at it
            if not is_answered(job, name):
                print(f"{name}: {len(job.validation)} articles", file=sys.stderr)
                answer_recipe(job, name, settle_recipe(job, RECIPES[name], before["job"]["preset_settings"]))
    with FileLock(job.work / "results.lock"):
        results = read_results(options.out, described)
        if left := [name for name in results["recipes"] if not is_answered(job, name)]:
            print(f"not answered yet: {', '.join(left)}; the command that is at it, or this one again, will write the figures")
            return
        results["job"]["articles"]["validation"] = len(job.validation)
        for name, one in results["recipes"].items():
            kept = one["answers"][COMPARED]["seconds_an_article"]  # of the articles that were answered at first
            one["answers"][COMPARED] = {**score_reading(job.work / name / COMPARED, job.validation), "seconds_an_article": kept}
        compare_with_default(job, results["recipes"])
        write_json(options.out, results)
        write_page(results, options.out)
    print(as_text(results_table(results)))


def is_answered(job: Job, name: str) -> bool:
    answered = {(row["document"], row["task"]) for row in read_completions(job.work / name / COMPARED / "completions.jsonl")}
    return all((document.id, task) in answered for document in job.validation for task in document.tasks)


def answer_recipe(job: Job, name: str, settings: Settings) -> None:
    from pipeline.model import load_model, load_tokenizer, model_path

    gc.collect()  # the last recipe's model would stay in memory beside this one's
    tokenizer = load_tokenizer(model_path(settings.model.name), settings.model.revision)
    model = load_model(settings, adapter=job.work / name / "adapter")
    shown = as_shown(job.validation, RECIPES[name].texts)
    ask_documents(job, settings, model, tokenizer, shown, job.work / name / COMPARED, grounded=True)


if __name__ == "__main__":
    sys.exit(main())
