"""The model card's unchanging parts: how to use what is published, its limits, its licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from data.prompts import SYSTEM, render_prompt
from pipeline.export.modelfile import server_command

LIMITS = """\
- English abstracts of biomedical articles. Full texts, clinical notes and other languages were neither trained on nor measured.
- It lists names as the article writes them: no identifiers, no offsets, no negation, no certainty.
- A listed pair says that the article links the two, as its annotators understood it; not that the drug causes the disease.
- Relations are found far less reliably than names: see the table.
- Text inside an article that looks like an instruction may be followed. Treat what it lists as data from an untrusted source.
- It must be asked as it was trained: the system prompt, the question's wording and the chat template, date included."""


def render_use(name: str, repo: str | None, base: str, adapter: Mapping, ggufs: Sequence[str]) -> str:
    """Commands and code for transformers, Ollama, llama.cpp and vLLM; those for GGUF files only where there are some."""
    where = repo or "path/to/adapter"
    asked = [
        {"role": "system", "content": adapter.get("system_prompt", SYSTEM)},
        {"role": "user", "content": render_prompt("ARTICLE", "chemicals")},
    ]
    tokens = max((adapter.get("max_new_tokens") or {"": 256}).values())
    parts = [_transformers(where, base, asked, tokens), _vllm(where, base)]
    if ggufs:
        parts += [_ollama(repo, ggufs), _llama_cpp(repo, ggufs, asked, tokens)]
    if adapter.get("layout") == "conversation":
        parts.append(
            "It was trained to read the article once and answer three questions in turn: chemicals, diseases, influences. "
            "Ask in that order within one conversation, each later question without the article."
        )
    return "\n\n".join(parts)


def _transformers(where: str, base: str, asked: Sequence[Mapping], tokens: int) -> str:
    return f"""**transformers and PEFT** (`{{article}}` stands for the title, a line break and the abstract):

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

article = "Naloxone reverses the antihypertensive effect of clonidine\\n..."
tokenizer = AutoTokenizer.from_pretrained("{where}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}", dtype="auto"), "{where}")
messages = [
    {json.dumps(asked[0])},
    {{"role": "user", "content": {json.dumps(asked[1]["content"])}.replace("ARTICLE", article)}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""


def _vllm(where: str, base: str) -> str:
    command = f"vllm serve {base} --enable-lora --lora-modules medner={where} --max-lora-rank 64"
    return f"**vLLM** (ask the model `medner` with temperature 0):\n\n```sh\n{command}\n```"


def _ollama(repo: str | None, ggufs: Sequence[str]) -> str:
    lines = [f"ollama run hf.co/{repo}:{ggufs[-1].split('.')[-2].upper()}", "# or, from the downloaded files:"] if repo else []
    return "**Ollama**:\n\n```sh\n" + "\n".join([*lines, "ollama create medner -f Modelfile && ollama run medner"]) + "\n```"


def _llama_cpp(repo: str | None, ggufs: Sequence[str], asked: Sequence[Mapping], tokens: int) -> str:
    download = [f"hf download {repo} {ggufs[-1]} --local-dir ."] if repo else []
    body = json.dumps({"messages": asked, "temperature": 0})
    ask = f"curl http://localhost:8080/v1/chat/completions -d @- <<'END'\n{body}\nEND"
    lines = [*download, server_command(ggufs[-1], 4096, tokens), ask]
    return "**llama.cpp** (put the article where ARTICLE stands):\n\n```sh\n" + "\n".join(lines) + "\n```"


def render_licence(base: str) -> str:
    """What the base's licence asks of whoever passes the model on."""
    data = "The training data have terms of their own."
    if "llama" not in base.lower():
        return f"The licence of the base, `{base}`, applies to the merged and GGUF files. {data}"
    version = "3.2" if "3.2" in base else "3"
    policy = f"https://www.llama.com/llama{version.replace('.', '_')}/use-policy"
    return (
        f"Built with Llama. Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta "
        "Platforms, Inc. All Rights Reserved. Whoever passes this model on, or one made from it, passes that licence and this "
        'notice on with it, shows "Built with Llama", begins the model\'s name with "Llama", and follows the Acceptable Use '
        f"Policy ({policy}). {data}"
    )
