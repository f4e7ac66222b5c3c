"""`medner plan`: a plan for a corpus and a GPU, without the model: token lengths from whatever tokenizer is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from data.corpus import read_corpus
from data.prompts import conversations, render_answer
from data.schema import TASKS, Document
from data.split import split_documents
from pipeline.base_model import TINY_TOKENIZER
from pipeline.config import Settings
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import Plan, make_plan
from pipeline.plan.estimate import Chats, Lengths, chat_budget
from pipeline.plan.hardware import detect_device, named_device

CHAT_TOKENS = 12  # what a template writes around each message, rounded up
TINY_SHARE = 0.6  # of the embedded tokenizer's tokens: about what Llama's 128k vocabulary needs for biomedical abstracts


def plan_corpus(settings: Settings, files: Mapping[str, Path], gpu: str | None) -> Plan:
    """`files`: a corpus to split ("file"), or one a split; none: 1,000 usual abstracts. Raises InputError if nothing fits."""
    device = named_device(gpu) if gpu else detect_device()
    architecture = find_architecture(settings.model.name, settings.model.revision)
    corpora = {name: read_corpus(path).documents for name, path in files.items()}
    split = split_documents(corpora["file"], settings.data.seed) if "file" in corpora else corpora
    return make_plan(settings, architecture, device, estimate_lengths(settings, split) if split else usual_lengths())


def usual_lengths() -> Lengths:
    """Of the BC5CDR abstracts, split 80/10/10: about 450 tokens, three questions and three answers of 30."""
    train, other = (Chats((465,) * count, (95,) * count, ("?",) * count) for count in (800, 100))
    return Lengths(train, other, other, dict.fromkeys(TASKS, 130), 390)


def estimate_lengths(settings: Settings, split: Mapping[str, Sequence[Document]]) -> Lengths:
    """Counted with the model's tokenizer.json where it is a local folder, else scaled from the embedded one's."""
    from tokenizers import Tokenizer

    own = Path(settings.model.name).expanduser() / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(own if own.is_file() else TINY_TOKENIZER))
    scale = 1.0 if own.is_file() or settings.model.name == "tiny" else TINY_SHARE
    chats = (count_chats(tokenizer, split[name], settings, scale) for name in ("train", "validation", "test"))
    budgets = {}
    for task in TASKS:
        answers = [render_answer(document.gold(task)) for document in split["train"] if task in document.tasks]
        if answers:
            longest = max(len(one.ids) for one in tokenizer.encode_batch(answers, add_special_tokens=False))
            budgets[task] = settings.eval.max_new_tokens or ceil(1.25 * scale * longest) + 8
    return Lengths(*chats, budgets, chat_budget(budgets, settings.train.layout))


def count_chats(tokenizer, documents: Sequence[Document], settings: Settings, scale: float) -> Chats:
    counted = []
    for document in documents:
        for chat in conversations(document, settings.train.layout):
            encoded = tokenizer.encode_batch([message["content"] for message in chat], add_special_tokens=False)
            sizes = [(scale * len(one.ids), message["role"]) for one, message in zip(encoded, chat, strict=True)]
            answers = ceil(sum(size + 1 for size, role in sizes if role == "assistant"))
            whole = ceil(sum(size + CHAT_TOKENS for size, _ in sizes))
            counted.append((whole - answers, answers, document.id))
    return Chats(*map(tuple, zip(*counted, strict=True))) if counted else Chats()
