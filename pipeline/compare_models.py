"""`medner parity A B --data FILE`: whether two models answer alike, and where they part.

A and B are anything that answers: a run, an adapter, a merged folder, a GGUF file, a server's address. Five stages are compared
in the order in which an answer comes about, and the first that differs is named:

    tokenizer     every article becomes the same ids
    template      every prompt does, with what the chat template writes around it
    first tokens  the answer to a chat's first question begins with the same three tokens, about as probable
    answers       the answers are the same texts
    scores        no F1 is lost, shown by the parity gate
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from data.corpus import read_corpus
from data.schema import Document, InputError
from eval.chat_template import ChatTemplate, read_template
from eval.chats import Chat, Engine, plan_chats
from eval.engines.client import offers, open_server
from eval.engines.gguf_metadata import read_metadata
from eval.engines.llama_cpp import read_server_template
from eval.engines.open import open_engine
from pipeline.export.gate import LEAST_EQUAL, LEAST_EQUAL_LOSSY, SAME_BITS
from pipeline.export.parity import compare_answers, serve_gguf
from pipeline.extract.extractor import Asked
from pipeline.extract.open_model import adapter_of, context_of, find_asked, find_model, open_with_transformers
from pipeline.variant import ADDRESS

STAGES = ("tokenizer", "template", "first tokens", "answers", "scores")
FIRST = 3  # tokens: the first alone is the mark of a list, of which every model is sure
NEAR = 0.1  # of their log-probability, in the median: 16-bit formats differ by a hundredth
BATCH_TOKENS = 16_384
Rows = dict[tuple[str, str], dict]


@dataclass(frozen=True)
class Side:
    """An open model. `template`: None where a server does not show its tokens. `lossy`: weights of fewer than eight bits."""

    engine: Engine
    template: ChatTemplate | None
    lossy: bool


@dataclass(frozen=True)
class Pair:
    """Two models to compare; `like`, or `layout` and `max_new_tokens`, say how both are asked where neither says so."""

    a: str
    b: str
    like: str | None = None
    layout: Any = None
    max_new_tokens: int | None = None


def compare_models(pair: Pair, data: Path, limit: int | None = None) -> tuple[dict, str, int]:
    """The command: its JSON object {"a", "b", "documents", "stages", "broke"}, its text, and exit code 1 where a stage differs.

    `stages`: {name: {…, "same": None where a server does not show it, or too few articles decide}}; `broke`: the first other.
    """
    documents = list(islice(read_corpus(data).documents, limit))
    asked = find_pair_asked(pair)
    chats = plan_chats(documents, layout=asked.layout, max_new_tokens=asked.max_new_tokens)
    seen = []
    for name in (pair.a, pair.b):  # one after the other: two models need not fit in memory at once
        with open_side(name, asked) as side:
            seen.append(look_at(side, documents, chats))
    (ids_a, prompts_a, rows_a, lossy_a), (ids_b, prompts_b, rows_b, lossy_b) = seen
    least = LEAST_EQUAL_LOSSY if lossy_a or lossy_b else LEAST_EQUAL
    stages = {
        "tokenizer": compare_ids(ids_a, ids_b),
        "template": compare_ids(prompts_a, prompts_b),
        "first tokens": compare_first(rows_a, rows_b, chats, least),
        **compare_rows(documents, rows_a, rows_b, least),
    }
    broke = next((name for name in STAGES if stages[name]["same"] is False), None)
    result = {"a": pair.a, "b": pair.b, "documents": len(documents), "stages": stages, "broke": broke}
    return result, render(result), int(broke is not None)


def find_pair_asked(pair: Pair) -> Asked:
    """How both are asked: as the first of them says that says it."""
    told = None
    for name in (pair.a, pair.b):
        folder = None if name.startswith(ADDRESS) else find_model(name)
        try:
            return find_asked(name, folder, pair.like, pair.layout, pair.max_new_tokens)
        except InputError as error:
            told = told or error
    raise told or InputError("neither model says how it is asked")


@contextmanager
def open_side(name: str, asked: Asked) -> Iterator[Side]:
    """The model, open as long as the block lasts."""
    folder = None if name.startswith(ADDRESS) else find_model(name)
    if folder and folder.is_file():
        with serve_gguf(folder, context_of(folder, asked)) as address, open_side(address, asked) as side:
            yield Side(side.engine, side.template, is_lossy_file(folder))
    elif folder:
        from pipeline.model import load_tokenizer

        settings = {"logprobs": True, "grounded": False, "batch_tokens": BATCH_TOKENS}
        template = read_template(load_tokenizer(adapter_of(folder)))
        yield Side(open_with_transformers(adapter_of(folder), settings), template, False)
    else:
        with open_server(name, timeout=600) as server:
            if offers(server, "/props"):
                yield Side(open_engine("llama.cpp", name, logprobs=True), read_server_template(server), True)
            else:
                yield Side(open_engine("openai", name, logprobs=True), None, True)


def is_lossy_file(path: Path) -> bool:
    """Whether a GGUF file has fewer bits than 16-bit or q8_0, by the type that it names."""
    from gguf import LlamaFileType

    kind = LlamaFileType(read_metadata(path).fields.get("general.file_type", 0)).name
    return kind.removeprefix("MOSTLY_").removeprefix("ALL_") not in SAME_BITS


def look_at(side: Side, documents: Sequence[Document], chats: Sequence[Chat]) -> tuple[list | None, list | None, Rows, bool]:
    """Ids of each article and of each chat's prompts, the answers, and whether the weights are of few bits."""
    ids = prompts = None
    if side.template:
        ids = [(document.id, tuple(side.template.encode(document.article))) for document in documents]
        prompts = [(chat.document.id, side.template.prompt_ids(chat.prompts)) for chat in chats]
    rows = {(row["document"], row["task"]): row for rows in side.engine(chats) for row in rows}
    return ids, prompts, rows, side.lossy


def compare_ids(a: list | None, b: list | None) -> dict:
    """{"equal", "of", "first": the first document that differs, "same"}; all None where a server does not show its tokens."""
    if a is None or b is None:
        return {"equal": None, "of": None, "first": None, "same": None}
    other = [one[0] for one, two in zip(a, b, strict=True) if one[1] != two[1]]
    return {"equal": len(a) - len(other), "of": len(a), "first": other[0] if other else None, "same": not other}


def compare_first(a: Rows, b: Rows, chats: Sequence[Chat], least: float) -> dict:
    """The first tokens of each chat's first answer: how often they are equal, how far apart in log-probability (median)."""
    pairs = []
    for chat in chats:
        firsts = [rows[chat.document.id, chat.tasks[0]].get("logprobs") for rows in (a, b)]
        if None not in firsts:
            pairs.append([one[:FIRST] for one in firsts])
    if not pairs:
        return {"equal": None, "of": 0, "difference": None, "same": None}
    alike = [pair for pair in pairs if [text for text, _ in pair[0]] == [text for text, _ in pair[1]]]
    equal = [abs(sum(logprob for _, logprob in one) - sum(logprob for _, logprob in two)) for one, two in alike]
    apart = median(equal) if equal else None
    same = len(equal) >= least * len(pairs) and apart is not None and apart <= NEAR
    return {"equal": len(equal), "of": len(pairs), "difference": apart, "same": same}


def compare_rows(documents: Sequence[Document], a: Rows, b: Rows, least: float) -> dict[str, dict]:
    """The stages "answers" and "scores"."""
    found = compare_answers(documents, a, b)
    other = [key for key in a if a[key]["completion"] != b[key]["completion"]]
    example = [*other[0], *(rows[other[0]]["completion"] for rows in (a, b))] if other else None
    answers = {"equal": len(a) - len(other), "of": len(a), "example": example, "same": found["exact_completions"] >= least}
    changes = {"micro": found["micro"], **found["tasks"]}
    lost = [name for name, change in changes.items() if (change["ci95"] or (0, 0))[1] < 0]
    undecided = [name for name, change in changes.items() if not change["passed"] and name not in lost]
    same = False if lost else None if undecided else True
    return {"answers": answers, "scores": {"changes": changes, "lost": lost, "undecided": undecided, "same": same}}


def render(result: Mapping[str, Any]) -> str:
    """For a terminal: one line a stage, whether both models are the same there and by how much not."""
    stages = result["stages"]
    lines = [f"A: {result['a']}", f"B: {result['b']}", f"{result['documents']} documents"]
    for name in ("tokenizer", "template"):
        one = stages[name]
        shown = "not shown by a server" if one["same"] is None else f"{one['equal']} of {one['of']} the same ids"
        lines.append(
            f"{name:<12} {verdict(one)}  {shown}" + (f"; the first that differs: {one['first']}" if one["first"] else "")
        )
    first, answers, scores = stages["first tokens"], stages["answers"], stages["scores"]
    apart = "" if first["difference"] is None else f", its log-probability {first['difference']:.3f} apart (median)"
    lines.append(f"{'first tokens':<12} {verdict(first)}  {first['equal']} of {first['of']} the same{apart}")
    lines.append(f"{'answers':<12} {verdict(answers)}  {answers['equal']} of {answers['of']} the same to the letter")
    if answers["example"]:
        document, task, *texts = answers["example"]
        lines.append(f"{'':<16} {document}, {task}: " + " | ".join(repr(text[:60]) for text in texts))
    for name, change in scores["changes"].items():
        low, high = (100 * bound for bound in change["ci95"] or (0, 0))
        moved = f"change {100 * change['change']:+.1f} ({low:+.1f} to {high:+.1f})"
        figures = f"{100 * change['adapter_f1']:.1f} and {100 * change['f1']:.1f}"
        lines.append(f"{'scores':<12} {verdict(scores)}  {name} F1 {figures}, {moved}")
    broke = result["broke"]
    lines.append(f"they part at: {broke}" if broke else "they answer alike")
    return "\n".join(lines)


def verdict(stage: Mapping[str, Any]) -> str:
    """`same`, `OTHER`, or a dash where the stage says nothing, all five characters wide."""
    return {True: "same ", False: "OTHER", None: "–    "}[stage["same"]]
