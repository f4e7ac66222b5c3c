"""`medner extract` as its users start it, with a real llama.cpp: how soon it answers, that killing it loses nothing, and that
what it wrote is read back with every place exact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from articles import invent
from hard_strings import HARD
from known_names import ASKED, answer
from tiny_gguf import make_tiny_gguf

from bench import extraction
from bench.extraction import check, inexact_places
from data.readers.pubtator import read_pubtator
from data.schema import Document
from pipeline.cli import main
from pipeline.extract.extractor import Extractor

FILES = Path(__file__).parents[1] / "files"
MEDNER = (sys.executable, "-m", "pipeline.cli", "extract")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("model"))


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen([*MEDNER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_first_answer_takes_less_than_five_seconds_of_the_processor(gguf):
    before = os.times()
    job = start("--model", gguf, "Lithium caused tremor in two patients.", "--json")
    out, said = job.communicate()
    after = os.times()
    assert job.returncode == 0, said
    assert len(json.loads(out)["documents"]) == 1
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 5, "imports, loading and answering"


def test_the_filters_are_offered_by_the_command(gguf, capsys):
    """What is not in the text is never listed, grounded or plain; a threshold leaves out, and --explain says how much."""
    text = "Zoltamine-induced gout came with berazepam, and norberazepam after it, in two of nine patients with hypertension."

    def found(*more: str) -> dict:
        assert main(["extract", text, "--model", str(gguf), "--json", *more]) == 0
        (document,) = json.loads(capsys.readouterr().out)["documents"]
        return document

    grounded, plain = found(), found("--plain")
    assert grounded["entities"] and "not in the text" not in grounded["dropped"]
    assert all(entity["spans"] for one in (grounded, plain) for entity in one["entities"])
    sure = sorted(entity["confidence"] for entity in grounded["entities"])
    above = found("--min-confidence", str(sure[-1]))
    assert [entity["confidence"] for entity in above["entities"]] == [one for one in sure if one >= sure[-1]]
    assert above["dropped"]["under the confidence"] > 0
    assert main(["extract", text, "--model", str(gguf), "--min-confidence", str(sure[-1]), "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "stands at " in shown and "under the confidence" in shown.splitlines()[-1]


def test_names_of_a_corpus_are_added_where_the_model_listed_none(gguf, tmp_path, capsys):
    text, corpus = "Gout came with berazepam, in two of nine patients with hypertension.", FILES / "invented.rows.jsonl"
    assert main(["extract", text, "--model", str(gguf), "--json", "--known-names", str(corpus)]) == 0
    (document,) = json.loads(capsys.readouterr().out)["documents"]
    taken = [span for entity in document["entities"] if not entity["known_name"] for span in entity["spans"]]
    left = [name for name in ("berazepam", "Gout", "hypertension") if not inside(text.index(name), len(name), taken)]
    assert left and [entity["name"] for entity in document["entities"] if entity["known_name"]] == left
    out = tmp_path / "found.jsonl"
    job = ["extract", text, "--model", str(gguf), "--out", str(out), "--known-names"]
    assert main([*job, str(corpus)]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["entities"] == document["entities"]


def inside(start, length, places):
    return any(first <= start and start + length <= last for first, last in places)



@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_gives_the_same_bytes(gguf, tmp_path):
    texts = tmp_path / "texts.jsonl"
    articles = invent(24, seed=5)
    again = articles[3].text  # a text that comes twice, the second time after it was done in another process
    rows = [{"id": str(number), "text": one.text} for number, one in enumerate(articles)] + [{"id": "again", "text": again}]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    whole = tmp_path / "whole.pubtator"
    undisturbed = start("--model", gguf, texts, "--out", whole)
    said = undisturbed.communicate()[1]
    assert undisturbed.returncode == 0, said

    out = tmp_path / "killed.pubtator"
    written = out.with_name(out.name + ".partial.jsonl")
    for wanted in (1, 5):
        job = start("--model", gguf, texts, "--out", out)
        while job.poll() is None and (written.read_bytes().count(b"\n") if written.exists() else 0) < wanted:
            time.sleep(0.01)
        assert job.poll() is None, "it ended before it could be killed"
        os.kill(job.pid, signal.SIGKILL)
        job.communicate()
        assert out.with_name(out.name + ".job.json").exists()
    last = start("--model", gguf, texts, "--out", out, "--json")
    facts, said = last.communicate()
    assert last.returncode == 0, said
    assert json.loads(facts)["documents"] == 25 and 5 <= json.loads(facts)["kept from before"] < 25
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "texts.jsonl", whole.name]
    assert [one.id for one in read_pubtator(out)] == [row["id"] for row in rows]


AWKWARD = (
    "β-Carotene &amp; lithium &lt;0.5 mM&gt; caused tremor; Tremor, TREMOR and renal  failure.\r\n\r\n"
    "“Renal failure” 😀 came\u00a0again — 5-HT(1A), Na+ (lithium), naïve Ménière’s.\tLithium-induced tremor\u2028ended."
)


@pytest.mark.slow
def test_every_place_of_every_format_is_exact_on_awkward_texts(tmp_path):
    """Unicode, HTML entities, repeated names, Windows line ends: known names found, written nine ways, read back nine ways."""
    documents = [Document(f"n{number}", text + AWKWARD, AWKWARD[:20]) for number, text in enumerate([*HARD, ""])]
    documents.append(Document("a/b c", AWKWARD))
    found = check(list(Extractor(answer, ASKED)(documents)), tmp_path)
    assert found["places"] > 8 * len(documents)
    assert found["inexact"] == found["changed"] == []


def test_a_place_that_is_not_exact_is_found(tmp_path):
    one = next(Extractor(answer, ASKED)(["Lithium caused tremor."]))
    entity = replace(one.entities[0], spans=((1, 8),))
    assert list(inexact_places([replace(one, entities=(entity,))])) == ["document text-1: 1-8 is 'ithium ', not 'lithium'"]
    assert list(inexact_places([one])) == []


@pytest.mark.slow
def test_a_corpus_with_windows_line_ends_is_extracted_and_scored(gguf, tmp_path, capsys):
    corpus = tmp_path / "windows.PubTator.txt"
    corpus.write_bytes((FILES / "invented.PubTator.txt").read_bytes().replace(b"\n", b"\r\n"))
    results = tmp_path / "results.json"
    command = [str(corpus), "--model", str(gguf), "--out", str(tmp_path / "out"), "--results", str(results)]
    assert extraction.main(command) == 0
    rows = tmp_path / "out" / "rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(b"".join(whole.splitlines(keepends=True)[:5])[:-9])  # as a kill leaves it: the last line half-written
    assert extraction.main(command) == 0
    assert rows.read_bytes() == whole
    assert not any(one["text"][:40] in results.read_text(encoding="utf-8") for one in map(json.loads, whole.splitlines()))
    (figures,) = json.loads(results.read_text(encoding="utf-8")).values()
    assert figures["timed"]["documents"] == 4  # of eight; four were there
    assert figures["documents"] == 8 and figures["places"] > 0 == figures["inexact"] == figures["changed"]
    assert figures["official"]["text_differs"] == 0 and figures["official"]["mention"]["both"]["fn"] > 0
    assert "formats read back: jsonl" in capsys.readouterr().out


@pytest.mark.slow
def test_real_abstracts_are_extracted_exactly(gguf, shared_data, tmp_path):
    for name in ("CDR_DevelopmentSet.PubTator.txt", "CDR_DevelopmentSet.BioC.xml"):
        command = [str(shared_data / name), "--model", str(gguf), "--limit", "6", "--results", str(tmp_path / "results.json")]
        assert extraction.main([*command, "--out", str(tmp_path / name)]) == 0


@pytest.mark.parametrize(
    ("corpus", "model", "said"),
    [
        ("missing.txt", "m.gguf", "missing.txt: no such file"),
        (".", "m.gguf", ".: no such file"),
        ("corpus.txt", "missing.gguf", "--model missing.gguf: no such file or folder"),
        ("corpus.txt", "no-folder/", "--model no-folder/: "),
        ("broken.PubTator.txt", "m.gguf", "broken.PubTator.txt:1: "),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(tmp_path, monkeypatch, capsys, corpus, model, said):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("Lithium caused tremor.\n", encoding="utf-8")
    Path("broken.PubTator.txt").write_text("1|t|Lithium\nno text\n", encoding="utf-8")
    assert extraction.main([corpus, "--model", model, "--results", "results.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench.extraction: {said}") and not Path("results.json").exists()
