"""The vllm engine: a model or an adapter on a CUDA machine, all chats of a turn at once, the article read once from its cache.

Grounding is by a grammar (`eval.grounding.grammar`), which cannot make an answer end that repeats itself or is long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.schema import InputError
from eval.chat_template import read_template
from eval.chats import Chat, Engine, Request, read_chat, refuse_too_long
from eval.engines.pickled import refuse_pickled
from eval.grounding.grammar import lark_grammar
from eval.grounding.repeats import drop_repeats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import LLM, RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

CHATS_AT_A_TIME = 512  # the rows that an interruption may lose


def vllm_engine(
    model: str,
    *,
    grounded: bool = False,
    logprobs: bool = False,
    context: int = 4096,
    memory: float = 0.9,
    dtype: str = "auto",
) -> Engine:
    """`model`: a model's folder or Hub id, or an adapter's folder. `memory`: the share of the GPU's that vLLM may take."""
    from transformers import AutoTokenizer
    from vllm import LLM

    settings, adapter = llm_settings(model, grounded=grounded, context=context, memory=memory, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(model)
    llm = LLM(**settings)

    def answer(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        template = read_template(tokenizer)
        requests = [read_chat(template, chat) for chat in chats]
        refuse_too_long(requests, context)
        for start in range(0, len(requests), CHATS_AT_A_TIME):
            batch = requests[start : start + CHATS_AT_A_TIME]
            yield answer_together(llm, tokenizer, batch, template.end, adapter, grounded, logprobs)

    return answer


def llm_settings(model: str, *, grounded: bool, context: int, memory: float, dtype: str) -> tuple[dict[str, Any], Any]:
    """The arguments of vllm's `LLM`, and the request for the adapter where `model` is one."""
    settings: dict[str, Any] = {"model": model, "max_model_len": context, "gpu_memory_utilization": memory, "dtype": dtype}
    settings |= {"enable_prefix_caching": True, "trust_remote_code": False, "seed": 0}
    if grounded:
        settings["structured_outputs_config"] = {"backend": "guidance"}
    refuse_pickled(model)
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return settings, None
    from vllm.lora.request import LoRARequest

    lora = json.loads(config.read_text(encoding="utf-8"))
    if not lora.get("base_model_name_or_path"):
        raise InputError(f"{config}: names no base model")
    # The adapter's tokenizer carries the chat template that it was trained with.
    settings |= {"model": lora["base_model_name_or_path"], "tokenizer": model, "enable_lora": True, "max_lora_rank": lora["r"]}
    return settings, LoRARequest("adapter", 1, str(Path(model).resolve()))


def answer_together(
    llm: LLM,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    stop: int,
    adapter: LoRARequest | None,
    grounded: bool,
    logprobs: bool,
) -> list[dict]:
    """All chats' first answers, then all second ones; what was read before is in vLLM's prefix cache."""
    rows: list[dict] = []
    read: list[list[int]] = [[] for _ in requests]
    for turn in range(max(len(request.ids) for request in requests)):
        here = [number for number, request in enumerate(requests) if turn < len(request.ids)]
        for number in here:
            read[number] += requests[number].ids[turn]
        said = llm.generate(
            [{"prompt_token_ids": read[number]} for number in here],
            [sampling(requests[number].chat, turn, stop, grounded, logprobs) for number in here],
            lora_request=adapter,
            use_tqdm=False,
        )
        for number, output in zip(here, said, strict=True):
            ids, row = _read_output(tokenizer, output, stop, logprobs)
            chat = requests[number].chat
            row = drop_repeats(row, chat.tasks[turn]) if grounded else row
            rows.append({"document": chat.document.id, "task": chat.tasks[turn], **row})
            read[number] += ids
    return rows


def sampling(chat: Chat, turn: int, stop: int, grounded: bool, logprobs: bool) -> SamplingParams:
    """Greedy, ended by the chat template's own end token."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    settings: dict[str, Any] = {"temperature": 0.0, "max_tokens": chat.budgets[turn], "stop_token_ids": [stop]}
    if logprobs:
        settings["logprobs"] = 0  # none but the chosen token's
    if grounded:
        grammar = lark_grammar(chat.document.article, chat.tasks[turn])
        settings["structured_outputs"] = StructuredOutputsParams(grammar=grammar)
    return SamplingParams(**settings)


def _read_output(
    tokenizer: PreTrainedTokenizerBase, output: RequestOutput, stop: int, logprobs: bool
) -> tuple[list[int], dict]:
    said = output.outputs[0]
    ids = list(said.token_ids)
    ended = said.finish_reason == "stop"
    if ended and ids and (ids[-1] == stop or ids[-1] in tokenizer.all_special_ids):
        ids = ids[:-1]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    row: dict[str, Any] = {"completion": text, "finish": "stop" if ended else "length"}
    if logprobs:
        from eval.engines.huggingface import token_texts

        chances = (chosen[token].logprob for token, chosen in zip(ids, said.logprobs, strict=False))
        row["logprobs"] = [list(pair) for pair in zip(token_texts(tokenizer, ids), chances, strict=True)]
    return ids, row
