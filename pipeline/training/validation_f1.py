"""F1 while training: answers to a fixed few validation articles at each evaluation, which say what the loss does not."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import read_jsonl
from data.schema import Document
from eval.scoring.parse import parse_completions
from eval.scoring.score import score_predictions
from pipeline.config import Settings
from pipeline.training.distributed import count_processes, is_first_process

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTTrainer

Score = Callable[["PreTrainedModel"], dict[str, float]]


def choose_articles(validation: Sequence[Document], settings: Settings) -> list[Document]:
    """`train.eval_f1_articles` of them, the same ones at each evaluation and in each run on this split."""
    wanted = settings.train.eval_f1_articles
    if wanted >= len(validation):
        return list(validation)
    return random.Random(settings.data.seed).sample(list(validation), wanted)


def f1_score(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], budgets: Mapping[str, int]
) -> Score:
    """A function from the model to {"f1": micro F1, "f1_chemicals": …}, fractions, of its greedy answers to `documents`."""
    from eval.engines.huggingface import ask_model

    def score(model: PreTrainedModel) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = ask_model(
                model,
                tokenizer,
                documents,
                Path(folder) / "completions.jsonl",
                layout=settings.train.layout,
                max_new_tokens=settings.eval.max_new_tokens or budgets,
                batch_tokens=settings.eval.batch_tokens,
                grounded=settings.eval.grounded,
                progress=False,
            )
            scores = score_predictions(documents, parse_completions(row for _, row in read_jsonl(path)))
        return {"f1": scores["micro"]["f1"]} | {f"f1_{task}": figures["f1"] for task, figures in scores["tasks"].items()}

    return score


def score_at_evaluations(trainer: SFTTrainer, score: Score) -> None:
    """Add `score`'s figures, as eval_f1…, to what each evaluation measures: logged, kept, and best checkpoints chosen by them.

    The trainer's own compute_metrics would be given logits of gold's answers, not answers; and none under Unsloth.
    """
    evaluate = trainer.evaluation_loop

    def evaluate_and_score(*arguments, **keywords):
        output = evaluate(*arguments, **keywords)
        output.metrics.update(share_from_first(lambda: score(trainer.model)))
        return output

    trainer.evaluation_loop = evaluate_and_score


def share_from_first(score: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The first process's figures in every process: all must choose the same checkpoint, and stop at the same step."""
    figures = [{f"eval_{name}": value for name, value in score().items()} if is_first_process() else None]
    if count_processes() > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(figures)
    return figures[0]
