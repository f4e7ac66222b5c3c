"""The transformers engine: any causal model that transformers, PEFT, bitsandbytes or Unsloth has loaded.

`model.generate` keeps no cache across turns and lets no row go, so it is called only where nothing else can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.prompts import Layout
from data.schema import Document
from eval.chat_template import read_template
from eval.chats import Chat, Engine, read_chat, refuse_too_long
from eval.completions import write_completions
from eval.engines.decode_loop import ChatState, Decoding, Scheduler, decode_text, run_chats
from eval.engines.pickled import refuse_pickled
from eval.engines.unsloth_generate import Calls, is_patched
from eval.grounding.answer import grounding
from eval.grounding.repeats import drop_repeats
from eval.grounding.states import read_vocabulary


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

    refuse_pickled(model)
    loader = AutoPeftModelForCausalLM if (Path(model) / "adapter_config.json").is_file() else AutoModelForCausalLM
    return transformers_engine(
        loader.from_pretrained(model, dtype=dtype, use_safetensors=True).to(device),
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
        template = read_template(tokenizer)
        requests = [read_chat(template, chat) for chat in chats]
        positions = model.config.max_position_embeddings
        refuse_too_long(requests, min(positions, getattr(model, "max_seq_length", positions)))  # Unsloth cuts at the latter
        ground = grounding(read_vocabulary(tokenizer, template.end), listed_sides) if grounded else None
        decoding = Decoding(model, tokenizer, stop_ids(model, tokenizer, template.end), batch_tokens, ground, logprobs)
        told: Counter[int] = Counter()  # answers by chat; one that starts again for lack of memory gives them again
        for states in run_chats(decoding, requests, Calls if is_patched(model) else Scheduler):
            rows = []
            for state in states:
                new = list(_rows(decoding, state, told[id(state.chat)]))
                told[id(state.chat)] += len(new)
                rows += new
            yield rows

    return answer


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: int) -> frozenset[int]:
    """The template's end token `end`, and those that the model's generation config names; never padding."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = [configured] if isinstance(configured, int) else configured or []
    return frozenset({*configured} - {tokenizer.pad_token_id} | {end})


def _rows(decoding: Decoding, state: ChatState, told: int) -> Iterator[dict]:
    """A row for each answer that has ended, but the first `told`."""
    chat, ended = state.chat.chat, len(state.answers) - state.going
    for task, answer in zip(chat.tasks[told:ended], state.answers[told:ended], strict=True):
        text = decode_text(decoding.tokenizer, answer.ids)
        row = {"document": chat.document.id, "task": task, "completion": text, "finish": answer.finish}
        if decoding.logprobs:
            texts = token_texts(decoding.tokenizer, answer.ids)
            row["logprobs"] = [list(pair) for pair in zip(texts, answer.logprobs, strict=True)]  # as JSON gives them back
        yield drop_repeats(row, task) if decoding.ground else row


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; the bytes of a split character count with its last. Joined, they are the answer."""
    texts, read = [], ""
    for end in range(1, len(ids) + 1):
        text = decode_text(tokenizer, ids[:end])
        whole = text if end == len(ids) else text.rstrip("\ufffd")
        texts.append(whole[len(read) :])
        read = whole if len(whole) > len(read) else read
    return texts


def ask_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    path: Path,
    *,
    layout: Layout,
    tasks: Sequence[str] | None = None,
    max_new_tokens: int | Mapping[str, int],
    batch_tokens: int,
    grounded: bool = False,
    listed_sides: bool = False,
    logprobs: bool = False,
    progress: bool | None = None,
) -> Path:
    """Answers by a loaded transformers model, greedily.

    `tasks`: those asked of every document; None asks each document's own. `max_new_tokens` includes the end token.
    `batch_tokens`: rows times the positions that a row may need (prompts and answers); a batch that runs out of memory is
    halved. `grounded` keeps every item to the article's own words, and with `listed_sides` relations to the names just
    listed. `logprobs` adds [text, log-probability] of each token.
    `progress`: False hides it.
    """
    from eval.engines.huggingface import transformers_engine

    engine = transformers_engine(
        model, tokenizer, batch_tokens=batch_tokens, grounded=grounded, listed_sides=listed_sides, logprobs=logprobs
    )
    return write_completions(
        engine, documents, path, layout=layout, tasks=tasks, max_new_tokens=max_new_tokens, progress=progress
    )
