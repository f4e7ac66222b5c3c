"""A random Llama with every trait that hides faults of training, decoding and export, made in a second: the tests' only one.

Grouped-query attention, tied embeddings, Llama 3's rotary scaling, byte-level BPE with Llama 3's split, rows that K-quants'
blocks of 256 divide, an adapter on all seven projections, and a chat template with a literal date.
"""

from __future__ import annotations

import functools
import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data.prompts import REQUEST, SYSTEM
from pipeline.export.gguf_tokenizer import LLAMA_3_SPLIT

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
]
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
TEMPLATE = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: 26 Jul 2024\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
SYLLABLES = "ben zo di az ep ine chlor meth yl ami ox phen ol nal car bam lith ium neph ro path hyper tens ion hepat itis α- 5-"


def train_tokenizer(vocabulary: int, words: int, seed: int = 0) -> Tokenizer:
    """Byte-level BPE with Llama 3's split and specials, trained on made-up chemical names; at most `vocabulary` tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated", invert=False)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    chance = random.Random(seed)
    names = ("".join(chance.choices(SYLLABLES.split(), k=chance.randint(2, 7))) for _ in range(words))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator([SYSTEM, *REQUEST.values(), *(f" {name}" for name in names)], trainer)
    tokenizer.add_special_tokens(SPECIAL)  # after the ordinary ones, as in Llama 3
    return tokenizer


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """640 tokens with Llama 3's markers and template. Shared by all who ask: copy it before you change it."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(640, 400),
        bos_token=SPECIAL[0],
        eos_token="<|eot_id|>",
        pad_token=SPECIAL[2],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_model(
    *, width: int = 64, layers: int = 2, tied: bool = True, dtype: str = "float32", positions: int = 3072, spread: float = 1.0,
    seed: int = 0,
) -> LlamaForCausalLM:  # fmt: skip
    """Random weights: 4 heads over 2, weights and norms far from their usual start so that faults show.

    `spread`: over 2, what it says depends on all that it reads; at 1, it mostly says its last token again.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        rms_norm_eps=1e-5,
        initializer_range=spread / math.sqrt(width),
        rope_parameters=ROPE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def save_base(folder: Path, *, width: int = 256, positions: int = 2048, shard_size: str = "5GB", **changes: Any) -> Path:
    """`tiny_model` as a whole model folder; rows of 256, which K-quants need, unless told otherwise."""
    tiny_tokenizer().save_pretrained(folder)
    tiny_model(width=width, positions=positions, **changes).save_pretrained(folder, max_shard_size=shard_size)
    return folder


def save_adapter(base: Path, folder: Path, seed: int = 1, strength: float = 0.02) -> Path:
    """A LoRA on all seven projections whose B is not zero, with the tokenizer beside it, as training saves them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=16, lora_alpha=32, target_modules=modules, bias="none", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=strength)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((base / name).read_bytes())
    settings = {"layout": "separate", "system_prompt": SYSTEM, "date": "26 Jul 2024", "base_model": str(base)}
    (folder / "medner.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
