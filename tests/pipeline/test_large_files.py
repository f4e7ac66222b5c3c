"""Files of 100 MB in bounded memory: what reads a file as a stream needs no more for a large one; what has to hold a file whole
needs a few times its size.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from articles import SYLLABLES

MEASURE = """
import sys
from pathlib import Path
from data.corpus import read_corpus
from data.schema import TASKS
from pipeline.extract.command import extract_to_file
from pipeline.extract.extractor import Asked, Extractor
from pipeline.extract.texts import read_texts

def peak():  # getrusage's would count the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def engine(chats):
    for chat in chats:
        facts = {"document": chat.document.id, "finish": "stop", "logprobs": None}
        yield [facts | {"task": task, "completion": "- " + WORDS[task]} for task in chat.tasks]

WORDS = dict(chemicals="lithium", diseases="tremor", relations="lithium | tremor")
what, path = sys.argv[1:]
texts, before = read_texts([path], sys.stdin), peak()
if what == "extract":
    extractor = Extractor(engine, Asked("separate", dict.fromkeys(TASKS, 64)))
    number = extract_to_file(extractor, texts, Path(path + ".found.csv"), "csv", {})["documents"]
elif what == "corpus":
    number = len(read_corpus(path).documents)
else:
    number = sum(1 for _ in texts)
print(number, peak() - before)
"""
MB = 1_000_000


def invented_texts() -> Iterator[tuple[int, str, str, list[tuple[str, int, int, str]]]]:
    """Without end: number, title, text, and ten mentions (name, start, end, type), places counted from the title's start."""
    chance = random.Random(1)
    words = ["".join(chance.choices(SYLLABLES, k=3)) for _ in range(400)]
    texts = ["lithium tremor " + " ".join(chance.choices(words, k=190)) + "." for _ in range(50)]
    for number in itertools.count():
        title, text, mentions = f"Article {number}", texts[number % 50], []
        at = len(title) + 1
        for place, name in enumerate(text.split(" ")[:10]):
            mentions.append((name, at, at + len(name), "Chemical" if place % 2 else "Disease"))
            at += len(name) + 1
        yield number, title, text, mentions


def json_row(number, title, text, _):
    return json.dumps({"id": number, "title": title, "text": text}) + "\n"


def csv_row(number, title, text, _):
    return f'{number},"{title}","{text}"\n'


def pubtator_block(number, title, text, mentions):
    lines = [f"{number}\t{start}\t{end}\t{name}\t{kind}\tD{start:06d}" for name, start, end, kind in mentions]
    return "\n".join([f"{number}|t|{title}", f"{number}|a|{text}", *lines]) + "\n\n"


def bioc_document(number, title, text, mentions):
    def passage(kind, offset, content, annotations=""):
        start = f'<passage><infon key="type">{kind}</infon><offset>{offset}</offset>'
        return f"{start}<text>{content}</text>{annotations}</passage>"

    annotations = "".join(
        f'<annotation id="{start}"><infon key="type">{kind}</infon><infon key="MESH">D{start}</infon>'
        f'<location offset="{start}" length="{end - start}"/><text>{name}</text></annotation>'
        for name, start, end, kind in mentions
    )
    own = passage("title", 0, title) + passage("abstract", len(title) + 1, text, annotations)
    return f"<document><id>{number}</id>{own}</document>\n"


def bioc_json_document(number, title, text, mentions):
    annotations = [
        {"text": name, "infons": {"type": kind}, "locations": [{"offset": start, "length": end - start}]}
        for name, start, end, kind in mentions
    ]
    row = {"id": str(number), "passages": [{"text": title}, {"text": text, "annotations": annotations}]}
    return ("," if number else "") + json.dumps(row)


def instruct_rows(number, title, text, mentions):
    names = [name for name, *_ in mentions]
    answers = {"chemicals": names[1::2], "diseases": names[::2], "influences": [f"{names[1]} | {names[0]}"]}
    asked = f"List.\n\n{title}\n{text}\n\nList of extracted"
    rows = [{"prompt": f"{asked} {task}:\n", "completion": "- " + "\n- ".join(own)} for task, own in answers.items()]
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, size: int, render: Callable[..., str], head: str = "", tail: str = "") -> int:
    """A file of `size` bytes and a little; returns how many texts it holds."""
    written, number = 0, 0
    with path.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, *rest in invented_texts():
            written += file.write(render(number, *rest))
            if written > size:
                break
        file.write(tail)
    return number + 1


def measure(what: str, path: Path) -> tuple[int, float]:
    """How many documents were read, and by how many MiB the process grew at most."""
    done = subprocess.run([sys.executable, "-c", MEASURE, what, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    number, grown = done.stdout.split()
    return int(number), float(grown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "name", "render", "head", "tail"),
    [
        ("extract", "a.jsonl", json_row, "", ""),
        ("texts", "a.csv", csv_row, "id,title,text\n", ""),
        ("texts", "a.pubtator", pubtator_block, "", ""),
        ("texts", "a.xml", bioc_document, "<collection>", "</collection>"),
    ],
)
def test_a_file_of_100_mb_is_read_as_a_stream(tmp_path, what, name, render, head, tail):
    """`medner extract` holds the ids of what it read and its last 10,000 results, for a text that comes again."""
    path = tmp_path / name
    texts = write(path, 100 * MB, render, head, tail)
    number, grown = measure(what, path)
    assert number == texts and path.stat().st_size >= 100 * MB
    assert grown < (110 if what == "extract" else 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "name", "render", "head", "tail", "times"),
    [
        ("corpus", "a.pubtator", pubtator_block, "", "", 4),
        ("corpus", "a.xml", bioc_document, "<collection>", "</collection>", 4),
        ("corpus", "a.jsonl", instruct_rows, "", "", 4),
        ("texts", "a.json", bioc_json_document, '{"documents": [', "]}", 4),
    ],
)
def test_what_holds_a_whole_file_takes_a_few_times_its_size(tmp_path, what, name, render, head, tail, times):
    path = tmp_path / name
    texts = write(path, 20 * MB, render, head, tail)
    number, grown = measure(what, path)
    assert number == texts
    assert grown < times * 20 + 10
