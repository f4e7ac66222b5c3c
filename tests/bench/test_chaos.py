"""Interrupted anywhere, every command goes on to what it would have been: the short form of `make chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import KINDS, count_lost, is_close, kind_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_interruptions_in_every_stage_cost_nothing(tmp_path):
    command = [sys.executable, "tests/support/chaos.py", "--interruptions", os.environ.get("CHAOS_N", "20")]
    done = subprocess.run(
        [*command, "--seed", "20", "--out", str(tmp_path / "chaos.json")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads((tmp_path / "chaos.json").read_text(encoding="utf-8"))
    assert result["n"] >= 20 and result["rows_lost"] == result["rows_twice"] == 0 and not result["faults"]
    assert result["identical"] + result["last_digits"] + result["smaller_batch"] == result["trials"]
    assert len(result["stages"]) >= 10, "a stage was left out"


@pytest.mark.parametrize("places", [1, 2, 3, 4, 13])
def test_every_place_gets_every_kind(places):
    for place in range(places):
        assert {kind_of(number, places) for number in range(place, 4 * places, places)} == set(KINDS)


def test_what_is_lost_or_twice_is_counted():
    row = {n: json.dumps({"document": f"d{n}", "task": "diseases", "completion": "- a"}) for n in range(3)}
    whole = {"c": [row[0], row[1], row[2]]}
    assert count_lost({"c": [row[0]]}, whole, whole) == (0, 0)
    assert count_lost({"c": [row[0]]}, {"c": [row[1], row[2]]}, whole) == (2, 0)  # kept and not there; due and not there
    assert count_lost({}, {"c": [row[0], row[0], row[1], row[2]]}, whole) == (0, 1)
    changed = row[0].replace("- a", "- b")
    assert count_lost({"c": [row[0]]}, {"c": [changed, row[1], row[2]]}, whole) == (1, 0)


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        (b'{"p": -1.996429204940796}', b'{"p": -1.9964282512664795}', True),
        (b'{"p": -1.996429204940796}', b'{"p": -1.9954282512664795}', False),
        (b'{"f1": 0.5}', b'{"f1": 0.4}', False),
        (b'{"text": "a"}', b'{"text": "b"}', False),
        (b"a", None, False),
    ],
)
def test_only_late_digits_of_long_numbers_count_as_close(one, other, close):
    assert is_close(one, other) is close
