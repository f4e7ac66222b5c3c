"""Whether what is shipped answers as the adapter did: the merged model and every GGUF file, on the same validation documents.

Reads the adapter's completions (those of the evaluation serve), generates with each model, and writes parity.json:
`{"documents", "passed", "models": {NAME: {"sha256"?, "quant", "threshold", "prompts", "identical_prompts",
"exact_completions", "tasks": {task: {"f1", "adapter_f1", "change", "ci95"}}, "passed"}}}`. Figures are fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import read_jsonl, write_json
from data.prompts import Layout
from data.schema import TASKS, Document, InputError
from eval.chat_template import read_template
from eval.chats import Engine, plan_chats
from eval.completions import write_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import count_documents
from eval.scoring.stats import f1_of, interval, resample_weights

if TYPE_CHECKING:
    import numpy

# The F1 that may be lost: in 8 bits and more nothing should be, in fewer a little is the price of the size.
THRESHOLDS = {"16-bit": 0.01, "F32": 0.01, "F16": 0.01, "BF16": 0.01, "Q8_0": 0.01}
LOSSY = 0.03
PARALLEL = 2  # chats that llama.cpp holds at a time
Rows = Mapping[tuple[str, str], dict]  # completions by (document id, task)


def check_parity(
    documents: Sequence[Document],
    adapter_completions: Path,
    out: Path,
    *,
    merged: Path | None,
    ggufs: Sequence[Path],
    tokenizer: Path,
    layout: Layout,
    max_new_tokens: int | Mapping[str, int],
    context: int,
    batch_tokens: int = 16_384,
    grounded: bool = False,
) -> dict:
    """Compare each model with the adapter and write `out`. Completions are kept beside it, so an interrupted check goes on.

    `tokenizer`: the adapter's folder. `context`: positions of one chat. Documents and settings must be those with which
    `adapter_completions` was generated; answers for other documents in that file are passed over. Raises InputError where it
    lacks one.
    """
    adapter = read_answers(adapter_completions, documents)

    def compare(engine: Engine, name: str, source: Path) -> dict:
        path = out.parent / "parity" / f"{name}.jsonl"
        _forget_older(path, source)
        write_completions(engine, documents, path, layout=layout, max_new_tokens=max_new_tokens)
        return compare_answers(documents, adapter, read_answers(path, documents))

    models = {}
    if merged:
        engine = _open_merged(merged, batch_tokens, grounded)
        models["merged"] = {"quant": "16-bit", **compare(engine, "merged", merged / "merge.json")}
    for path in ggufs:
        with _serve(path, context) as address:
            facts = describe_gguf(path) | compare_prompts(address, tokenizer, documents, layout)
            engine = _open_gguf(address, tokenizer, grounded)
            models[path.name] = {**facts, **compare(engine, path.name, path)}
    for facts in models.values():
        facts["threshold"] = THRESHOLDS.get(facts["quant"], LOSSY)
        facts["passed"] = passes(facts)
    parity = {"documents": len(documents), "passed": all(facts["passed"] for facts in models.values()), "models": models}
    write_json(out, parity)
    return parity


def read_answers(path: Path, documents: Sequence[Document]) -> Rows:
    """The completions of these documents. Raises InputError where one is missing."""
    wanted = {(document.id, task) for document in documents for task in document.tasks}
    rows = {(row["document"], row["task"]): row for _, row in read_jsonl(path)}
    missing = sorted(wanted - rows.keys())
    if missing:
        raise InputError(f"{path}: no answer for document {missing[0][0]}, task {missing[0][1]}. Evaluate this split first.")
    return {key: rows[key] for key in wanted}


def compare_answers(documents: Sequence[Document], adapter: Rows, model: Rows) -> dict:
    """Set-F1 of both by task, the change with its 95 % interval over resampled documents, and the share of equal texts."""
    before, after = (count_documents(documents, parse_completions(rows.values())) for rows in (adapter, model))
    weights = resample_weights(len(documents))
    same = [adapter[key]["completion"] == model[key]["completion"] for key in adapter]
    tasks = {task: _change(before[task], after[task], weights) for task in TASKS}
    return {"exact_completions": sum(same) / len(same), "tasks": tasks}


def _change(before: numpy.ndarray, after: numpy.ndarray, weights: numpy.ndarray) -> dict:
    """Counts (tp, fp, fn) per document, [documents, 3]; both models are resampled alike, so shared difficulty cancels."""
    old, new = float(f1_of(before.sum(axis=0))), float(f1_of(after.sum(axis=0)))
    spread = interval(f1_of(weights @ after) - f1_of(weights @ before))
    return {"f1": new, "adapter_f1": old, "change": new - old, "ci95": spread}


def passes(facts: Mapping) -> bool:
    """Every prompt in the same ids, and no task's F1 lower by more than the threshold beyond what chance explains.

    A few documents hold few relations, so one answer can cost more than the threshold: the interval must exclude no change.
    """
    if facts.get("identical_prompts") != facts.get("prompts"):
        return False
    return all(task["change"] >= -facts["threshold"] or task["ci95"][1] >= 0 for task in facts["tasks"].values())


def _open_merged(folder: Path, batch_tokens: int, grounded: bool) -> Engine:
    import torch

    from eval.engines.open import open_engine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return open_engine("transformers", str(folder), batch_tokens=batch_tokens, device=device, grounded=grounded)


@contextmanager
def _serve(path: Path, context: int) -> Iterator[str]:
    """The address of a llama.cpp that serves the file as long as the block lasts."""
    from eval.engines.llama_cpp import start_server

    server = start_server(path, context * PARALLEL, PARALLEL, None)
    yield server.listening_address
    del server


def _open_gguf(address: str, tokenizer: Path, grounded: bool) -> Engine:
    from transformers import AutoTokenizer

    from eval.engines.open import open_engine

    reference = AutoTokenizer.from_pretrained(tokenizer)
    return open_engine("llama.cpp", address, tokenizer=reference, grounded=grounded, parallel=PARALLEL)


def describe_gguf(path: Path) -> dict[str, str]:
    """The file's hash, by which `push` knows it again, and the type of its weights."""
    from gguf import GGUFReader, LlamaFileType

    kind = LlamaFileType(GGUFReader(path).fields["general.file_type"].contents())
    with path.open("rb") as file:
        return {"sha256": file_digest(file, "sha256").hexdigest(), "quant": kind.name.removeprefix("MOSTLY_")}


def compare_prompts(address: str, tokenizer: Path, documents: Sequence[Document], layout: Layout) -> dict[str, int]:
    """How many prompts there are, and how many llama.cpp's own template and tokenizer turn into the very ids of training."""
    from transformers import AutoTokenizer

    from eval.engines.client import open_server
    from eval.engines.llama_cpp import read_server_template

    reference = AutoTokenizer.from_pretrained(tokenizer)
    chats = plan_chats(documents, layout=layout, max_new_tokens=1)
    with open_server(address, timeout=600) as server:
        ours, theirs = read_template(reference), read_server_template(server)
        pairs = [(ours.prompt_ids(chat.prompts), theirs.prompt_ids(chat.prompts)) for chat in chats]
    same = sum(one == other for expected, given in pairs for one, other in zip(expected, given, strict=True))
    return {"prompts": sum(len(expected) for expected, _ in pairs), "identical_prompts": same}


def _forget_older(path: Path, source: Path) -> None:
    """Completions that were generated before their model was last written belong to another one."""
    if path.exists() and source.exists() and source.stat().st_mtime > path.stat().st_mtime:
        path.unlink()


def describe_failures(parity: Mapping) -> Iterable[str]:
    """A line for each model that failed, for the screen."""
    for name, facts in parity["models"].items():
        if facts["passed"]:
            continue
        prompts = facts.get("prompts", 0)
        if facts.get("identical_prompts", prompts) != prompts:
            yield f"{name}: {prompts - facts['identical_prompts']} of {prompts} prompts become other tokens than in training"
        for task, figures in facts["tasks"].items():
            if figures["change"] < -facts["threshold"]:
                low, high = (100 * bound for bound in figures["ci95"])
                yield f"{name}: {task} F1 {100 * figures['change']:+.1f} points ({low:+.1f} to {high:+.1f})"
