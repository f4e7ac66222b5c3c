"""The export stage: adapter -> merged 16-bit -> GGUF files and Modelfile, and whether they answer as the adapter does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from data.schema import Document
from data.split import read_split_folder
from pipeline.base_model import model_path, read_origin
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.lora_folder import export_adapter, forget_base, lora_command
from pipeline.export.merge import find_base, merge_adapter
from pipeline.export.modelfile import served_context, server_command, write_modelfile
from pipeline.export.names import default_name, licence_of
from pipeline.export.parity import check_parity, decide
from pipeline.export.quantise import MOSTLY, convert_with_checkout, quantise_gguf
from pipeline.model import load_tokenizer
from pipeline.run_folder import RunFolder
from pipeline.variant import ask_variant, run_variant
from pipeline.weights import hash_own_adapter


def export_run(run: RunFolder, quants: Sequence[str], keep_merged: bool, lora: bool = False) -> dict:
    """Write export/ and check it. What exists already is kept, so an interrupted export goes on, and a later one adds to it.

    `lora`: also export/lora/, the adapter alone.
    """
    folder, adapter = run.path / "export", run.path / "adapter"
    hash_own_adapter(run)
    settings = json.loads((adapter / "medner.json").read_text(encoding="utf-8"))
    documents = read_split_folder(run.path / "data")["validation"]
    answers = run.path / "eval" / "validation" / "completions.jsonl"
    ask_variant(run, run_variant(run.settings), documents, answers)  # what the evaluation has not asked
    keep_merged = keep_merged or "merged" in read_compared(folder)
    base, revision = model_path(run.settings.model.name), run.settings.model.revision
    context = run.settings.model.max_length + sum(settings["max_new_tokens"].values())
    served = served_context(find_base(base, revision), context)
    merged, ggufs = None, []
    if quants or keep_merged:
        merged = merge_adapter(base, adapter, folder / "merged", revision)
        ggufs = [make_gguf(run, merged, folder, quant) for quant in quants]
    command = describe_servers(sorted(folder.glob("*.gguf")), folder, adapter, settings, served)
    alone = export_adapter(run, find_base(base, revision), served, describe_model(run)) if lora else None
    parity = check_export(run, documents, merged if keep_merged else None, ggufs, context, alone)
    if alone:
        command = command or lora_command(alone, served, max(settings["max_new_tokens"].values()))
        forget_base(run, alone)
    if merged and not keep_merged:
        shutil.rmtree(merged)
    models = parity["models"].items()
    figures = {
        name: {"verdict": decide(model), "passed": model["passed"], "exact": model["exact_completions"]}
        for name, model in models
    }
    files = [name for name in parity["models"] if name != "merged"]
    return {"files": files, "parity": figures, "passed": parity["passed"], "llama_server": command}


def read_compared(folder: Path) -> dict:
    """The models of an earlier parity.json."""
    path = folder / "parity.json"
    return json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}


def make_gguf(run: RunFolder, merged: Path, folder: Path, quant: str) -> Path:
    """One GGUF file. A K-quant is made from a 16-bit file, which is kept only where it was asked for."""
    out = folder / f"{file_stem(run)}.{quant}.gguf"
    if out.exists():
        return out
    if quant not in MOSTLY:
        return convert(run, merged, out, quant)
    sixteen = folder / f"{file_stem(run)}.f16.gguf"
    if sixteen.exists():
        return quantise_gguf(sixteen, out, quant)
    temporary = convert(run, merged, folder / "for-quantising.gguf", "bf16")
    quantise_gguf(temporary, out, quant)
    temporary.unlink()
    return out


def convert(run: RunFolder, merged: Path, out: Path, quant: str) -> Path:
    """Writes the merged model as a GGUF file, by our own writer or by the settings' llama.cpp checkout. Returns its path."""
    checkout = run.settings.export.llama_cpp
    if checkout:
        return convert_with_checkout(Path(checkout), merged, out, quant)
    return convert_to_gguf(merged, out, quant, describe_model(run))


def file_stem(run: RunFolder) -> str:
    """Llama-3.2-3B-medical-ner: the repository's default name without its time."""
    return default_name(run.settings.model.name).rpartition("-")[0]


def describe_model(run: RunFolder) -> dict[str, str]:
    """Metadata of a GGUF file: what it was made from, and how good it is."""
    path = run.path / "eval" / "test" / "metrics.json"
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.exists() else {}
    origin = read_origin(run.settings.model.name)
    licence = licence_of(run.settings.model.name) or origin.get("license")
    scores = {f"medner.test.{task}.f1": f"{figures['f1']:.4f}" for task, figures in tasks.items()}
    return {
        "general.name": file_stem(run),
        **({"general.license": licence} if licence else {}),
        "general.base_model.0.name": origin.get("base_model", run.settings.model.name),
        "medner.data_sha256": run.manifest["data_sha256"],
        "medner.layout": run.settings.train.layout,
        **{f"medner.max_new_tokens.{task}": str(tokens) for task, tokens in run.manifest["max_new_tokens"].items()},
    } | scores


def describe_servers(ggufs: Sequence[Path], folder: Path, adapter: Path, settings: dict, context: int) -> str | None:
    """Write the Modelfile for the smallest file; return the llama-server command for it."""
    if not ggufs:
        return None
    tokenizer = load_tokenizer(adapter)
    smallest = min(ggufs, key=lambda path: path.stat().st_size)
    answer = max(settings["max_new_tokens"].values())
    write_modelfile(
        smallest,
        folder / "Modelfile",
        system=settings["system_prompt"],
        chat_template=tokenizer.chat_template,
        bos=tokenizer.bos_token or "",
        stop=[tokenizer.eos_token],
        context=context,
        answer_tokens=answer,
    )
    return server_command(smallest.name, context, answer)


def check_export(
    run: RunFolder,
    documents: Sequence[Document],
    merged: Path | None,
    ggufs: Sequence[Path],
    context: int,
    lora: tuple[Path, Path] | None,
) -> dict:
    """parity.json: the adapter's answers to all validation documents against those of each exported model."""
    return check_parity(
        documents,
        run.path / "eval" / "validation" / "completions.jsonl",
        run.path / "export" / "parity.json",
        merged=merged,
        ggufs=ggufs,
        lora=lora,
        tokenizer=run.path / "adapter",
        layout=run.settings.train.layout,
        max_new_tokens=run.settings.eval.max_new_tokens or run.manifest["max_new_tokens"],
        context=context,
        batch_tokens=run.settings.eval.batch_tokens,
        grounded=run.settings.eval.grounded,
        adapter_in_4bit=bool(run.settings.model.load_in_4bit),
    )
