"""`medner plan`: a plan for a corpus and a GPU, without the model: token lengths from whatever tokenizer is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.audit import TINY_TOKENIZER
from data.corpus import read_corpus
from data.prompts import conversations
from data.schema import Document
from data.split import split_documents
from pipeline.config import Settings
from pipeline.plan.architectures import find_architecture
from pipeline.plan.decide import Plan, make_plan
from pipeline.plan.estimate import Lengths
from pipeline.plan.hardware import detect_device, named_device

CHAT_TOKENS = 12  # what a template writes around each message, rounded up
# Llama's 128k vocabulary writes biomedical abstracts in about 0.6 of the embedded model's tokens.
TINY_SHARE = 0.6
# Where no corpus is named: the sizes of the BC5CDR abstracts, 800 to train on, about 450 tokens and three answers of 30.
TYPICAL = Lengths(train=(560,) * 800, supervised=(95,) * 800, validation=(560,) * 100, answering=(950,) * 100)


def plan_corpus(settings: Settings, gpu: str | None) -> Plan:
    """Raises InputError where nothing fits, before anything is loaded."""
    device = named_device(gpu) if gpu else detect_device()
    architecture = find_architecture(settings.model.name, settings.model.revision)
    lengths = estimate_lengths(settings) if settings.data.file else TYPICAL
    return make_plan(settings, architecture, device, lengths)


def estimate_lengths(settings: Settings) -> Lengths:
    """Counted with the model's tokenizer.json where it is a local folder, else scaled from the embedded one's."""
    from tokenizers import Tokenizer

    own = Path(settings.model.name).expanduser() / "tokenizer.json"
    exact = own.is_file() or settings.model.name == "tiny"
    tokenizer = Tokenizer.from_file(str(own if own.is_file() else TINY_TOKENIZER))
    scale = 1.0 if exact else TINY_SHARE
    split = split_documents(read_corpus(settings.data.file).documents, settings.data.seed)
    counts = {name: count_chats(tokenizer, documents, settings, scale) for name, documents in split.items()}
    longest = max((answers for _, answers in counts["train"]), default=0)
    return Lengths(
        train=tuple(whole for whole, _ in counts["train"]),
        supervised=tuple(answers for _, answers in counts["train"]),
        validation=tuple(whole for whole, _ in counts["validation"]),
        answering=tuple(whole + round(1.25 * longest) for whole, _ in counts["test"]),
    )


def count_chats(tokenizer, documents: Sequence[Document], settings: Settings, scale: float) -> list[tuple[int, int]]:
    """(tokens, tokens of the answers) of each chat."""
    counted = []
    for document in documents:
        for chat in conversations(document, settings.train.layout):
            lengths = [len(e.ids) for e in tokenizer.encode_batch([m["content"] for m in chat], add_special_tokens=False)]
            answers = sum(n for n, message in zip(lengths, chat, strict=True) if message["role"] == "assistant")
            counted.append((round(scale * sum(lengths)) + CHAT_TOKENS * len(chat), round(scale * answers) + len(chat) // 2))
    return counted
