"""`medner evaluate --model X --data FILE`: a model that was not trained here, scored as a run's own is, without a run folder.

An adapter, a model's folder, a GGUF file, a Hub id or a server's address answers the articles of a corpus file; its answers and
every figure go into a folder, or only to the screen.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.corpus import read_corpus
from data.near_duplicates import near_duplicates
from data.prompts import Layout
from data.schema import Document
from data.split import read_split_folder
from eval.chats import Chat
from eval.completions import write_completions
from eval.grounding.repeats import describe_grounding
from eval.report.page import describe_provenance
from eval.scoring.crf import score_crf
from eval.scoring.faults import find_faults
from eval.scoring.metrics import score_readings, score_split
from pipeline.evaluate_split import match_completions, score_officially, write_figures
from pipeline.extract.open_model import adapter_of, find_asked, find_model, is_run, open_answering
from pipeline.run_folder import hash_files
from pipeline.summary import render_metrics
from pipeline.variant import ADDRESS, identify_model, require_budgets

Outcome = tuple[dict, str, int]
BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Candidate:
    """A model to score. `like`, or `layout` and `max_new_tokens`, say how it is asked where it does not say so itself."""

    model: str
    engine: str | None = None
    grounded: bool = False
    like: str | None = None
    layout: Layout | None = None
    max_new_tokens: int | None = None


def evaluate_model(
    candidate: Candidate, data: Path, *, train: Path | None = None, out: Path | None = None, markdown: bool = False
) -> Outcome:
    """metrics.json of the candidate's answers to the articles of `data`, and its tables as text.

    `train`: articles that were learnt from (a run's own by default), for the dictionary, the CRF, what is seen, and leaks.
    `out`: keeps answers, figures and report; answers that are there already are not asked again.
    """
    documents = list(read_corpus(data).documents)
    folder = None if candidate.model.startswith(ADDRESS) else find_model(candidate.model)
    asked = find_asked(candidate.model, folder, candidate.like, candidate.layout, candidate.max_new_tokens)
    require_budgets(asked.max_new_tokens, documents)
    learnt = list(read_corpus(train).documents) if train else learnt_by(folder)
    warn_of_leaks(learnt, documents)
    source = describe_candidate(candidate, folder)

    def engine(chats: Sequence[Chat]) -> Iterator[list[dict]]:
        like, grounded = candidate.like, candidate.grounded
        answer = open_answering(candidate.model, folder, candidate.engine, grounded, like, asked, BATCH_TOKENS)
        return answer(chats)  # opened only where something is left to ask

    with kept_in(out) as place:
        budgets = dict(asked.max_new_tokens)
        path = place / "completions.jsonl"
        write_completions(engine, documents, path, layout=asked.layout, max_new_tokens=budgets, provenance=source)
        rows, scored = match_completions(documents, place)
        faults = find_faults(scored)
        metrics = score_split(learnt, scored, faults)
        # a model that has to be told the layout was not taught our format: what it means is compared
        metrics["readings"] = score_readings(scored, rows, "lenient" if candidate.layout else "strict")
        metrics["official"] = score_officially(learnt, scored, place)
        if learnt:
            metrics["baselines"] |= score_crf(learnt, scored, place / "crf.crfsuite")
            (place / "crf.crfsuite").unlink()  # another --train would need another
        else:
            forget_train(metrics)
        title = f"{source['model']} on {data.name}"
        notes = [*describe_provenance(place / "provenance.json"), f"data sha256 {hash_files([data])[:12]}"]
        write_figures(place, scored, faults, metrics, title, notes)
        shown = (place / "report.md").read_text(encoding="utf-8") if markdown else render_metrics(metrics, title)
    return metrics, "\n\n".join([shown, *([f"report: {out / 'report.html'}"] if out else [])]), 0


@contextmanager
def kept_in(out: Path | None) -> Iterator[Path]:
    """`out`, or a folder that is gone afterwards."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def learnt_by(folder: Path | None) -> list[Document]:
    """The training articles of a run; none of what says nothing about them."""
    return read_split_folder(folder / "data")["train"] if folder and is_run(folder) else []


def find_learnt(learnt: Sequence[Document], documents: Sequence[Document]) -> list[Document]:
    """Those of `documents` that are, or nearly are, among the articles learnt from."""
    pairs = near_duplicates(document.article for document in (*learnt, *documents))
    return [documents[second - len(learnt)] for second in sorted({b for a, b in pairs if a < len(learnt) <= b})]


def warn_of_leaks(learnt: Sequence[Document], documents: Sequence[Document]) -> None:
    """Says on standard error how many of `documents` are, or nearly are, among the articles learnt from."""
    if shared := find_learnt(learnt, documents):
        named, count = shared[0].id, f"{len(shared)} of {len(documents)} articles"
        print(f"WARNING: {count} stand in what was learnt from, as they are or nearly, such as {named}", file=sys.stderr)


def describe_candidate(candidate: Candidate, folder: Path | None) -> dict:
    """What stands in provenance.json: engine, model, and what tells it from every other."""
    if folder is None:
        engine, model = candidate.engine or "openai", candidate.model
    elif folder.is_file():
        engine, model = "llama.cpp", str(folder)
    else:
        engine, model = candidate.engine or "transformers", str(adapter_of(folder))
    described = {"engine": engine, **identify_model(model, engine), **describe_grounding(candidate.grounded), "logprobs": True}
    return described | ({"model": folder.name} if folder and is_run(folder) else {})


def forget_train(metrics: dict) -> None:
    """Take out what only training articles can say: without any, all would count as unseen, and a dictionary find nothing."""
    metrics["baselines"] = {}
    for slices in metrics["slices"].values():
        slices["string"] = slices["concept"] = None
