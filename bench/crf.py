"""What a model has to beat: train's dictionary and the linear-chain CRF, on the same articles.

    python -m bench.crf ROWS                          rows or a corpus, split here by article: learnt on train, scored on test
    python -m bench.crf TRAIN.PubTator DEV.PubTator   learnt on one file, scored on the other
                        --keep FOLDER                 also TRAIN's two parts, for another system to learn from the same

Prints a table of F1 (sets of strings, percent, 95 % intervals over articles) and adds it to bench/results/crf-cpu.json. The
CRF's L2 is swept on validation (on a tenth of TRAIN, where two files are given); test is scored once, with the default.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from data.corpus import read_corpus
from data.files import write_json
from data.readers.pubtator import write_pubtator
from data.schema import TASKS, Document
from data.split import split_documents
from data.table import percent
from eval.report.tables import with_interval
from eval.scoring.baselines import score_baselines
from eval.scoring.crf import L2, open_crf, predict_with_crf, train_crf
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers, score_predictions

SWEEP = (0.1, 0.3, 1.0)
RESULTS = Path(__file__).parent / "results" / "crf-cpu.json"


def score_crf(train: Sequence[Document], documents: Sequence[Document], l2: float) -> tuple[dict, float]:
    """Figures by task, and the processor seconds that training took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        tagger = open_crf(train_crf(train, Path(folder) / "crf", l2))
        seconds = time.process_time() - started
        return score_predictions(documents, predict_with_crf(tagger, documents))["tasks"], seconds


def measure(train: Sequence[Document], validation: Sequence[Document], test: Sequence[Document]) -> dict:
    sweep = {}
    for l2 in SWEEP:
        figures, _ = score_crf(train, validation, l2)
        sweep[f"{l2:g}"] = {task: round(figures[task]["f1"], 4) for task in TASKS}
    figures, seconds = score_crf(train, test, L2)
    empty = {(document.id, task): Answer((), "empty") for document in test for task in document.tasks}
    return {
        "articles": {"train": len(train), "validation": len(validation), "test": len(test)},
        "validation_f1_by_l2": sweep,
        "crf": figures,
        "training_seconds": round(seconds, 1),
        **score_baselines(train, match_answers(test, empty)),
    }


def render(name: str, result: dict) -> str:
    lines = [f"{name}: F1 on {result['articles']['test']} articles, learnt on {result['articles']['train']}", ""]
    for baseline in ("dictionary", "cooccurrence", "crf"):
        for task, one in result[baseline].items():
            figures = with_interval(one["f1"], one["ci95"])
            lines.append(f"{baseline:13} {task:10} {figures:18} P {percent(one['precision'])} R {percent(one['recall'])}")
    return "\n".join([*lines, "", f"CRF trained in {result['training_seconds']} s of one core"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crf", description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write train.PubTator and validation.PubTator there")
    options = parser.parse_args()
    split = split_documents(read_corpus(options.train).documents, seed=42)
    if options.test:
        test = read_corpus(options.test).documents
        train = split["train"] + split["test"]
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            write_pubtator(train, options.keep / "train.PubTator")
            write_pubtator(split["validation"], options.keep / "validation.PubTator")
        result = measure(train, split["validation"], test)
    else:
        result = measure(split["train"], split["validation"], split["test"])
    name = options.train.stem + (f" -> {options.test.stem}" if options.test else ", split by article")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["corpora"] if RESULTS.exists() else {}
    versions = {"python": platform.python_version(), "python-crfsuite": version("python-crfsuite")}
    device = f"cpu ({platform.machine()}), one core"
    write_json(RESULTS, {"device": device, "versions": versions, "l2": L2, "corpora": results | {name: result}})
    print(render(name, result))


if __name__ == "__main__":
    main()
