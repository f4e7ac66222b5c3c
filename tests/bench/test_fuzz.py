"""Broken files: each is read, or refused in one line that names it; nothing else comes out of a reader or the parser."""

from __future__ import annotations

import pytest

from bench.fuzz import READERS, feed, fuzz


@pytest.mark.slow
def test_mutated_files_and_answers_are_read_or_refused(tmp_path):
    counts, found = fuzz(1_800, 1, tmp_path)
    assert not found
    assert all(sum(outcomes.values()) == 200 and outcomes["read"] > 5 for outcomes in counts.values())


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


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("raw", CRASHED.values(), ids=CRASHED)
def test_what_crashed_a_reader_is_refused_in_one_line(tmp_path, kind, raw):
    # the official program reads bytes that are no UTF-8 as a replacement character, and so does its reader
    expected = "read" if kind == "official" and raw == CRASHED["Latin-1"] else "refused"
    if kind in ("official", "other systems") and raw == CRASHED["an offset of 5,000 digits"]:
        expected = "read"  # and passes over the line, which is counted
    assert feed(kind, raw, tmp_path / "documents.jsonl") == expected
