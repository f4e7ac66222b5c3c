"""The transformers engine: one greedy decode loop over left-padded batches whose rows leave as they finish.

The key-value cache is kept across the turns of a conversation, with the generated ids in it, never re-tokenised text.
`model.generate` is not called: it can do neither, and Unsloth's flips the padding side.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.prompts import SYSTEM
from data.schema import Document, InputError
from eval.engine_cache import Rows, SavedRow
from eval.generate import Chat, Engine

SENTINEL = "- sentinel"  # stands for an answer where the template is asked what follows one


@dataclass(frozen=True)
class Turns:
    """A chat in token ids: `ids[i]` is all that the model reads between its answers i-1 and i, the end token first."""

    chat: Chat
    ids: tuple[tuple[int, ...], ...]

    @property
    def positions(self) -> int:
        """The most positions that prompts and answers can take."""
        return sum(map(len, self.ids)) + sum(self.chat.budgets)


def transformers_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_tokens: int,
    grounded: bool = False,
    logprobs: bool = False,
) -> Engine:
    """An engine over a loaded model, which may be a PEFT, a 4-bit or an Unsloth one."""
    if grounded:
        raise InputError("grounded decoding is not there yet")

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        turns = [Turns(chat, turn_ids(tokenizer, chat)) for chat in chats]
        refuse_too_long(turns, model.config.max_position_embeddings)
        for batch, answers in _answer_batches(model, turns, stop_ids(model, tokenizer), batch_tokens, logprobs):
            yield [row for one, given in zip(batch, answers, strict=True) for row in _rows(tokenizer, one, given, logprobs)]

    return answer


def turn_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[tuple[int, ...], ...]:
    """What the tokenizer's chat template makes of the chat's prompts, cut where the answers go.

    Raises InputError where the article holds one of the tokenizer's markers, or the template does not keep what it
    rendered before an answer once the answer is there.
    """
    refuse_markers(tokenizer, chat.document)
    messages, read, turns = [{"role": "system", "content": SYSTEM}], "", []
    for prompt in chat.prompts:
        messages.append({"role": "user", "content": prompt})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if not text.startswith(read):
            raise InputError("the chat template changes earlier turns when later ones come; conversations cannot be generated")
        turns.append(tuple(tokenizer(text[len(read) :], add_special_tokens=False)["input_ids"]))
        read = text + SENTINEL
        messages.append({"role": "assistant", "content": SENTINEL})
    if tokenizer.bos_token_id is not None and [i for i in turns[0] if i == tokenizer.bos_token_id] != [turns[0][0]]:
        raise InputError("the chat template must write exactly one begin-of-text token, and first")
    return tuple(turns)


def refuse_markers(tokenizer: PreTrainedTokenizerBase, document: Document) -> None:
    """Raises InputError where the article holds the text of one of the tokenizer's special tokens."""
    marker = _markers(tokenizer).search(document.article)
    if marker:
        raise InputError(f"document {document.id}: its article holds the tokenizer's marker {marker[0]!r}; take it out")


def _markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    """Matches the text of any special token: read from an article, it would end the user's turn."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the chat template ends an answer: `<|eot_id|>` for Llama 3."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": SENTINEL}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).partition(SENTINEL)[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in tokenizer.added_tokens_decoder:
        raise InputError("the chat template does not end an answer with a token of its own; generation could not stop")
    return ids[0]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The template's end token, and those that the model's generation config names; never padding."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = [configured] if isinstance(configured, int) else configured or []
    return frozenset({*configured} - {tokenizer.pad_token_id} | {end_id(tokenizer)})


def refuse_too_long(turns: Sequence[Turns], limit: int) -> None:
    """Raises InputError naming the documents whose prompts and answers may take more positions than the model has."""
    long = [one for one in turns if one.positions > limit]
    if long:
        worst = max(long, key=lambda one: one.positions)
        raise InputError(
            f"document {worst.chat.document.id} needs {worst.positions} positions, {sum(worst.chat.budgets)} of them for "
            f"answers; the model has {limit}, too few for {len(long)} of {len(turns)} chats: shorten or lower max_new_tokens"
        )


def _rows(tokenizer: PreTrainedTokenizerBase, one: Turns, answers: Sequence[Answer], logprobs: bool) -> Iterator[dict]:
    for task, answer in zip(one.chat.tasks, answers, strict=True):
        text = tokenizer.decode(answer.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        row = {"document": one.chat.document.id, "task": task, "completion": text, "finish": answer.finish}
        if logprobs:
            row["logprobs"] = list(zip(token_texts(tokenizer, answer.ids), answer.logprobs, strict=True))
        yield row


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; the bytes of a split character count with its last. Joined, they are the answer."""
    texts, read = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        whole = text if end == len(ids) else text.rstrip("\ufffd")
        texts.append(whole[len(read) :])
        read = whole if len(whole) > len(read) else read
    return texts


@dataclass
class Answer:
    """What was generated for one turn, without the end token; `logprobs` are the model's own, before any grounding."""

    ids: list[int]
    logprobs: list[float]
    finish: str = "length"


def _answer_batches(
    model: PreTrainedModel, turns: Sequence[Turns], stops: frozenset[int], batch_tokens: int, logprobs: bool
) -> Iterator[tuple[list[Turns], list[list[Answer]]]]:
    """Batches of equal tasks and near lengths, longest first; one that runs out of memory is halved, and later ones with it."""
    waiting = sorted(turns, key=lambda one: (one.chat.tasks, one.positions))
    most = len(waiting)
    while waiting:
        size = next_batch(waiting, batch_tokens, most)
        batch = waiting[-size:]
        try:
            answers = answer_batch(model, batch, stops, logprobs)
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
def answer_batch(
    model: PreTrainedModel, batch: Sequence[Turns], stops: frozenset[int], logprobs: bool = False
) -> list[list[Answer]]:
    """The answers of each chat in turn; all chats of a batch ask the same tasks."""
    training = model.training
    model.eval()
    answers: list[list[Answer]] = [[] for _ in batch]
    saved: list[SavedRow | None] = [None] * len(batch)
    turns = len(batch[0].ids)
    for turn in range(turns):
        budgets = [one.chat.budgets[turn] for one in batch]
        # A truncated answer's last token has not been read yet; the end token that closes it opens every later turn's ids.
        unread = [own[-1].ids[-1:] if own and own[-1].finish == "length" else [] for own in answers]
        texts = [(*token, *one.ids[turn]) for token, one in zip(unread, batch, strict=True)]
        rows = Rows.join(model, saved, room=max(map(len, texts)) + max(budgets))
        given, saved = _answer_turn(rows, rows.read(texts), budgets, stops, logprobs, last=turn == turns - 1)
        for own, answer in zip(answers, given, strict=True):
            own.append(answer)
    model.train(training)
    return answers


def _answer_turn(
    rows: Rows, logits: torch.Tensor, budgets: Sequence[int], stops: frozenset[int], logprobs: bool, *, last: bool
) -> tuple[list[Answer], list[SavedRow | None]]:
    """Every row's answer to one turn, and what each needs for the next one.

    Rows that are done leave together once they are a quarter: taking rows out copies the cache of those that stay.
    """
    answers = [Answer([], []) for _ in budgets]
    saved: list[SavedRow | None] = [None] * len(budgets)
    here = list(range(len(budgets)))  # which chat each row of `rows` belongs to
    going = [True] * len(here)
    while True:
        tokens = logits.argmax(-1)
        chances = _chances(logits, tokens) if logprobs else [0.0] * len(here)
        tokens = tokens.tolist()
        for row, chat in enumerate(here):
            if going[row]:
                going[row] = _take(answers[chat], tokens[row], chances[row], budgets[chat], stops)
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


def _chances(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    """The log-probability of each row's token."""
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0].tolist()


def _take(answer: Answer, token: int, chance: float, budget: int, stops: frozenset[int]) -> bool:
    """Adds a token to an answer. Returns whether the answer goes on; if it does not, the cache lacks this token."""
    if token in stops:
        answer.finish = "stop"
        return False
    answer.ids.append(token)
    answer.logprobs.append(chance)
    return len(answer.ids) < budget
