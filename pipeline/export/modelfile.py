"""How servers are told to ask as training asked: Ollama's Modelfile, and the llama-server command.

Reads a chat template, writes the Modelfile beside the GGUF file, and beside it the files `template`, `system` and `params`,
which `ollama run hf.co/USER/NAME` reads from a Hub repository.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.files import write_text
from data.schema import InputError

# Ollama's own defaults sample and punish repetition; a list of names repeats words.
MOST_CONTEXT = 8192  # keys and values of 131,072 positions would take a 3B model 15 GB
GREEDY = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "seed": 0}
SYSTEM, USER, ANSWER, AGAIN = "<system>", "<user>", "<answer>", "<again>"  # stand for the messages' texts


def write_modelfile(
    gguf: Path,
    out: Path,
    *,
    system: str,
    chat_template: str,
    bos: str,
    stop: Sequence[str],
    context: int,
    answer_tokens: int,
) -> Path:
    """Write `out` and, beside it, template, system and params. `context` and `answer_tokens` count tokens.

    Raises InputError for a chat template whose turns Ollama's cannot write alike.
    """
    template = go_template(chat_template, bos)
    settings = {**GREEDY, "num_ctx": context, "num_predict": answer_tokens}
    write_text(out.with_name("template"), template)
    write_text(out.with_name("system"), system)
    write_text(out.with_name("params"), json.dumps({**settings, "stop": list(stop)}, indent=2) + "\n")
    made_from = ["# ollama create medner -f Modelfile", f"FROM ./{gguf.name}"]
    return write_text(out, render_modelfile(made_from, template, system, settings, stop))


def render_modelfile(
    made_from: Sequence[str], template: str, system: str, settings: Mapping[str, object], stop: Sequence[str]
) -> str:
    """A Modelfile's text; `made_from`: its first lines, which say what it is made from."""
    lines = [
        *made_from,
        f'TEMPLATE """{template}"""',
        f'SYSTEM """{system}"""',
        *(f"PARAMETER {name} {value}" for name, value in settings.items()),
        *(f"PARAMETER stop {json.dumps(token)}" for token in stop),
    ]
    return "\n".join(lines) + "\n"


def go_template(chat_template: str, bos: str) -> str:
    """Ollama's template that renders to the text of `chat_template`, without its BOS, which Ollama adds as a token.

    The chat template is rendered once with marks where the messages' texts go, and what stands between them is kept.
    """
    turns = [("system", SYSTEM), ("user", USER), ("assistant", ANSWER), ("user", AGAIN)]
    text = render_chat(chat_template, [{"role": role, "content": mark} for role, mark in turns], bos).removeprefix(bos)
    parts = []
    for _, mark in turns:
        part, found, text = text.partition(mark)
        if not found:
            raise InputError("The chat template leaves out a message or changes their order: no Modelfile can say that.")
        parts.append(part)
    head, before_user, before_answer, before_next = parts
    if before_user != before_next or before_answer != text or "{{" in "".join([*parts, text]):
        raise InputError("The chat template treats a conversation's first turn unlike later ones: no Modelfile can say that.")
    user = f'{{{{ if eq .Role "user" }}}}{before_user}{{{{ .Content }}}}'
    answer = f'{{{{ else if eq .Role "assistant" }}}}{before_answer}{{{{ .Content }}}}'
    return f"{head}{{{{ .System }}}}{{{{ range .Messages }}}}{user}{answer}{{{{ end }}}}{{{{ end }}}}{text}"


def render_chat(chat_template: str, messages: Sequence[dict[str, str]], bos: str) -> str:
    """The prompt's text as transformers renders it, up to where the answer begins."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(chat_template).render(messages=list(messages), bos_token=bos, add_generation_prompt=True)


def served_context(model: Path, least: int = 0) -> int:
    """The positions that servers are told to keep: the model's, up to 8,192 or `least`, what the run itself needs."""
    positions = json.loads((model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    return min(positions, max(MOST_CONTEXT, least))


def server_command(gguf: str | Path, context: int, answer_tokens: int) -> str:
    """The llama-server command that answers as the run's own evaluation did; the system prompt comes with each request."""
    settings = ["--temp", "0", "--top-k", "1", "--repeat-penalty", "1.0", "--seed", "0"]
    command = ["llama-server", "--model", str(gguf), "--jinja", "--ctx-size", str(context), "--predict", str(answer_tokens)]
    return shlex.join([*command, *settings])
