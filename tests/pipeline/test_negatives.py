"""Texts that name nothing: what they are made of, and that the plan counts them."""

from __future__ import annotations

from tiny_llama import tiny_tokenizer

from data.schema import TASKS, Document, Mention
from pipeline.config import apply_settings
from pipeline.plan.lengths import count_lengths
from pipeline.training.negatives import add_negatives, without_names


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
