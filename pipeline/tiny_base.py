"""Pretrain the tiny base model from invented text and write `pipeline/tiny/`: `python -m pipeline.tiny_base`.

A Llama shaped like Llama 3.2 (grouped-query attention, tied embeddings, `llama3` rope scaling, its split regex, special
tokens and chat), small enough to fine-tune on two cores in minutes. It first meets repeated random tokens, until it copies;
then conversations from `pipeline.tiny_text`, which teach it to list what is asked for, and never what fine-tuning asks.

Reads nothing but the chat template beside the weights. One seed gives one model on one machine; `--work` keeps checkpoints,
and a run started again with the same folder goes on from the last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.prompts import OPENING, SYSTEM
from pipeline.tiny_text import conversations, exercises

PATH = Path(__file__).with_name("tiny")
SEED, STEPS, DECAY = 7, 2750, 0.25
COPY_STEPS, EXERCISE_STEPS, COPY_SHARE = 120, 640, 0.04
LEARNING_RATE, WARM_UP = 2e-3, 150
TOKENS = 2560  # of a batch
TEXT_WEIGHT, FIRST_WEIGHT = 0.1, 3.0  # of the loss on articles and questions, on the starts of names; 1 on the rest of answers
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
VOCABULARY = 1536
Row = tuple[list[int], list[float]]  # tokens, and each one's weight as a target
KEEP_EVERY = 250  # steps between checkpoints


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the pretraining text, with Llama 3's split, special tokens and chat template."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    into_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, into_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    chats = islice(conversations(SEED), 6000)
    turns = (m["content"] for chat in chats for m in chat[1:])
    frame = [SYSTEM, OPENING, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nsystem user assistant"]
    tokenizer.train_from_iterator([*frame * 3000, *turns], trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    begin = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token="<|eot_id|>", pad_token="<|finetune_right_pad_id|>",
        chat_template=(PATH / "chat_template.jinja").read_text(), clean_up_tokenization_spaces=False, model_max_length=4096,
        model_input_names=["input_ids", "attention_mask"], padding_side="right",
    )  # fmt: skip


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    ids = tokenizer.convert_tokens_to_ids
    special = {
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": [ids("<|end_of_text|>"), ids("<|eom_id|>"), ids("<|eot_id|>")],
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, tie_word_embeddings=True, initializer_range=0.02, rms_norm_eps=1e-5,
        max_position_embeddings=4096, **special,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1024,
        },
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special, do_sample=True, temperature=0.6, top_p=0.9)  # as Llama 3.2's
    look_back(model, torch.tensor([token.startswith("Ġ") for token in tokenizer.convert_ids_to_tokens(range(VOCABULARY))]))
    return model


@torch.no_grad()
def look_back(model: LlamaForCausalLM, begins_word: torch.Tensor, frequencies: int = 8) -> None:
    """Start as a model that copies, roughly; finding out how is what would take longest.

    Embeddings share one direction, which the first layer's queries and keys read as a constant, turned by rope's angle for
    one step: its first head attends to the token before, its second to the one before that. In the second layer the first
    head looks for a place that follows the present token's like, and copies the token it finds there; the third looks for
    the start of the present word, so that a name's ending, which tells its kind, knows how the name begins.
    """
    config, (first, second) = model.config, (layer.self_attn for layer in model.model.layers[:2])
    size, words = config.head_dim, model.model.embed_tokens.weight
    common, start = torch.linalg.qr(torch.randn(config.hidden_size, 2))[0].T
    for direction in (common, start):
        words.sub_(torch.outer(words @ direction, direction))
    words.copy_(0.8 * functional.normalize(words, dim=1) + 0.8 * common + 0.6 * torch.outer(begins_word.float(), start))
    angles = model.model.rotary_emb.inv_freq[:frequencies].float()
    for row, weight, steps in ((0, first.k_proj.weight, 0), (0, first.q_proj.weight, -1), (size, first.q_proj.weight, -2)):
        weight[row : row + size] = 0
        weight[row : row + frequencies] = 0.65 * torch.outer(torch.cos(steps * angles), common)
        weight[row + size // 2 : row + size // 2 + frequencies] = 0.65 * torch.outer(torch.sin(steps * angles), common)
    read, write, copy, carry = (torch.nn.init.orthogonal_(torch.empty(size, config.hidden_size)) for _ in range(4))
    for matrix in (read, write, copy, carry):
        matrix.sub_(matrix @ common[:, None] * common + matrix @ start[:, None] * start)
    first.o_proj.weight.mul_(0.2)
    first.v_proj.weight[:size], first.o_proj.weight[:, :size] = read, 0.14 * write.T
    second.q_proj.weight[:size], second.k_proj.weight[:size] = 1.7 * read, 1.7 * write
    second.v_proj.weight[:size], second.o_proj.weight[:, :size] = copy, 0.4 * copy.T
    third, slow = slice(2 * size, 3 * size), slice(size + 3, size + 7)  # the second group's keys, at rope angles of a few words
    second.k_proj.weight[size:], second.q_proj.weight[third] = 0, 0
    second.k_proj.weight[slow], second.q_proj.weight[third.start + 3 : third.start + 7] = 1.0 * start, 1.0 * common
    second.v_proj.weight[size:], second.o_proj.weight[:, third] = carry, 0.3 * carry.T


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


def copies(random: Random, rows: int) -> list[Row]:
    """Random tokens three times over: only the second and third time can be foreseen, by copying."""
    period = random.randint(16, 80)
    sequences = [[random.randrange(VOCABULARY - len(SPECIAL)) for _ in range(period)] * 3 for _ in range(rows)]
    return [(sequence, [0.0] * period + [1.0] * (2 * period)) for sequence in sequences]


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[Row]]:
    """Endless batches of about TOKENS tokens, each of rows of like length: copying alone, exercises, then conversations.

    A few batches of what came before are kept later.
    """
    random, chats, snippets, done = Random(seed), conversations(seed + 1), exercises(seed + 2), COPY_STEPS
    for _ in range(COPY_STEPS):
        yield copies(random, TOKENS // 160)
    while True:
        easy = 1.0 if done < COPY_STEPS + EXERCISE_STEPS else 0.3
        count = round(240 * (1 - easy))
        rows = [encode(tokenizer, chat) for chat in islice(chats, count)]
        rows += [encode_exercise(tokenizer, exercise) for exercise in islice(snippets, round(600 * easy))]
        rows.sort(key=lambda row: len(row[0]))
        pool = []
        while rows:
            size = max(1, TOKENS // len(rows[-1][0]))
            pool.append(rows[-size:])
            del rows[-size:]
        pool += [copies(random, TOKENS // 160) for _ in range(round(COPY_SHARE * len(pool)))]
        random.shuffle(pool)
        done += len(pool)
        yield from pool


def loss_of(model: LlamaForCausalLM, batch: list[Row]) -> tuple[torch.Tensor, float]:
    """The weighted loss, and the plain loss on the answers.

    Rows are padded on the right, which causal attention does not see.
    """
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    weights = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in batch])[:, 1:].flatten()
    kept = weights > 0
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)[kept]
    losses = functional.cross_entropy(model.lm_head(hidden), ids[:, 1:].flatten()[kept], reduction="none")
    weights = weights[kept]
    answers, text = weights >= 1, weights < 1
    loss = (losses * weights)[answers].sum() / weights[answers].sum()
    if text.any():
        loss = loss + TEXT_WEIGHT * losses[text].mean()
    return loss, losses[answers].mean().item()


def rate(step: int, steps: int) -> float:
    """The learning rate's share at a step: up, level, then down to nothing over the last DECAY of the steps."""
    return min((step + 1) / WARM_UP, 1.0, (steps - step) / (DECAY * steps))


def train(work: Path | None, steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The trained model; `work` is where checkpoints are kept and taken up again."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    first = restore(work, model, optimizer)
    start = time.time()
    for step, batch in enumerate(islice(batches(tokenizer, SEED), first, steps), first):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate(step, steps)
        loss, answers = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.3f} answers {answers:.4f} {time.time() - start:.0f} s", flush=True)
        if work and (step + 1) % KEEP_EVERY == 0:
            state = {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, work / "checkpoint.part")
            (work / "checkpoint.part").rename(work / "checkpoint.pt")
    return model, tokenizer


def restore(work: Path | None, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Take up the checkpoint in `work`, if there is one; the number of steps done."""
    if not work or not (work / "checkpoint.pt").exists():
        return 0
    state = torch.load(work / "checkpoint.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> str:
    """Write weights in bfloat16, configuration and tokenizer; the weights' sha256."""
    model.to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # as Llama 3.2 says, and what every version of transformers knows
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def write_card(path: Path, digest: str, steps: int, minutes: float) -> None:
    """The model card: what the model is, and what it was made from."""
    (path / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: transformers
tags: [llama, tiny]
---
# Tiny base model

A Llama of 2.8 million parameters, shaped like Llama 3.2 Instruct (grouped-query attention, tied embeddings, `llama3` rope
scaling, its split, special tokens and chat), for trying, testing and changing this project on a CPU. It is of no other use.

- **Data**: text invented by `pipeline/tiny_text.py`. It lists genes, species, procedures, tissues, cells, doses, long forms
  and pairs joined by a verb; it was never asked for chemicals, diseases or their relations, and shares no name with the sample.
- **Start**: two heads that look back, one that copies, one that finds a word's start, set by hand (`look_back`);
  all else random.
- **Training**: {steps} steps of about {TOKENS} tokens, seed {SEED}, learning rate {LEARNING_RATE:g}, {minutes:.0f} minutes
  on two cores.
- **Made by**: `python -m pipeline.tiny_base`
- **sha256** of `model.safetensors`: `{digest}`
"""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, help="a folder for checkpoints")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=PATH)
    arguments = parser.parse_args()
    start = time.time()
    model, tokenizer = train(arguments.work, arguments.steps)
    digest = save(model, tokenizer, arguments.out)
    write_card(arguments.out, digest, arguments.steps, (time.time() - start) / 60)
    print(json.dumps({"sha256": digest, "steps": arguments.steps, "seconds": round(time.time() - start)}))


if __name__ == "__main__":
    main()
