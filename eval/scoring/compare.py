"""Two systems on one test set: whether their scores differ by more than chance.

Reads two runs' documents and predictions; refuses runs whose test documents or gold are not the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from data.items import Item, normalise_item
from data.schema import Document, InputError, JsonObject
from data.table import Table, as_text, percent
from eval.scoring.parse import Predictions
from eval.scoring.score import count_documents
from eval.scoring.stats import RESAMPLES, SHUFFLES, compare_counts, remark_on

LEVEL = 0.05


def compare(documents: Sequence[Document], predictions_a: Predictions, predictions_b: Predictions) -> JsonObject:
    """{"documents", "interval_remark", "resamples", "shuffles", "level", "scores": {task, "micro" or "macro": …}}.

    Each of the scores is as `stats.compare_counts` gives it.

    Both predictions must answer every document's every task. For runs that have their own documents, call
    `check_same_test` first.
    """
    a, b = (count_documents(documents, predictions) for predictions in (predictions_a, predictions_b))
    return {
        "documents": len(documents),
        "interval_remark": remark_on(len(documents)),
        "resamples": RESAMPLES,
        "shuffles": SHUFFLES,
        "level": LEVEL,
        "scores": compare_counts(a, b),
    }


def check_same_test(documents_a: Sequence[Document], documents_b: Sequence[Document]) -> None:
    """Raises InputError where the two runs were not scored on the same documents, tasks and gold. Order is irrelevant."""
    a, b = ({document.id: document for document in documents} for documents in (documents_a, documents_b))
    only = sorted(a.keys() ^ b.keys())
    if only:
        run = "first" if only[0] in a else "second"
        raise InputError(
            f"different test sets: {len(only)} documents are in one run only, such as {only[0]!r} (in the {run}); "
            "score both runs on the same documents"
        )
    for name, document in a.items():
        if document.tasks != b[name].tasks:
            raise InputError(f"different test sets: document {name!r} has tasks {document.tasks} and {b[name].tasks}")
        for task in document.tasks:
            if _gold(document, task) != _gold(b[name], task):
                raise InputError(f"different test sets: document {name!r} has other gold {task} in the second run")


def _gold(document: Document, task: str) -> set[Item]:
    return set(map(normalise_item, document.gold(task)))


def render_comparison(comparison: JsonObject, names: tuple[str, str] = ("A", "B")) -> str:
    """The comparison for a terminal, in points of F1."""
    return as_text(comparison_table(comparison, names))


def comparison_table(comparison: JsonObject, names: tuple[str, str]) -> Table:
    """`compare`'s figures in percent, one row a task; `names`: of run A and run B."""
    rows = []
    for task, row in comparison["scores"].items():
        bounds = [f"{100 * bound:+.1f}" for bound in row["ci95"] or ()]
        verdict = "differs" if row["p_corrected"] < comparison["level"] else "not told apart"
        change = f"{100 * row['difference']:+.1f}" + (f" ({' to '.join(bounds)})" if bounds else "")
        p_values = (f"{row[name]:.3f}" for name in ("p", "p_corrected"))
        rows.append((task, percent(row["a"]), percent(row["b"]), change, *p_values, percent(row["resolvable"]), verdict))
    title = (
        f"F1 on the same {comparison['documents']:,} documents, percent; difference = {names[1]} - {names[0]}, 95 % interval"
    )
    note = (
        f"p: the larger of paired bootstrap's ({comparison['resamples']:,} resamples of documents) and approximate "
        f"randomisation's ({comparison['shuffles']:,} shuffles). corrected: by Holm's method, since {len(rows)} rows are "
        f"tested at once. differs: corrected p under {comparison['level']}. resolvable: the smallest difference that this test "
        "set would find in 80 of 100 tries, for two systems "
        "that agree as these do."
    )
    if comparison["interval_remark"]:
        note = f"{comparison['interval_remark']}. {note}"
    header = ("task", *names, "difference", "p", "corrected", "resolvable", "verdict")
    return Table(header, tuple(rows), title, note, words=("verdict",))
