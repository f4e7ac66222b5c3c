"""What is in a corpus (duplicates, empties, conflicts, names not in the text, lengths), and whether its split leaks.

Reads documents, imports no model code; token lengths come from the `tokenizers` package alone, with a tokenizer.json that the
caller names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.corpus import Corpus, read_corpus
from data.items import names_of, share
from data.leaks import EXAMPLES, find_leaks, row_level_leaks, seen_names
from data.near_duplicates import near_duplicates
from data.prompts import answer_of, render_prompt
from data.readers.rows import Row, conflicting_rows, repeated_rows
from data.schema import MENTION_TYPE, SPLITS, TASKS, Document, InputError, JsonObject
from data.split import split_documents
from data.table import Table, as_text, join_blocks, printable
from data.text import FoldedText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 1000  # texts that are tokenised at a time, whose tokens are all in memory


def audit_path(path: str | Path, seed: int, tokenizer: Path | None = None) -> JsonObject:
    """Audit a corpus file (split here, with the project's split), a folder with train/validation/test.jsonl, or a run."""
    path = Path(path)
    if not path.is_dir():
        corpus = read_corpus(path)
        split = split_documents(corpus.documents, seed)
        return audit_split(split, rows=corpus.rows, tokenizer=tokenizer, given=False, seed=seed)
    return audit_folder(path / "data" if (path / "manifest.json").exists() else path, seed, tokenizer)


def audit_folder(folder: Path, seed: int, tokenizer: Path | None = None) -> JsonObject:
    """As `audit_split`, of a folder with train.jsonl, validation.jsonl and test.jsonl. Raises InputError if one is missing."""
    missing = [name for name in SPLITS if not (folder / f"{name}.jsonl").exists()]
    if missing:
        raise InputError(f"{folder}: neither a run nor a folder with a given split; missing {missing[0]}.jsonl")
    corpora = {name: read_corpus(folder / f"{name}.jsonl") for name in SPLITS}
    return audit_corpora(corpora, seed, tokenizer)


def audit_corpora(corpora: Mapping[str, Corpus], seed: int, tokenizer: Path | None = None) -> JsonObject:
    """Audit a split that the user gave, one corpus a split."""
    split = {name: list(corpora[name].documents) for name in SPLITS}
    rows = [row for name in SPLITS for row in corpora[name].rows]
    return audit_split(split, rows=rows, tokenizer=tokenizer, given=True, seed=seed)


def audit_split(
    split: Mapping[str, Sequence[Document]],
    *,
    rows: Sequence[Row],
    given: bool,
    seed: int,
    tokenizer: Path | None = None,
) -> JsonObject:
    """All the audit's figures as one JSON object. `leaks` says if the split leaks; without a tokenizer "tokens" is None."""
    documents = [document for name in SPLITS for document in split[name]]
    pairs = near_duplicates(document.article for document in documents)
    conflicts = conflicting_rows(rows)
    return {
        "documents": len(documents),
        "rows": len(rows) or sum(len(document.tasks) for document in documents),
        "split": {name: {"documents": len(split[name]), "rows": sum(len(d.tasks) for d in split[name])} for name in SPLITS},
        "given_split": given,
        "tasks": {task: count_task(documents, task) for task in TASKS},
        "duplicates": {"rows": repeated_rows(rows), "near_duplicate_articles": len(pairs)},
        "conflicts": {"rows": len(conflicts), "examples": [f"{where} {task}" for where, task in conflicts[:EXAMPLES]]},
        "not_in_text": names_not_in_text(documents),
        "letter_case_duplicates": letter_case_duplicates(documents),
        "tokens": count_tokens(documents, read_tokenizer(tokenizer), tokenizer.parent.name) if tokenizer else None,
        "seen": {task: seen_names(split, task) for task in TASKS},
        "leaks": find_leaks(split, pairs),
        "row_level_split": row_level_leaks(rows, seed) if rows else None,
    }


def count_task(documents: Sequence[Document], task: str) -> JsonObject:
    """{"answers", "items", "empty"}: how many answers a task has, their items, and how many have none."""
    answers = [document.gold(task) for document in documents if task in document.tasks]
    return {"answers": len(answers), "items": sum(map(len, answers)), "empty": sum(not answer for answer in answers)}


def names_not_in_text(documents: Sequence[Document]) -> JsonObject:
    """By task, gold items of which a name is no whole word of the article: what no verbatim reader can find."""
    missing: dict[str, list[str]] = {task: [] for task in TASKS}
    items = Counter[str]()
    for document in documents:
        text = FoldedText(document.article)
        found = {name: bool(text.spans(name)) for task in TASKS for item in document.gold(task) for name in names_of(item)}
        for task in TASKS:
            items[task] += len(document.gold(task))
            lost = [item for item in document.gold(task) if not all(found[name] for name in names_of(item))]
            missing[task] += [f"{document.id}: {' | '.join(names_of(item))}" for item in lost]
    return {
        task: {"items": items[task], "missing": len(missing[task]), "share": share(len(missing[task]), items[task]),
               "examples": missing[task][:EXAMPLES]}
        for task in TASKS
    }  # fmt: skip


def letter_case_duplicates(documents: Sequence[Document]) -> JsonObject:
    """Names that stand in one answer in a second letter case: one item for scoring, two lines for a model to write."""
    names = answers = 0
    for document in documents:
        for task in MENTION_TYPE:
            gold = document.gold(task)
            extra = len(gold) - len({name.casefold() for item in gold for name in names_of(item)})
            names += extra
            answers += extra > 0
    return {"names": names, "answers": answers}


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, for `--tokenizer`. Raises InputError where the path is none."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise InputError(f"--tokenizer {path}: {'is a directory' if path.is_dir() else 'no such file'}; give a tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no type of its own
        raise InputError(f"--tokenizer {path}: not a tokenizer.json: {error}") from None


def count_tokens(documents: Sequence[Document], tokenizer: Tokenizer, name: str) -> JsonObject:
    """Median, 99th percentile and maximum of prompt and completion, in tokens, without the chat template's own."""
    tokenizer.no_truncation()
    around = dict(zip(TASKS, count_each(tokenizer, [render_prompt("x", task) for task in TASKS]), strict=True))
    sizes = count_each(tokenizer, (document.article for document in documents))
    prompts = [size + around[task] - 1 for document, size in zip(documents, sizes, strict=True) for task in document.tasks]
    answers = count_each(tokenizer, (answer_of(d, task) for d in documents for task in d.tasks))
    return {"tokenizer": name, "prompt": summarise_lengths(prompts), "completion": summarise_lengths(list(answers))}


def count_each(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[int]:
    """The number of tokens of each text, without special tokens; encoded `BATCH` texts at a time."""
    left = iter(texts)
    while batch := list(itertools.islice(left, BATCH)):
        yield from (len(encoded.ids) for encoded in tokenizer.encode_batch(batch, add_special_tokens=False))


def summarise_lengths(numbers: Sequence[int]) -> JsonObject:
    """{"median", "p99", "max"} of numbers; zeros where there are none."""
    ordered = sorted(numbers) or [0]
    return {"median": ordered[len(ordered) // 2], "p99": ordered[int(0.99 * (len(ordered) - 1))], "max": ordered[-1]}


def render_audit(audit: JsonObject) -> str:
    """The audit for a terminal."""
    return join_blocks(
        [
            as_text(task_table(audit)),
            as_text(Table(("", ""), tuple(facts_of(audit)), words=("",))),
            describe_row_split(audit["row_level_split"]),
            "\n".join(render_leaks(audit["leaks"])),
        ]
    )


def task_table(audit: JsonObject) -> Table:
    """One row a task: answers, items, empty answers, and the shares of items not in the text and seen in train."""
    sizes = ", ".join(f"{name} {size['documents']:,}/{size['rows']:,}" for name, size in audit["split"].items())
    kind = "given" if audit["given_split"] else "by article"
    rows = tuple(
        (
            task,
            *(f"{counts[key]:,}" for key in ("answers", "items", "empty")),
            f"{audit['not_in_text'][task]['share']:.1%}",
            f"{audit['seen'][task]['seen_share']:.1%}",
        )
        for task, counts in audit["tasks"].items()
    )
    title = f"{audit['documents']:,} articles, {audit['rows']:,} rows; {sizes} articles/rows ({kind})"
    return Table(("task", "answers", "items", "empty", "not in text", "seen in train"), rows, title)


def facts_of(audit: JsonObject) -> Iterator[tuple[str, str]]:
    """(what, figure) of duplicates, conflicts, letter case and tokens, in words."""
    duplicates, case, tokens = audit["duplicates"], audit["letter_case_duplicates"], audit["tokens"]
    yield "duplicate rows", f"{duplicates['rows']:,}"
    yield "near-duplicate articles", f"{duplicates['near_duplicate_articles']:,} (of an earlier one)"
    yield "conflicting rows", f"{audit['conflicts']['rows']:,} (their union is used)"
    yield "second letter case", f"{case['names']:,} names in {case['answers']:,} answers"
    for part in ("prompt", "completion") if tokens else ():
        of = tokens[part]
        yield f"{part} tokens", f"median {of['median']}, 99% {of['p99']}, max {of['max']} ({tokens['tokenizer']})"


def describe_row_split(rows: JsonObject | None) -> str:
    """What a split by rows would leak, in words; "" for a corpus that has no rows."""
    if not rows:
        return ""
    known = ", ".join(f"{share:.0%} of {task}" for task, share in rows["answer_in_train_completion"].items())
    return (
        f"a split by rows would leak {rows['article_in_train']:,} of {rows['test_rows']:,} test rows' articles into train,\n"
        f"with {known} standing in a train completion of the same article"
    )


def render_leaks(leaks: JsonObject) -> list[str]:
    """Whether the split leaks and what, in lines for a terminal."""
    if not leaks["leaking"]:
        return ["no leak between splits"]
    answers = ", ".join(f"{count} {task} ({leaks['answer_shares'][task]:.0%})" for task, count in leaks["answers"].items())
    return [
        f"LEAKS: {leaks['articles']} articles stand, as they are or nearly, in an earlier split too",
        f"test answers whose names stand in a train completion of such an article: {answers}",
        *(f"  {printable(example)}" for example in leaks["examples"]),
    ]
