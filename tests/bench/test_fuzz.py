"""Broken files: each is read, or refused in one line that names it; nothing else comes out of a reader or the parser."""

from __future__ import annotations

import os

import pytest

from bench.fuzz import DOCUMENT, NAMES, READERS, feed, fuzz
from data.readers.pubtator import render_document
from pipeline.cli import main


@pytest.mark.slow
def test_mutated_files_and_answers_are_read_or_refused(tmp_path):
    inputs = int(os.environ.get("FUZZ_N", 200 * (len(READERS) + 1)))
    counts, found = fuzz(inputs, 1, tmp_path)
    assert not found
    assert sum(sum(outcomes.values()) for outcomes in counts.values()) == inputs
    assert all(outcomes["read"] > 5 for outcomes in counts.values())


CRASHED = {
    "a byte-order mark alone": b"\xef\xbb\xbf",
    "white space alone": " \u2003\n\u00a0\x1c".encode(),
    "a quote out of place in a header": b'document,task,"item\n7,chemicals,Zol\n',
    "a quoted header that hides its columns": b'"document,task,item\n",x\n7,chemicals\n',
    "a number of 5,000 digits": b'{"prompt": ' + b"9" * 5000 + b"}\n",
    "an offset of 5,000 digits": b"7|t|Zol\n7|a|Zol\n7\t0\t" + b"9" * 5000 + b"\tZol\tChemical\tC1\n",
    "JSON nested deeply": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "a number for an item": b'{"document": "7", "task": "chemicals", "items": [1]}\n',
    "nothing for an item": b'{"document": "7", "task": "chemicals", "items": [null]}\n',
    "a list for a document": b'{"document": ["7"], "task": "chemicals", "items": []}\n',
    "a list for a task": b'{"document": "7", "task": ["chemicals"], "items": []}\n',
    "control characters alone": b"\x17",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "zip": b"PK\x03\x04....",
    "a NUL byte": b"7|t|Z\x00l\n7|a|Zol\n",
    "UTF-16": "7|t|Zol\n7|a|Zol\n".encode("utf-16"),
    "Latin-1": b"7|t|Z\xf6l\n7|a|Zol\n",
    "XML nested deeply": b"<collection><document>" + b"<a>" * 200_000,
}


CORPORA = [kind for kind in READERS if kind not in NAMES and kind not in ("completions", "extracted")]
OWN = {
    ("completions", "a row that answers nothing"): b'{"document": "7", "task": "chemicals", "finish": "stop"}\n',
    ("completions", "a list for a document"): b'{"document": ["7"], "task": "chemicals", "completion": "", "finish": "stop"}\n',
    ("completions", "an answer twice"): b'{"document": "7", "task": "chemicals", "completion": "", "finish": "stop"}\n' * 2,
    ("completions", "a log-probability of 400 digits"): b'{"document": "7", "task": "chemicals", "completion": "a", '
    b'"finish": "stop", "logprobs": [["a", ' + b"9" * 400 + b"]]}\n",
    ("extracted", "bytes that are no UTF-8"): b'{"id": "7\x8b"}\n',
    ("extracted", "a list for an id"): b'{"id": [], "text": "a"}\n',
    ("extracted", "half of a surrogate pair"): b'{"id": "7", "text": "\\ud800"}\n',
    ("extracted", "JSON nested deeply"): b"[" * 100_000 + b"\n",
    ("manifest", "a text for its stages"): b'{"stages": "train", "data_sha256": "0"}',
    ("manifest", "a list for its format"): b'{"stages": {}, "data_sha256": "0", "format": [1]}',
    ("manifest", "a version of 5,000 digits"): b'{"stages": {}, "data_sha256": "0", "medner": "' + b"9" * 5000 + b'"}',
    ("manifest", "JSON nested deeply"): b"[" * 100_000,
    ("provenance", "JSON nested deeply"): b"[" * 100_000,
    ("settings", "YAML nested deeply"): b"[" * 3_000,
    ("settings", "an escape"): b"model:\n  name: \x1b[31m\n",
    ("settings", "a number of 5,000 digits"): b"train:\n  seed: " + b"9" * 5000,
    ("settings", "a date that there is not"): b"train:\n  seed: 2026-99-99\n",
    ("settings", "a value of 5,000 letters"): b"train:\n  layout: " + b"a" * 5000,
    ("texts.csv", "a header of 5,000 letters"): b"id," + b"a" * 5000 + b"\n7,x\n",
}


@pytest.mark.parametrize(("kind", "raw"), [(kind, raw) for (kind, _), raw in OWN.items()], ids=map(": ".join, OWN))
def test_what_crashed_a_reader_of_a_runs_own_files_is_refused_in_one_line(tmp_path, kind, raw):
    assert feed(kind, raw, tmp_path / "documents.jsonl") == "refused"


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize("raw", CRASHED.values(), ids=CRASHED)
def test_what_crashed_a_reader_is_refused_in_one_line(tmp_path, kind, raw):
    # the official program reads bytes that are no UTF-8 as a replacement character, and so does its reader
    expected = "read" if kind == "official" and raw == CRASHED["Latin-1"] else "refused"
    if kind in ("official", "other systems") and raw == CRASHED["an offset of 5,000 digits"]:
        expected = "read"  # and passes over the line, which is counted
    assert feed(kind, raw, tmp_path / "documents.jsonl") == expected


@pytest.mark.parametrize("raw", CRASHED.values(), ids=CRASHED)
def test_the_command_line_says_it_in_one_line_and_ends_with_2(tmp_path, capsys, raw):
    gold, broken = tmp_path / "gold.PubTator", tmp_path / "broken.jsonl"
    gold.write_text(render_document(DOCUMENT), encoding="utf-8")
    broken.write_bytes(raw)
    run = ["run", "--preset", "tiny", "--data", str(broken), "--out", str(tmp_path / "run")]
    commands = [["data", "audit", str(broken)], run]
    if raw != CRASHED["an offset of 5,000 digits"]:  # whose line is passed over, and counted
        commands.append(["score", str(gold), str(broken)])
    for command in commands:
        assert main(command) == 2, command
        said = capsys.readouterr().err
        assert str(broken) in said and said.count("\n") == 1 and len(said) < 1500, said
