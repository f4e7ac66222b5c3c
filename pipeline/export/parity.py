"""Whether what is shipped answers as the adapter did: the merged model and every GGUF file, on all validation documents.

Reads the adapter's completions (those of the evaluation serve), generates with each model, and writes parity.json:
`{"documents", "passed", "models": {NAME: {"sha256", "quant", "answers_sha256", "prompts", "identical_prompts",
"exact_completions", "least_exact", "micro": CHANGE, "tasks": {task: CHANGE}, "verdict", "passed"}}}`, each CHANGE as
`gate.judge_change` describes it, the verdict as `decide` gives it. Figures are fractions. What an earlier check found is kept
as long as the file and the adapter's answers are the same ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

from data.files import write_json
from data.prompts import Layout
from data.schema import TASKS, Document, InputError
from eval.chat_template import read_template
from eval.chats import Engine, plan_chats
from eval.completions import PROVENANCE, write_completions
from eval.engines.gguf_metadata import read_metadata
from eval.scoring.logprobs import read_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import count_documents
from pipeline.export.gate import judge_counts, least_equal, overall_power
from pipeline.weights import hash_file

Verdict = Literal["passed", "failed", "undecided"]
SHOWN = {"passed": "passed", "failed": "FAILED", "undecided": "UNDECIDED"}
PARALLEL = 2  # chats that llama.cpp answers at a time
Rows = Mapping[tuple[str, str], dict]  # completions by (document id, task)


def check_parity(
    documents: Sequence[Document],
    adapter_completions: Path,
    out: Path,
    *,
    merged: Path | None,
    ggufs: Sequence[Path],
    lora: tuple[Path, Path] | None = None,
    tokenizer: Path,
    layout: Layout,
    max_new_tokens: int | Mapping[str, int],
    context: int,
    batch_tokens: int = 16_384,
    grounded: bool = False,
    adapter_in_4bit: bool = False,
) -> dict:
    """Compare each model with the adapter and write `out`. Completions are kept beside it, so an interrupted check goes on.

    `lora`: an adapter's GGUF file and that of the base it is laid over. `tokenizer`: the adapter's folder. `context`:
    positions of one chat. Documents and settings must be those with which `adapter_completions` was generated; answers for
    other documents in that file are passed over. Raises InputError where it lacks one.
    """
    adapter = read_answers(adapter_completions, documents)
    answers = hash_answers(adapter)
    models = keep_earlier(out, answers, merged)

    def compare(engine: Callable[[], Engine], name: str, digest: str) -> dict:
        path = out.parent / "parity" / name / "completions.jsonl"
        provenance = {"engine": "transformers" if name == "merged" else "llama.cpp", "sha256": digest, "grounded": grounded}
        forget_other(path, digest)
        write_completions(
            lambda chats: engine()(chats),
            documents, path, layout=layout, max_new_tokens=max_new_tokens, provenance=provenance,
        )  # fmt: skip
        return compare_answers(documents, adapter, read_answers(path, documents))

    def judge(name: str, facts: dict) -> None:
        facts |= {"answers_sha256": answers, "least_exact": least_equal(facts["quant"], adapter_in_4bit)}
        verdict = decide(facts)
        models[name] = {**facts, "verdict": verdict, "passed": verdict == "passed"}
        passed = all(one["passed"] for one in models.values())
        write_json(out, {"documents": len(documents), "passed": passed, "models": models})

    if merged and "merged" not in models:
        facts = {"sha256": hash_file(merged / "merge.json"), "quant": "16-bit"}
        judge("merged", facts | compare(lambda: _open_merged(merged, batch_tokens, grounded), "merged", facts["sha256"]))
    served = [(path.name, path, None) for path in ggufs]
    if lora:
        served.append((lora[0].relative_to(out.parent).as_posix(), lora[1], lora[0]))
    for name, path, adapter_file in served:
        if name in models:
            continue
        with serve_gguf(path, context, adapter_file) as address:
            facts = describe_gguf(adapter_file or path) | compare_prompts(address, tokenizer, documents, layout)
            engine = partial(_open_gguf, address, tokenizer, grounded)
            judge(name, facts | compare(engine, name, facts["sha256"]))
    parity = {"documents": len(documents), "passed": all(one["passed"] for one in models.values()), "models": models}
    write_json(out, parity)
    return parity


def keep_earlier(out: Path, answers: str, merged: Path | None) -> dict[str, dict]:
    """What an earlier check found of files that are still the same, against the same answers of the adapter."""
    found = json.loads(out.read_text(encoding="utf-8"))["models"] if out.is_file() else {}
    kept = {}
    for name, facts in found.items():
        path = out.parent / "merged" / "merge.json" if name == "merged" else out.parent / name
        same = path.is_file() and facts.get("answers_sha256") == answers and facts.get("sha256") == hash_file(path)
        if same and (name != "merged" or merged):
            kept[name] = facts
    return kept


def hash_answers(rows: Rows) -> str:
    """sha256 of all answers, in the order of their keys: equal for equal answers."""
    return sha256(json.dumps([[*key, rows[key]["completion"]] for key in sorted(rows)]).encode()).hexdigest()


def forget_other(path: Path, digest: str) -> None:
    """Answers of a model that was made anew since belong to another one; they were only kept for an interrupted check."""
    beside = path.with_name(PROVENANCE)
    if path.parent.exists() and f'"{digest}"' not in (beside.read_text(encoding="utf-8") if beside.is_file() else ""):
        shutil.rmtree(path.parent)


def read_answers(path: Path, documents: Sequence[Document]) -> Rows:
    """The completions of these documents. Raises InputError where one is missing."""
    wanted = {(document.id, task) for document in documents for task in document.tasks}
    rows = {(row["document"], row["task"]): row for row in read_completions(path)}
    missing = sorted(wanted - rows.keys())
    if missing:
        raise InputError(f"{path}: no answer for document {missing[0][0]}, task {missing[0][1]}. Evaluate this split first.")
    return {key: rows[key] for key in wanted}


def compare_answers(documents: Sequence[Document], adapter: Rows, model: Rows) -> dict:
    """{"exact_completions": the share of equal texts, "micro": …, "tasks": {task: …}}, changes as the gate judges them."""
    before, after = (count_documents(documents, parse_completions(rows.values())) for rows in (adapter, model))
    judged = judge_counts(before, after)
    same = [adapter[key]["completion"] == model[key]["completion"] for key in adapter]
    tasks = {task: judged[task] for task in TASKS if judged[task]["ci95"]}
    return {"exact_completions": sum(same) / len(same), "micro": judged["micro"], "tasks": tasks}


def decide(facts: Mapping) -> Verdict:
    """passed: every prompt in the same ids, answers equal often enough, and shown to lose no more F1 than may be lost.

    failed: shown to be another model, in its prompts, its answers' letters, or F1 that it lost. undecided: neither is shown.
    """
    if facts.get("identical_prompts") != facts.get("prompts") or facts["exact_completions"] < facts["least_exact"]:
        return "failed"
    changes = [change for change in (facts["micro"], *facts["tasks"].values()) if not change["passed"]]
    if any((change["ci95"] or (0, -1))[1] < 0 for change in changes):
        return "failed"
    return "undecided" if changes else "passed"


def _open_merged(folder: Path, batch_tokens: int, grounded: bool) -> Engine:
    """By the loader that trained: once Unsloth has loaded a model, a plain Llama of the same process has lost its forward."""
    from pipeline.extract.open_model import open_with_transformers

    return open_with_transformers(folder, {"batch_tokens": batch_tokens, "grounded": grounded})


@contextmanager
def serve_gguf(path: Path, context: int, lora: Path | None = None) -> Iterator[str]:
    """The address of a llama.cpp that serves the file, an adapter laid over it, as long as the block lasts."""
    from eval.engines.llama_cpp import start_server

    server = start_server(path, context * PARALLEL, PARALLEL, None, lora)
    yield server.listening_address
    del server


def _open_gguf(address: str, tokenizer: Path, grounded: bool) -> Engine:
    from transformers import AutoTokenizer

    from eval.engines.open import open_engine

    reference = AutoTokenizer.from_pretrained(tokenizer)
    return open_engine("llama.cpp", address, tokenizer=reference, grounded=grounded, parallel=PARALLEL)


def describe_gguf(path: Path) -> dict[str, str]:
    """The file's hash, by which `push` knows it again, and the type of its weights."""
    from gguf import LlamaFileType

    kind = LlamaFileType(read_metadata(path).fields["general.file_type"])
    return {"sha256": hash_file(path), "quant": kind.name.removeprefix("MOSTLY_")}


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


def render_parity(parity: Mapping) -> str:
    """By model its verdict, why it did not pass, and what this check can find, for a terminal."""
    lines = []
    for name, facts in parity["models"].items():
        low, high = (100 * bound for bound in facts["micro"]["ci95"] or (0, 0))
        change = f"F1 {100 * facts['micro']['change']:+.1f} points (95 %: {low:+.1f} to {high:+.1f})"
        equal = f"{facts['exact_completions']:.1%} of answers to the letter the adapter's"
        lines.append(f"{name}: {SHOWN[decide(facts)]}, {change}, {equal}")
        lines += [f"  {line}" for line in describe_failures(facts)]
        if decide(facts) != "failed" and (power := describe_power(facts, parity["documents"])):
            lines.append(f"  {power}")
    return "\n".join(lines)


def describe_power(facts: Mapping, documents: int) -> str:
    """What a check with so many documents can tell, and about how many it takes where they are too few."""
    power = overall_power([facts["micro"], *facts["tasks"].values()])
    if power is None:
        return ""
    passing, lost = int(100 * power["lossless_passes"]), 100 * facts["micro"]["power"]["refused_from"]
    enough = power["lossless_passes"] >= 0.95
    if decide(facts) == "passed" or enough:
        few = "" if enough else f"; with about {round_up(power['documents']):,} it would pass nearly all"
        told = f"{passing} of 100 files that lose nothing, and at most 5 of 100 that lose {lost:.1f} points"
        return f"a check with {documents} validation articles passes {told}{few}"
    few = f"{documents} validation articles are too few: of 100 files that lose nothing such a check would pass {passing}"
    return f"{few}; about {round_up(power['documents']):,} would do"


def round_up(count: int) -> int:
    """To two digits, since it is a guess."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def describe_failures(facts: Mapping) -> Iterator[str]:
    """Why a model did not pass, a line a reason; none where it did."""
    prompts = facts.get("prompts", 0)
    if facts.get("identical_prompts", prompts) != prompts:
        yield f"{prompts - facts['identical_prompts']} of {prompts} prompts become other tokens than in training"
    if facts["exact_completions"] < facts["least_exact"]:
        yield f"{facts['exact_completions']:.1%} of answers are equal, fewer than {facts['least_exact']:.0%}"
    for task, change in {"all items": facts["micro"], **facts["tasks"]}.items():
        if not change["passed"]:
            low, high = (100 * bound for bound in change["ci95"] or (0, 0))
            shown = "a loss is shown" if high < 0 else "so large a loss is neither shown nor excluded"
            limit = f"may lose {100 * change['may_lose']:.0f}"
            yield f"{task}: F1 {100 * change['change']:+.1f} points ({low:+.1f} to {high:+.1f}), {limit}: {shown}"
