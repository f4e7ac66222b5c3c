"""The tiny base model before training: a tokenizer of Llama 3's kind, a Llama shaped like Llama 3.2 that starts by copying."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.prompts import OPENING, SYSTEM
from data.sample.build import write_article
from data.sample.names import ONSETS, RHYMES, Source
from pipeline.export.gguf_tokenizer import LLAMA_3_SPLIT
from tools.tiny_base.text import conversations

PATH = Path(__file__).parents[2] / "pipeline" / "tiny"
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
VOCABULARY = 2560


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the pretraining text, with Llama 3's split, special tokens and chat template."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated")
    into_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, into_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(spelling_text(seed), trainer)
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


def spelling_text(seed: int) -> Iterator[str]:
    """What the tokenizer learns spelling from: syllables first, then the chat's frame and both sorts of invented articles."""
    yield from [onset + rhyme for onset in ONSETS for rhyme in RHYMES] * 20000
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    yield from [SYSTEM, OPENING, dates + "system user assistant"] * 2000
    yield from (message["content"] for chat in islice(conversations(seed), 4000) for message in chat[1:])
    source = Source(Random(seed), "pretraining", set())
    yield from (write_article(source)[0].text for _ in range(4000))


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
