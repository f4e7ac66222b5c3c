"""export/lora/: the adapter alone, some megabytes, with what llama.cpp and Ollama need to lay it over its base.

    NAME.lora.gguf           the adapter as GGUF             Modelfile               FROM the base, ADAPTER that file
    safetensors/             the adapter as PEFT saved it    Modelfile.safetensors   FROM the base, ADAPTER that folder
    README.md                the commands                    chat_template.jinja     for llama-server

The base's own GGUF file is made for the check alone, and kept only where Ollama's library is not known to have that base.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from data.files import write_text
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.gguf_lora import convert_adapter
from pipeline.export.gguf_tokenizer import read_chat_template
from pipeline.export.merge import read_adapter_settings
from pipeline.export.modelfile import GREEDY, go_template, render_modelfile, server_command
from pipeline.export.names import ollama_name, published_base
from pipeline.model import load_tokenizer
from pipeline.run_folder import RunFolder
from pipeline.weights import ADAPTER

BASE = "base.f16.gguf"
Alone = tuple[Path, Path]  # the adapter's GGUF file, its base's


def export_adapter(run: RunFolder, base: Path, context: int, metadata: dict[str, str]) -> Alone:
    """Write export/lora/; what is there already is kept. `base`: the folder of the 16-bit base; `context`: positions served."""
    adapter, folder = run.path / "adapter", run.path / "export" / "lora"
    lora, base_file = folder / f"{metadata['general.name']}.lora.gguf", folder / BASE
    folder.mkdir(parents=True, exist_ok=True)
    if not lora.exists():
        convert_adapter(base, adapter, lora, metadata)
    if not base_file.exists():
        origin = {key: value for key, value in metadata.items() if key.startswith("general.base_model.0")}
        convert_to_gguf(base, base_file, "f16", {"general.name": origin["general.base_model.0.name"]}, tokenizer=adapter)
    write_text(folder / "chat_template.jinja", read_chat_template(adapter))
    write_modelfiles(run, lora, context)
    return lora, base_file


def base_name(run: RunFolder) -> str | None:
    """What Ollama calls the run's base."""
    facts = json.loads((run.path / "adapter" / "medner.json").read_text(encoding="utf-8"))
    return ollama_name(published_base(facts))


def forget_base(run: RunFolder, alone: Alone) -> None:
    """The base's file goes once it was compared, where everybody can have it from Ollama's library."""
    if base_name(run):
        alone[1].unlink()


def lora_command(alone: Alone, context: int, answer_tokens: int) -> str:
    """The llama-server command; its --model is whatever GGUF file of the base is at hand."""
    lora, base = alone
    command = server_command(f"lora/{base.name}", context, answer_tokens)
    return f"{command} --lora {shlex.quote(f'lora/{lora.name}')} --chat-template-file lora/chat_template.jinja"


def write_modelfiles(run: RunFolder, lora: Path, context: int) -> None:
    """Beside the LoRA file: an Ollama Modelfile for it, one for the safetensors adapter if Ollama can use it, README.md."""
    folder, adapter = lora.parent, run.path / "adapter"
    facts = json.loads((adapter / "medner.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(adapter)
    template = go_template(tokenizer.chat_template, tokenizer.bos_token or "")
    settings = {**GREEDY, "num_ctx": context, "num_predict": max(facts["max_new_tokens"].values())}
    base = base_name(run) or f"./{BASE}"

    def modelfile(name: str, adapter_line: str) -> None:
        made_from = [f"# ollama create medner -f {name}", f"FROM {base}", f"ADAPTER {adapter_line}"]
        text = render_modelfile(made_from, template, facts["system_prompt"], settings, [tokenizer.eos_token])
        write_text(folder / name, text)

    modelfile("Modelfile", f"./{lora.name}")
    plain = not read_adapter_settings(adapter).get("use_rslora")  # Ollama scales by alpha / rank alone
    if plain:
        (folder / "safetensors").mkdir(exist_ok=True)
        for name in (ADAPTER, "adapter_config.json"):
            shutil.copyfile(adapter / name, folder / "safetensors" / name)
        modelfile("Modelfile.safetensors", "./safetensors")
    write_text(folder / "README.md", describe_folder(lora, base, context, settings["num_predict"], plain))


def describe_folder(lora: Path, base: str, context: int, answer: int, safetensors: bool) -> str:
    """README.md: what the folder is and how it is used."""
    mega = lora.stat().st_size / 1e6
    command = server_command("BASE.gguf", context, answer)
    lines = [
        f"# {lora.name}",
        f"An adapter of {mega:.0f} MB that is laid over its base model, `{base}`. It was compared with the trained adapter in "
        "llama.cpp, over the base in 16 bits: `../parity.json`. Over a base of fewer bits it answers otherwise: score it too.",
        "## Ollama",
        "```sh\nollama create medner -f Modelfile\n```"
        + ("\n\nThe same from the adapter as it was trained: `-f Modelfile.safetensors`." if safetensors else ""),
        "## llama.cpp",
        f"```sh\n{command} --lora {shlex.quote(lora.name)} --chat-template-file chat_template.jinja\n```",
        "## medner",
        f'```sh\nmedner extract --model BASE.gguf --lora {shlex.quote(lora.name)} "Lithium caused tremor."\n```',
        "`BASE.gguf` is any GGUF file of that base; the chat template is the adapter's own, with the date of its training.",
    ]
    return "\n\n".join(lines) + "\n"
