"""The transformers engine: one greedy decode loop over left-padded batches whose rows leave as they finish.

The key-value cache is kept across the turns of a conversation, with the generated ids in it, never re-tokenised text.
`model.generate` is not called: it can do neither, and Unsloth's flips the padding side.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.engine_cache import Rows, SavedRow, grouped_attention
from eval.generate import Chat, Engine
from eval.grounding import Ground, GroundedAnswer, grounding
from eval.language import read_vocabulary
from eval.turns import Turns, end_id, refuse_markers, refuse_too_long, turn_ids  # noqa: F401 -- training reads two of them here


@dataclass(frozen=True)
class Decoding:
    """All that stays the same from batch to batch."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    ground: Ground | None = None
    logprobs: bool = False


@dataclass
class Answer:
    """What was generated for one turn, without the end token; `logprobs` are the model's own, before any grounding."""

    ids: list[int]
    logprobs: list[float]
    finish: str = "length"


def open_transformers(
    model: str,
    *,
    batch_tokens: int = 16_384,
    dtype: str = "auto",
    device: str = "cpu",
    grounded: bool = False,
    listed_sides: bool = False,
    logprobs: bool = False,
) -> Engine:
    """The engine over a model's folder or Hub id, or an adapter's folder; `pipeline.model` loads in 4 bits and by Unsloth."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loader = AutoPeftModelForCausalLM if (Path(model) / "adapter_config.json").is_file() else AutoModelForCausalLM
    return transformers_engine(
        loader.from_pretrained(model, dtype=dtype).to(device),
        AutoTokenizer.from_pretrained(model),
        batch_tokens=batch_tokens,
        grounded=grounded,
        listed_sides=listed_sides,
        logprobs=logprobs,
    )


def transformers_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_tokens: int,
    grounded: bool = False,
    listed_sides: bool = False,
    logprobs: bool = False,
) -> Engine:
    """An engine over a loaded model, which may be a PEFT, a 4-bit or an Unsloth one."""

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        turns = [Turns(chat, turn_ids(tokenizer, chat)) for chat in chats]
        refuse_too_long(turns, model.config.max_position_embeddings)
        ground = grounding(read_vocabulary(tokenizer, end_id(tokenizer)), listed_sides) if grounded else None
        decoding = Decoding(model, tokenizer, stop_ids(model, tokenizer), ground, logprobs)
        for batch, answers in answer_batches(decoding, turns, batch_tokens):
            yield [row for one, given in zip(batch, answers, strict=True) for row in _rows(tokenizer, one, given, logprobs)]

    return answer


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The template's end token, and those that the model's generation config names; never padding."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = [configured] if isinstance(configured, int) else configured or []
    return frozenset({*configured} - {tokenizer.pad_token_id} | {end_id(tokenizer)})


def _rows(tokenizer: PreTrainedTokenizerBase, one: Turns, answers: Sequence[Answer], logprobs: bool) -> Iterator[dict]:
    for task, answer in zip(one.chat.tasks, answers, strict=True):
        text = decode_text(tokenizer, answer.ids)
        row = {"document": one.chat.document.id, "task": task, "completion": text, "finish": answer.finish}
        if logprobs:
            row["logprobs"] = list(zip(token_texts(tokenizer, answer.ids), answer.logprobs, strict=True))
        yield row


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; the bytes of a split character count with its last. Joined, they are the answer."""
    texts, read = [], ""
    for end in range(1, len(ids) + 1):
        text = decode_text(tokenizer, ids[:end])
        whole = text if end == len(ids) else text.rstrip("\ufffd")
        texts.append(whole[len(read) :])
        read = whole if len(whole) > len(read) else read
    return texts


def answer_batches(
    decoding: Decoding, turns: Sequence[Turns], batch_tokens: int
) -> Iterator[tuple[list[Turns], list[list[Answer]]]]:
    """Batches of equal tasks and near lengths, longest first; one that runs out of memory is halved, and later ones with it."""
    waiting = sorted(turns, key=lambda one: (one.chat.tasks, one.positions))
    most = len(waiting)
    while waiting:
        size = next_batch(waiting, batch_tokens, most)
        batch = waiting[-size:]
        try:
            answers = answer_batch(decoding, batch)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not _out_of_memory(error):
                raise
            answers = None
        if answers is None:  # outside of the except clause, which would keep the failed batch's tensors alive
            most = size // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        del waiting[-size:]
        yield batch, answers


def next_batch(waiting: Sequence[Turns], batch_tokens: int, most: int) -> int:
    """How many of the last of `waiting` (the longest) make a batch: same tasks, and room for each row's every position."""
    longest = waiting[-1]
    room = min(max(1, batch_tokens // longest.positions), most, len(waiting))
    same = 1
    while same < room and waiting[-1 - same].chat.tasks == longest.chat.tasks:
        same += 1
    return same


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)  # torch's words for it on a CPU


@torch.inference_mode()
def answer_batch(decoding: Decoding, batch: Sequence[Turns]) -> list[list[Answer]]:
    """The answers of each chat in turn; all chats of a batch ask the same tasks."""
    training = decoding.model.training
    decoding.model.eval()
    try:
        answers: list[list[Answer]] = [[] for _ in batch]
        saved: list[SavedRow | None] = [None] * len(batch)
        with grouped_attention(decoding.model):
            for turn in range(len(batch[0].ids)):
                given, saved = _answer_turn(decoding, batch, turn, answers, saved)
                for own, answer in zip(answers, given, strict=True):
                    own.append(answer)
        return answers
    finally:
        decoding.model.train(training)


def _answer_turn(
    decoding: Decoding, batch: Sequence[Turns], turn: int, earlier: list[list[Answer]], saved: list[SavedRow | None]
) -> tuple[list[Answer], list[SavedRow | None]]:
    """Every row's answer to one turn, and what each needs for the next one."""
    # A truncated answer's last token has not been read yet; the end token that closes it opens every later turn's ids.
    unread = [own[-1].ids[-1:] if own and own[-1].finish == "length" else [] for own in earlier]
    texts = [(*token, *one.ids[turn]) for token, one in zip(unread, batch, strict=True)]
    budgets = [one.chat.budgets[turn] for one in batch]
    rows = Rows.join(decoding.model, saved, room=max(map(len, texts)) + max(budgets))
    logits = rows.read(texts)  # on a GPU this returns at once, and the grammars are built meanwhile
    grounded = [_ground(decoding, one, turn, own) for one, own in zip(batch, earlier, strict=True)]
    return _decode(decoding, rows, logits, budgets, grounded, last=turn == len(batch[0].ids) - 1)


def _ground(decoding: Decoding, one: Turns, turn: int, earlier: Sequence[Answer]) -> GroundedAnswer | None:
    if decoding.ground is None:
        return None
    return decoding.ground(one.chat, turn, [decode_text(decoding.tokenizer, answer.ids) for answer in earlier])


def _decode(
    decoding: Decoding,
    rows: Rows,
    logits: torch.Tensor,
    budgets: Sequence[int],
    grounded: Sequence[GroundedAnswer | None],
    *,
    last: bool,
) -> tuple[list[Answer], list[SavedRow | None]]:
    """Tokens until every row is done. Done rows leave together once they are a quarter, since that copies the cache."""
    answers = [Answer([], []) for _ in budgets]
    saved: list[SavedRow | None] = [None] * len(budgets)
    here = list(range(len(budgets)))  # which chat each row of `rows` belongs to
    going = [True] * len(here)
    while True:
        tokens, chances = _choose(
            decoding, logits, [grounded[chat] if goes else None for chat, goes in zip(here, going, strict=True)]
        )
        for row, chat in enumerate(here):
            if going[row]:
                going[row] = _take(answers[chat], tokens[row], chances[row], budgets[chat], decoding.stops)
        if going.count(False) * 4 >= len(here):
            for row, chat in enumerate(here):
                if not going[row] and not last:
                    saved[chat] = rows.save(row)
            stay = [row for row in range(len(here)) if going[row]]
            if not stay:
                return answers, saved
            rows.keep(stay)
            here, tokens, going = [here[row] for row in stay], [tokens[row] for row in stay], [True] * len(stay)
        logits = rows.read([[token] if goes else [] for token, goes in zip(tokens, going, strict=True)])


def _choose(
    decoding: Decoding, logits: torch.Tensor, grounded: Sequence[GroundedAnswer | None]
) -> tuple[list[int], list[float]]:
    """Each row's best token, of those allowed where it is grounded, and its log-probability where that is asked for."""
    best = logits.argmax(-1) if decoding.ground is None else _best_allowed(logits, grounded)
    chances = [0.0] * len(best)
    if decoding.logprobs:
        chances = logits.float().log_softmax(-1).gather(-1, best[:, None])[:, 0].tolist()
    tokens = best.tolist()
    for answer, token in zip(grounded, tokens, strict=True):
        if answer:
            answer.take(token)
    return tokens, chances


def _best_allowed(logits: torch.Tensor, grounded: Sequence[GroundedAnswer | None]) -> torch.Tensor:
    """Each row's best allowed token; any token for a row that is done."""
    allowed = [answer.allowed() if answer else numpy.zeros(1, numpy.int64) for answer in grounded]
    table = numpy.full((len(allowed), max(map(len, allowed))), -1)
    for row, ids in zip(table, allowed, strict=True):
        row[: len(ids)] = ids
    ids = torch.from_numpy(table).to(logits.device)
    scores = logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
    return ids.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def _take(answer: Answer, token: int, chance: float, budget: int, stops: frozenset[int]) -> bool:
    """Adds a token to an answer. Returns whether the answer goes on; if it does not, the cache lacks this token."""
    if token in stops:
        answer.finish = "stop"
        return False
    answer.ids.append(token)
    answer.logprobs.append(chance)
    return len(answer.ids) < budget
