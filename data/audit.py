"""What is in a corpus, and whether its split leaks: duplicates, empties, conflicts, names not in the text, lengths, leaks.

A leak is an article or near-duplicate in two splits, or an answer standing in a train completion of the same article.
Shares of seen and unseen names are reported and never fail. Reads documents, imports no model code; token lengths come from
the `tokenizers` package alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.corpus import Corpus, read_corpus
from data.items import names_of, normalise_item, share
from data.prompts import render_answer, render_prompt
from data.readers.rows import Row, conflicting_rows, repeated_rows
from data.schema import MENTION_TYPE, SPLITS, TASKS, Document, InputError
from data.split import near_duplicates, row_level_split, split_documents
from data.table import Table, as_text, join_blocks
from data.text import FoldedText, normalise

EXAMPLES = 5
TINY_TOKENIZER = Path(__file__).parent.parent / "pipeline" / "tiny" / "tokenizer.json"


def audit_path(path: str | Path, seed: int, tokenizer: Path = TINY_TOKENIZER) -> dict:
    """Audit a corpus file (split here, with the project's split), a folder with train/validation/test.jsonl, or a run."""
    path = Path(path)
    if not path.is_dir():
        corpus = read_corpus(path)
        split = split_documents(corpus.documents, seed)
        return audit_split(split, rows=corpus.rows, tokenizer=tokenizer, given=False, seed=seed)
    return audit_folder(path / "data" if (path / "manifest.json").exists() else path, seed, tokenizer)


def audit_folder(folder: Path, seed: int, tokenizer: Path = TINY_TOKENIZER) -> dict:
    missing = [name for name in SPLITS if not (folder / f"{name}.jsonl").exists()]
    if missing:
        raise InputError(f"{folder}: neither a run nor a folder with a given split; missing {missing[0]}.jsonl")
    corpora = {name: read_corpus(folder / f"{name}.jsonl") for name in SPLITS}
    return audit_corpora(corpora, seed, tokenizer)


def audit_corpora(corpora: Mapping[str, Corpus], seed: int, tokenizer: Path = TINY_TOKENIZER) -> dict:
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
    tokenizer: Path = TINY_TOKENIZER,
) -> dict:
    """All the audit's figures as one JSON object; `leaks` holds the verdict."""
    documents = [document for name in SPLITS for document in split[name]]
    pairs = near_duplicates([document.article for document in documents])
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
        "tokens": count_tokens(documents, tokenizer),
        "seen": {task: seen_names(split, task) for task in TASKS},
        "leaks": find_leaks(split, pairs),
        "row_level_split": row_level_leaks(rows, seed) if rows else None,
    }


def count_task(documents: Sequence[Document], task: str) -> dict:
    answers = [document.gold(task) for document in documents if task in document.tasks]
    return {"answers": len(answers), "items": sum(map(len, answers)), "empty": sum(not answer for answer in answers)}


def names_not_in_text(documents: Sequence[Document]) -> dict:
    """By task, gold items of which a name is no whole word of the article: what no verbatim reader can find."""
    missing: dict[str, list[str]] = {task: [] for task in TASKS}
    items = Counter()
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


def letter_case_duplicates(documents: Sequence[Document]) -> dict:
    """Names that stand in one answer in a second letter case: one item for scoring, two lines for a model to write."""
    names = answers = 0
    for document in documents:
        for task in MENTION_TYPE:
            gold = document.gold(task)
            extra = len(gold) - len({name.casefold() for name in gold})
            names += extra
            answers += extra > 0
    return {"names": names, "answers": answers}


def count_tokens(documents: Sequence[Document], tokenizer: Path) -> dict | None:
    """Median, 99th percentile and maximum of prompt and completion, in tokens, without the chat template's own."""
    if not tokenizer.exists():
        return None
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.no_truncation()
    pairs = [(d.article, task, d.gold(task)) for d in documents for task in d.tasks]
    articles = [document.article for document in documents]
    length = {a: len(e.ids) for a, e in zip(articles, encoder.encode_batch(articles, add_special_tokens=False), strict=True)}
    around = {task: len(encoder.encode(render_prompt("x", task), add_special_tokens=False).ids) - 1 for task in TASKS}
    answers = encoder.encode_batch([render_answer(gold) for _, _, gold in pairs], add_special_tokens=False)
    return {
        "tokenizer": tokenizer.parent.name,
        "prompt": describe([length[article] + around[task] for article, task, _ in pairs]),
        "completion": describe([len(answer.ids) for answer in answers]),
    }


def describe(numbers: Sequence[int]) -> dict:
    ordered = sorted(numbers) or [0]
    return {"median": ordered[len(ordered) // 2], "p99": ordered[int(0.99 * (len(ordered) - 1))], "max": ordered[-1]}


def seen_names(split: Mapping[str, Sequence[Document]], task: str) -> dict:
    """How many of the test split's items stand somewhere in train's gold, as scoring compares them."""
    train = {normalise_item(item) for document in split["train"] for item in document.gold(task)}
    test = [normalise_item(item) for document in split["test"] for item in document.gold(task)]
    seen = sum(item in train for item in test)
    return {"test_items": len(test), "seen": seen, "unseen": len(test) - seen, "seen_share": share(seen, len(test))}


def find_leaks(split: Mapping[str, Sequence[Document]], pairs: Sequence[tuple[int, int]]) -> dict:
    """Which of the pairs of near-duplicates, the same article included, stand in two splits; and the answers that leak.

    `pairs` are indices into the documents of train, validation and test, in that order.
    `answers` counts the test items that stand in a train answer of the same article or a near-duplicate of it.
    """
    placed = [(name, document) for name in SPLITS for document in split[name]]
    across = [(placed[i], placed[j]) for i, j in pairs if placed[i][0] != placed[j][0]]
    answers = Counter()
    for one, other in across:
        for (name, document), (twin_name, twin) in ((one, other), (other, one)):
            if name == "test" and twin_name == "train":
                known = {normalise_item(item) for task in TASKS for item in twin.gold(task)}
                answers.update({task: sum(normalise_item(item) in known for item in document.gold(task)) for task in TASKS})
    return {
        "leaking": bool(across),
        "articles": len(across),
        "answers": {task: answers[task] for task in TASKS},
        "examples": [f"{a.id} ({one}) ~ {b.id} ({other})" for (one, a), (other, b) in across[:EXAMPLES]],
    }


def row_level_leaks(rows: Sequence[Row], seed: int) -> dict:
    """What a split of the same file by rows would leak: test rows whose article is in train, and answers known from it."""
    names = row_level_split(len(rows), seed)
    known: dict[str, set[str]] = defaultdict(set)
    for row, name in zip(rows, names, strict=True):
        if name == "train":
            known[row.key].update(normalise(name) for item in row.items for name in names_of(item))
    test = [row for row, name in zip(rows, names, strict=True) if name == "test"]
    answers = {}
    for task in MENTION_TYPE:
        items = [(row.key, normalise(item)) for row in test if row.task == task for item in row.items]
        answers[task] = share(sum(item in known[key] for key, item in items if key in known), len(items))
    leaked = sum(row.key in known for row in test)
    return {"test_rows": len(test), "article_in_train": leaked, "answer_in_train_completion": answers}


def render_audit(audit: dict) -> str:
    """The audit for a terminal."""
    leaks = audit["leaks"]
    verdict = f"LEAKS: {leaks['articles']} pairs of articles across splits" if leaks["leaking"] else "no leak between splits"
    return join_blocks(
        [
            as_text(task_table(audit)),
            as_text(Table(("", ""), tuple(facts_of(audit)), words=("",))),
            describe_row_split(audit["row_level_split"]),
            "\n".join([verdict, *(f"  {example}" for example in leaks["examples"])]),
        ]
    )


def task_table(audit: dict) -> Table:
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


def facts_of(audit: dict) -> Iterator[tuple[str, str]]:
    duplicates, case, tokens = audit["duplicates"], audit["letter_case_duplicates"], audit["tokens"]
    yield "duplicate rows", f"{duplicates['rows']:,}"
    yield "near-duplicate articles", f"{duplicates['near_duplicate_articles']:,} pairs"
    yield "conflicting rows", f"{audit['conflicts']['rows']:,} (their union is used)"
    yield "second letter case", f"{case['names']:,} names in {case['answers']:,} answers"
    for part in ("prompt", "completion") if tokens else ():
        of = tokens[part]
        yield f"{part} tokens", f"median {of['median']}, 99% {of['p99']}, max {of['max']} ({tokens['tokenizer']})"


def describe_row_split(rows: dict | None) -> str:
    if not rows:
        return ""
    known = ", ".join(f"{share:.0%} of {task}" for task, share in rows["answer_in_train_completion"].items())
    return (
        f"a split by rows would leak {rows['article_in_train']:,} of {rows['test_rows']:,} test rows' articles into train,\n"
        f"with {known} standing in a train completion of the same article"
    )
