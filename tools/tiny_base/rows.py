"""The rows that the tiny base model is trained on, in batches: names to copy, exercises, articles, conversations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

from transformers import PreTrainedTokenizerFast

from data.sample.names import ONSETS, RHYMES
from tools.tiny_base.text import conversations, exercises, readings

COPY_STEPS = 100
# Until which step: how many exercises, readings and conversations there are in a pool, and how many batches of copying to one
# of them.
MIXES = ((550, (600, 0, 0), 0.15), (1100, (150, 150, 40), 0.15), (10**9, (40, 80, 140), 0.1))
TOKENS = 3072  # of a batch
TEXT_WEIGHT, FIRST_WEIGHT = 0.1, 3.0  # of the loss on articles and questions, on the starts of names; 1 on the rest of answers
Row = tuple[list[int], list[float]]  # tokens, and each one's weight as a target


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> Row:
    """A conversation's tokens, and the weight of each as a target."""
    return encode_text(tokenizer, tokenizer.apply_chat_template(messages, tokenize=False))


def encode_exercise(tokenizer: PreTrainedTokenizerFast, exercise: list[tuple[str, str]]) -> Row:
    """The same of an exercise: turns as in a conversation, without the system's."""
    user, assistant = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    turns = "".join(f"{user}{question}<|eot_id|>{assistant}{answer}<|eot_id|>" for question, answer in exercise)
    return encode_text(tokenizer, tokenizer.bos_token + turns)


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> Row:
    """Weights are 1 in the assistant's answers, more where a name begins there (the choice is what is hard), less elsewhere."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    head = tokenizer("<|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)["input_ids"]
    before_name = set(tokenizer.convert_tokens_to_ids(["-", "Ġ|"]))
    weights, answering = [], False
    for index, token in enumerate(ids):
        begins = index and ids[index - 1] in before_name
        weights.append((FIRST_WEIGHT if begins else 1.0) if answering else TEXT_WEIGHT)
        if token == tokenizer.eos_token_id:
            answering = False
        elif ids[index + 1 - len(head) : index + 1] == head:
            answering = True
    return ids, weights


def copies(random: Random, tokenizer: PreTrainedTokenizerFast, rows: int) -> list[Row]:
    """Words and names without a meaning, then the same names in another order, each after a dash: once a name has begun, the
    rest of it can only be foreseen by copying."""
    ids = tokenizer.convert_tokens_to_ids
    syllables, dash = ids([onset + rhyme for onset in ONSETS for rhyme in RHYMES]), ids("-")
    words = [id for token, id in sorted(tokenizer.get_vocab().items()) if token.startswith("Ġ") and len(token) > 2]
    count, made = random.randint(4, 24), []
    for _ in range(rows):
        names = [[random.choice(words), *random.choices(syllables, k=random.randint(1, 4))] for _ in range(count)]
        tokens = [token for name in names for token in (*random.choices(words, k=random.randint(1, 4)), *name)]
        weights = [0.0] * len(tokens)
        for name in random.sample(names, count):
            tokens += [dash, *name]
            weights += [0.0, 0.0, *[1.0] * (len(name) - 1)]
        made.append((tokens, weights))
    return made


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[Row]]:
    """Endless batches of about TOKENS tokens, each of rows of like length: copying alone, then pools mixed as MIXES says."""
    random, done = Random(seed), COPY_STEPS
    chats, snippets, articles = conversations(seed + 1), exercises(seed + 2), readings(seed + 3)
    for _ in range(COPY_STEPS):
        yield copies(random, tokenizer, TOKENS // 160)
    while True:
        counts, copying = next((counts, copying) for until, counts, copying in MIXES if done < until)
        rows = [encode(tokenizer, chat) for chat in islice(chats, counts[2])]
        rows += [encode_exercise(tokenizer, exercise) for exercise in islice(snippets, counts[0])]
        rows += [encode_exercise(tokenizer, reading) for reading in islice(articles, counts[1])]
        rows.sort(key=lambda row: len(row[0]))
        pool = []
        while rows:
            size = max(1, TOKENS // len(rows[-1][0]))
            pool.append(rows[-size:])
            del rows[-size:]
        pool += [copies(random, tokenizer, TOKENS // 160) for _ in range(round(copying * len(pool)))]
        random.shuffle(pool)
        done += len(pool)
        yield from pool
