"""Texts that name nothing: what they are made of, that the plan counts them, and that every process of a job learns them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_llama import tiny_tokenizer

from data.schema import TASKS, Document, Mention
from pipeline import processes, run
from pipeline.config import apply_settings
from pipeline.plan.lengths import count_lengths
from pipeline.training import train
from pipeline.training.negatives import add_negatives, without_names

SAMPLE = Path(__file__).parents[2] / "data" / "sample.jsonl"


def test_a_text_without_names_keeps_only_sentences_that_name_nothing():
    mentions = (Mention("zolamine", "Chemical"), Mention("tremor", "Disease"))
    text = "Zolamine was given. We asked ten people. Tremor followed in two. The others said nothing."
    bare = without_names(Document("7", text, mentions=mentions))
    assert bare.text == "We asked ten people. The others said nothing." and not any(map(bare.gold, TASKS))
    assert without_names(Document("8", "Zolamine was given. It helped.", mentions=mentions)) is None


def test_one_article_in_so_many_gives_one_and_the_plan_counts_it_in_train_alone():
    documents = [Document(str(number), f"We asked {number} people. They said nothing.") for number in range(5)]
    assert add_negatives(documents, 0) == documents
    assert [one.id for one in add_negatives(documents, 2)[5:]] == [f"{number}, sentences without names" for number in (0, 2, 4)]
    settings = apply_settings({"train.negatives": 2, "train.layout": "conversation"})
    lengths = count_lengths(tiny_tokenizer(), {"train": documents, "validation": documents}, settings)
    assert (len(lengths.train.whole), len(lengths.validation.whole)) == (8, 5)


class Trained(Exception):
    """Raised instead of training, with the examples to train on."""


@pytest.mark.slow
def test_every_process_of_a_job_learns_the_same_examples(tmp_path, monkeypatch):
    def tell(settings, model, tokenizer, learnt, *others, **named):
        raise Trained(learnt)

    rows = SAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)[:60]
    (corpus := tmp_path / "corpus.jsonl").write_text("".join(rows), encoding="utf-8")
    settings = {"model.name": "tiny", "train.negatives": 1, "train.report_to": "none", "data.file": str(corpus)}
    planned = run.run_job(tmp_path / "run", settings, until="plan")
    monkeypatch.setattr(train, "train_adapter", tell)
    learnt = []
    for train_in_one in (run.train_run, processes.train_along):
        with pytest.raises(Trained) as told:
            train_in_one(planned)
        learnt.append(told.value.args[0])
    assert learnt[0] == learnt[1] and len(learnt[0]) > planned.manifest["stages"]["data"]["train"]
