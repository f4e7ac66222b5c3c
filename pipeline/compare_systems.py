"""`medner compare RUN`: every system that answered a run's articles in one table, and which baseline each is ahead of.

Systems are the dictionary and the CRF, taught on train; the untuned model, read leniently; the adapter, and its answers without
items that are repeated or not in the article; each variant that `medner evaluate` has asked; and these with train's names
where they lack them, as `medner extract --known-names` adds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.schema import TASKS, Document, InputError, JsonObject
from data.split import read_split_folder
from data.table import NONE, Table, as_text, percent
from eval.report.tables import with_interval
from eval.scoring.baselines import Dictionary, baseline_predictions, learn_dictionary
from eval.scoring.compare import LEVEL
from eval.scoring.crf import open_crf, predict_with_crf
from eval.scoring.faults import filter_predictions
from eval.scoring.known_names import add_known_names
from eval.scoring.lenient import parse_leniently
from eval.scoring.logprobs import has_answers, read_completions
from eval.scoring.parse import Predictions, parse_completions, read_predictions
from eval.scoring.score import Scored, match_answers, match_others, score_answers
from eval.scoring.stats import compare_counts, remark_on
from pipeline.run_folder import RunFolder

DICTIONARY, CRF, UNTUNED, TUNED, FILTERED = "dictionary", "CRF", "untuned model", "adapter", "adapter, filtered"
BASELINES = (DICTIONARY, CRF)
GROUNDED = "grounded"  # the folder of that variant, where it is not what the settings ask for
KNOWN = ", known names"  # behind the name of a system that got them


def compare_systems(run: RunFolder, split: str) -> tuple[JsonObject, str]:
    """What `describe_systems` gives, and its table. Raises InputError where the run has not been evaluated."""
    comparison = describe_systems(match_systems(run, split))
    return comparison, as_text(systems_table(comparison, split))


def describe_systems(scored: Mapping[str, Scored]) -> JsonObject:
    """{"documents", "interval_remark", "level", "systems": {name: {"tasks", "micro", "rates", "against"}}}.

    "against": by baseline, as `stats.compare_counts` gives it, the baseline first.
    """
    described: dict[str, JsonObject] = {}
    for name, own in scored.items():
        figures = score_answers(own)
        described[name] = {key: figures[key] for key in ("tasks", "micro", "rates")}
        if name not in BASELINES:
            described[name]["against"] = {
                baseline: compare_counts(scored[baseline].counts, own.counts) for baseline in BASELINES if baseline in scored
            }
    count = len(scored[DICTIONARY].documents)
    return {"documents": count, "interval_remark": remark_on(count), "level": LEVEL, "systems": described}


def match_systems(run: RunFolder, split: str) -> dict[str, Scored]:
    """By name, the answers of each system beside gold. Raises InputError where the run has not been evaluated."""
    parts = read_split_folder(run.path / "data")
    dictionary, scored = learn_dictionary(parts["train"]), {}
    for name, predictions in find_systems(run, split, parts[split], dictionary).items():
        scored[name] = match_answers(parts[split], predictions)
        if name == TUNED:
            scored[FILTERED] = match_others(scored[TUNED], filter_predictions(scored[TUNED]))
        if name not in (DICTIONARY, UNTUNED):
            mended = FILTERED if name == TUNED else name
            added = add_known_names(scored[mended], dictionary)
            scored[f"{mended}{KNOWN}"] = match_others(scored[mended], added)
    return scored


def find_systems(
    run: RunFolder, split: str, documents: Sequence[Document], dictionary: Dictionary
) -> dict[str, Predictions]:
    """By name, the answers of each system that answered all tasks. Raises InputError where the run has not been evaluated."""
    place = run.path / "eval" / split
    if not (place / "predictions.jsonl").is_file():
        raise InputError(f"{place}: no answers there; evaluate it first: medner evaluate {run.path} --split {split}")
    systems = {DICTIONARY: baseline_predictions(dictionary, documents, "dictionary")}
    crf = run.path / "eval" / "crf.crfsuite"
    if crf.is_file():
        systems[CRF] = predict_with_crf(open_crf(crf), documents)
    base = place / "base" / "completions.jsonl"
    if has_answers(base):
        systems[UNTUNED] = parse_completions(read_completions(base), parse_leniently)
    systems[GROUNDED if run.settings.eval.grounded else TUNED] = read_predictions(place / "predictions.jsonl")
    for path in sorted(place.glob("*/predictions.jsonl")):
        if path.parent.name != "base":
            systems[path.parent.name] = read_predictions(path)
    asked = {(document.id, task) for document in documents for task in document.tasks}
    return {name: answers for name, answers in systems.items() if asked <= answers.keys()}


def systems_table(comparison: JsonObject, split: str) -> Table:
    """F1 of each system by task with its interval, its faults, and the tasks in which it is ahead of a baseline."""
    rows, baselines = [], [name for name in BASELINES if name in comparison["systems"]]
    tasks = [task for task in TASKS if task in comparison["systems"][DICTIONARY]["tasks"]]
    for name, system in comparison["systems"].items():
        figures = [with_interval(system["tasks"][task]["f1"], system["tasks"][task]["ci95"]) for task in tasks]
        rates = [percent(system["rates"][kind]) for kind in ("duplicate", "truncated")]
        against = system.get("against", {})
        ahead = [", ".join(ahead_in(against[one], comparison["level"])) or NONE if against else "" for one in baselines]
        rows.append((name, *figures, percent(system["micro"]["f1"]), *rates, *ahead))
    columns = tuple(f"ahead of {name} in" for name in baselines)
    header = ("system", *tasks, "micro", "repeated", "truncated", *columns)
    remark = comparison["interval_remark"] + ". " if comparison["interval_remark"] else ""
    note = (
        f"{remark}95 % intervals over articles. filtered: without items that are repeated or not in the article. "
        "known names: with names of train that stand in the article and the answer lacks. "
        "repeated: of items; truncated: of answers. ahead: the tasks in which a paired test "
        f"finds more F1, its p corrected for the rows tested at once under {comparison['level']}."
    )
    title = f"{split}: F1 on the same {comparison['documents']:,} articles, percent"
    return Table(header, tuple(rows), title, note, words=columns)


def ahead_in(compared: Mapping[str, Mapping], level: float) -> list[str]:
    """The tasks in which the second system has more F1 than the first by more than chance."""
    ahead = {task for task, row in compared.items() if row["difference"] > 0 and row["p_corrected"] < level}
    return [task for task in TASKS if task in ahead]
