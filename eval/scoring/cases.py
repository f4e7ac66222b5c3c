"""Five short articles that any trained model should read rightly: a smoke check, not a score.

One each for chemicals, diseases, one relation, several relations, and all three together. The texts are invented; the names
are well known, so that a failure points at prompt, template or adapter rather than at knowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.items import index_items, show
from data.schema import Document, JsonObject, Mention, Relation
from data.table import Table, as_text
from eval.scoring.parse import Answer


@dataclass(frozen=True)
class Case:
    """An article with its gold; the document's tasks are those that the case asks."""

    name: str
    document: Document


def invent_case(
    name: str, text: str, *, tasks: Sequence[str], chemicals: Sequence[str] = (), diseases: Sequence[str] = (),
    relations: Sequence[tuple[str, str]] = (),
) -> Case:  # fmt: skip
    """A case of one sentence; `chemicals`, `diseases` and `relations` are its gold, `tasks` what is asked."""
    mentions = [Mention(c, "Chemical") for c in chemicals] + [Mention(d, "Disease") for d in diseases]
    document = Document(
        id=f"case: {name}",
        text=text,
        mentions=tuple(mentions),
        relations=tuple(Relation(*pair) for pair in relations),
        tasks=tuple(tasks),
    )
    return Case(name, document)


CASES = (
    invent_case(
        "chemicals",
        "Patients were given metformin, and later insulin glargine was replaced by glibenclamide for twelve weeks.",
        chemicals=("metformin", "insulin glargine", "glibenclamide"),
        tasks=("chemicals",),
    ),
    invent_case(
        "diseases",
        "Both brothers had asthma and atopic dermatitis; their father was treated for hypertension.",
        diseases=("asthma", "atopic dermatitis", "hypertension"),
        tasks=("diseases",),
    ),
    invent_case(
        "one relation",
        "Peptic ulcer developed in four patients who took aspirin every day.",
        chemicals=("aspirin",),
        diseases=("Peptic ulcer",),
        relations=(("aspirin", "Peptic ulcer"),),
        tasks=("relations",),
    ),
    invent_case(
        "several relations",
        "Lithium caused tremor and hypothyroidism in our patients. Hearing loss was induced by cisplatin.",
        chemicals=("Lithium", "cisplatin"),
        diseases=("tremor", "hypothyroidism", "Hearing loss"),
        relations=(("Lithium", "tremor"), ("Lithium", "hypothyroidism"), ("cisplatin", "Hearing loss")),
        tasks=("relations",),
    ),
    invent_case(
        "all together",
        "A woman with epilepsy was treated with carbamazepine and developed hyponatremia. Carbamazepine-induced hyponatremia "
        "resolved when the drug was stopped.",
        chemicals=("carbamazepine",),
        diseases=("epilepsy", "hyponatremia"),
        relations=(("carbamazepine", "hyponatremia"),),
        tasks=("chemicals", "diseases", "relations"),
    ),
)


def check_cases(answer: Callable[[Document, str], Answer]) -> list[JsonObject]:
    """Ask each case's tasks of `answer(document, task)`; one row a case and task.

    {"case", "task", "passed", "expected", "predicted", "missed", "wrong", "status"}. Passed: every gold item and no other,
    as scoring compares them. What `answer` raises is a failure of the program and goes on up.
    """
    return [check_case(case, task, answer(case.document, task)) for case in CASES for task in case.document.tasks]


def check_case(case: Case, task: str, answer: Answer) -> JsonObject:
    """{"case", "task", "passed", "expected", "predicted", "missed", "wrong", "status"} of one answer; names are normalised."""
    gold, predicted = index_items(case.document.gold(task)), index_items(answer.items)
    missed = [item for key, item in gold.items() if key not in predicted]
    wrong = [item for key, item in predicted.items() if key not in gold]
    return {
        "case": case.name,
        "task": task,
        "passed": not missed and not wrong,
        "expected": list(gold.values()),
        "predicted": list(answer.items),
        "missed": missed,
        "wrong": wrong,
        "status": answer.status,
    }


def render_cases(rows: Sequence[JsonObject]) -> str:
    """For a terminal: what passed, and what failed with what was missed and what was wrong."""
    passed = sum(row["passed"] for row in rows)
    lines = tuple(("pass" if row["passed"] else "FAIL", row["case"], row["task"], _reason(row)) for row in rows)
    header = ("", "case", "task", "at fault")
    return as_text(Table(header, lines, f"{passed} of {len(rows)} passed", words=header))


def _reason(row: JsonObject) -> str:
    parts = [] if row["status"] in ("ok", "empty") else [f"answer {row['status']}"]
    parts += [f"missed {', '.join(map(show, row['missed']))}"] if row["missed"] else []
    parts += [f"wrong {', '.join(map(show, row['wrong']))}"] if row["wrong"] else []
    return "; ".join(parts)
