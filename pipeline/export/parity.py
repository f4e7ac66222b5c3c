"""Whether what is shipped answers as the adapter did: the merged model and every GGUF file, on all validation documents.

Reads the adapter's completions (those of the evaluation serve), generates with each model, and writes parity.json:
`{"documents", "passed", "models": {NAME: {"sha256", "quant", "answers_sha256", "prompts", "identical_prompts",
"exact_completions", "least_exact", "micro": CHANGE, "tasks": {task: CHANGE}, "passed"}}}`, each CHANGE as `gate.judge_change`
describes it. Figures are fractions. What an earlier check found is kept as long as the file and the adapter's answers are the
same ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from data.files import read_jsonl, write_json
from data.prompts import Layout
from data.schema import TASKS, Document, InputError
from eval.chat_template import read_template
from eval.chats import Engine, plan_chats
from eval.completions import PROVENANCE, write_completions
from eval.scoring.parse import parse_completions
from eval.scoring.score import count_documents
from pipeline.export.gate import judge_counts, least_equal
from pipeline.weights import hash_file

PARALLEL = 2  # chats that llama.cpp answers at a time
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
    adapter_in_4bit: bool = False,
) -> dict:
    """Compare each model with the adapter and write `out`. Completions are kept beside it, so an interrupted check goes on.

    `tokenizer`: the adapter's folder. `context`: positions of one chat. Documents and settings must be those with which
    `adapter_completions` was generated; answers for other documents in that file are passed over. Raises InputError where it
    lacks one.
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
        models[name] = {**facts, "passed": passes(facts)}
        passed = all(one["passed"] for one in models.values())
        write_json(out, {"documents": len(documents), "passed": passed, "models": models})

    if merged and "merged" not in models:
        facts = {"sha256": hash_file(merged / "merge.json"), "quant": "16-bit"}
        judge("merged", facts | compare(lambda: _open_merged(merged, batch_tokens, grounded), "merged", facts["sha256"]))
    for path in ggufs:
        if path.name in models:
            continue
        with _serve(path, context) as address:
            facts = describe_gguf(path) | compare_prompts(address, tokenizer, documents, layout)
            engine = partial(_open_gguf, address, tokenizer, grounded)
            judge(path.name, facts | compare(engine, path.name, facts["sha256"]))
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
    return sha256(json.dumps([[*key, rows[key]["completion"]] for key in sorted(rows)]).encode()).hexdigest()


def forget_other(path: Path, digest: str) -> None:
    """Answers of a model that was made anew since belong to another one; they were only kept for an interrupted check."""
    beside = path.with_name(PROVENANCE)
    if path.parent.exists() and f'"{digest}"' not in (beside.read_text(encoding="utf-8") if beside.is_file() else ""):
        shutil.rmtree(path.parent)


def read_answers(path: Path, documents: Sequence[Document]) -> Rows:
    """The completions of these documents. Raises InputError where one is missing."""
    wanted = {(document.id, task) for document in documents for task in document.tasks}
    rows = {(row["document"], row["task"]): row for _, row in read_jsonl(path)}
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


def passes(facts: Mapping) -> bool:
    """Every prompt in the same ids, answers equal often enough, and no more F1 lost than may be: shown, not assumed."""
    if facts.get("identical_prompts") != facts.get("prompts") or facts["exact_completions"] < facts["least_exact"]:
        return False
    return all(change["passed"] for change in (facts["micro"], *facts["tasks"].values()))


def is_lossy(facts: Mapping) -> bool:
    """Whether a model that did not pass is shown to be another one: in its prompts, its answers' letters, or F1 that it lost.

    Else too few documents were compared to exclude a loss: it did not pass, but nothing speaks against it.
    """
    if facts.get("identical_prompts") != facts.get("prompts") or facts["exact_completions"] < facts["least_exact"]:
        return True
    changes = (facts["micro"], *facts["tasks"].values())
    return any(not change["passed"] and (change["ci95"] or (0, -1))[1] < 0 for change in changes)


def _open_merged(folder: Path, batch_tokens: int, grounded: bool) -> Engine:
    """By the loader that trained: once Unsloth has loaded a model, a plain Llama of the same process has lost its forward."""
    from pipeline.extract.open_model import open_with_transformers

    return open_with_transformers(folder, {"batch_tokens": batch_tokens, "grounded": grounded})


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
    """A line for each model, and why those failed that did, for a terminal."""
    lines = []
    for name, facts in parity["models"].items():
        low, high = (100 * bound for bound in facts["micro"]["ci95"] or (0, 0))
        change = f"F1 {100 * facts['micro']['change']:+.1f} points (95 %: {low:+.1f} to {high:+.1f})"
        equal = f"{facts['exact_completions']:.1%} of answers to the letter the adapter's"
        verdict = "passed" if facts["passed"] else "FAILED" if is_lossy(facts) else "NOT SHOWN to be as good"
        lines.append(f"{name}: {verdict}, {change}, {equal}{describe_power(facts['micro'])}")
    return "\n".join([*lines, *(f"  {line}" for line in describe_failures(parity))])


def describe_power(micro: Mapping) -> str:
    if not micro["power"]:
        return ""
    passing, lost = micro["power"]["lossless_passes"], micro["power"]["refused_from"]
    return f"; a lossless file passes in {100 * passing:.0f} of 100 such checks, one that loses {100 * lost:.1f} points in 5"


def describe_failures(parity: Mapping) -> Iterable[str]:
    """Why each model failed that did, a line a reason."""
    for name, facts in parity["models"].items():
        if facts["passed"]:
            continue
        prompts = facts.get("prompts", 0)
        if facts.get("identical_prompts", prompts) != prompts:
            yield f"{name}: {prompts - facts['identical_prompts']} of {prompts} prompts become other tokens than in training"
        if facts["exact_completions"] < facts["least_exact"]:
            yield f"{name}: {facts['exact_completions']:.1%} of answers are equal, fewer than {facts['least_exact']:.0%}"
        for task, change in {"all items": facts["micro"], **facts["tasks"]}.items():
            if not change["passed"]:
                low, high = (100 * bound for bound in change["ci95"] or (0, 0))
                shown = "lost" if high < 0 else f"too few documents ({parity['documents']}) to exclude a loss"
                limit = f"may lose {100 * change['may_lose']:.0f}"
                yield f"{name}: {task} F1 {100 * change['change']:+.1f} points ({low:+.1f} to {high:+.1f}), {limit}: {shown}"
