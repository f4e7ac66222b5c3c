"""BC5CDR fetched through the command: from a server, an archive and a folder, all of invented articles."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from small_corpus import pack, texts

from data import fetch
from data.corpus import read_corpus
from data.readers.pubtator import read_pubtator
from pipeline.cli import main


@pytest.fixture
def archive(tmp_path) -> tuple[Path, str]:
    """An archive of six articles, and its sha256."""
    path = tmp_path / "CDR_Data.zip"
    path.write_bytes(pack(texts() | {"README.txt": "invented"}))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def address(archive):
    """A server on this machine that answers with the archive, and with 404 for anything else."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            there = self.path == "/CDR_Data.zip"
            self.send_response(200 if there else 404)
            self.end_headers()
            self.wfile.write(archive[0].read_bytes() if there else b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/CDR_Data.zip"
    server.shutdown()
    server.server_close()


def fetch_into(out: Path, source: object, *more: str) -> int:
    return main(["data", "fetch", "bc5cdr", "--out", str(out), "--from", str(source), *more])


def test_every_shape_holds_the_same_articles(archive, tmp_path, capsys):
    from pyarrow.parquet import read_table

    out = tmp_path / "out"
    assert fetch_into(out, archive[0], "--sha256", archive[1], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["counts"]["train"] == {"articles": 3, "chemicals": 6, "diseases": 6, "relations": 3}
    assert facts["sha256"] == archive[1] and not facts["as_published"] and "Public Domain" in facts["licence"]
    for split in ("train", "validation", "test"):
        documents = read_pubtator(out / f"{split}.PubTator")
        rows = [json.loads(line) for line in (out / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert read_table(out / f"{split}.parquet").to_pylist() == rows and {*rows[0]} >= {"prompt", "completion"}
        read_back = read_corpus(out / f"{split}.jsonl").documents
        assert [(d.id, d.article) for d in read_back] == [(d.id, d.article) for d in documents]
        assert all(d.gold(task) == other.gold(task) for d, other in zip(documents, read_back, strict=True) for task in d.tasks)


def test_the_server_is_read_and_the_text_names_licence_checksum_and_command(archive, address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "ADDRESS", address)
    monkeypatch.setattr(fetch, "SHA256", archive[1])
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "bc5cdr"]) == 0
    shown = capsys.readouterr().out
    assert archive[1] in shown and "Public Domain" in shown and "NOT the published counts" in shown
    command = shown.strip().splitlines()[-1].split()
    assert command[:3] == ["medner", "run", "--set"]
    assert all(Path(word.partition("=")[2]).is_file() for word in command[3:6])


def test_another_checksum_is_refused_with_both_and_the_way_on(address, tmp_path, capsys):
    assert fetch_into(tmp_path / "out", address) == 2
    refused = capsys.readouterr().err
    assert fetch.SHA256 in refused and "--sha256" in refused and not (tmp_path / "out").exists()


def test_a_folder_and_windows_line_ends_read_alike(archive, tmp_path):
    folder = tmp_path / "unpacked" / "deep"
    folder.mkdir(parents=True)
    for name, text in texts("\r\n").items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    assert fetch_into(tmp_path / "a", tmp_path / "unpacked") == 0
    assert fetch_into(tmp_path / "b", archive[0], "--sha256", archive[1]) == 0
    for name in ("train.PubTator", "test.jsonl", "validation.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_again_changes_nothing_and_a_file_of_ones_own_is_kept(archive, tmp_path, capsys):
    out = tmp_path / "out"
    assert [fetch_into(out, archive[0], "--sha256", archive[1]) for _ in range(2)] == [0, 0]
    (out / "test.jsonl").write_text("mine\n", encoding="utf-8")
    assert fetch_into(out, archive[0], "--sha256", archive[1]) == 2
    assert "exists already with other content" in capsys.readouterr().err
    assert (out / "test.jsonl").read_text(encoding="utf-8") == "mine\n"


def test_a_name_that_climbs_out_of_the_archive_writes_nothing_there(tmp_path):
    path = tmp_path / "in" / "deep" / "CDR_Data.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(pack(texts() | {"evil.txt": "x"}, folder="../../"))
    out = tmp_path / "in" / "deep" / "out"
    assert fetch_into(out, path, "--sha256", hashlib.sha256(path.read_bytes()).hexdigest()) == 0
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file() and p.parent != out} == {
        "in/deep/CDR_Data.zip"
    }


def part(split: str) -> dict[str, str]:
    return {name: text for name, text in texts().items() if name == fetch.FILES[split]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a zip", "not a zip archive"),
        (pack({"other.txt": "x"}), "contains no CDR_TrainingSet.PubTator.txt and no"),
        (pack(part("train") | part("test")), "contains no CDR_DevelopmentSet.PubTator.txt;"),
        (pack(texts() | {fetch.FILES["test"]: "1|t|A title alone\n"}), "CDR_TestSet.PubTator.txt:1: the title of '1'"),
        (pack(texts())[:-40], "not a zip archive"),
    ],
)
def test_an_archive_that_is_none_is_refused(tmp_path, capsys, content, said):
    path = tmp_path / "CDR_Data.zip"
    path.write_bytes(content)
    assert fetch_into(tmp_path / "out", path, "--sha256", hashlib.sha256(content).hexdigest()) == 2
    shown = capsys.readouterr().err
    assert said in shown and str(tmp_path / "out") not in shown and not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["nowhere.zip", "."])
def test_a_source_without_the_corpus_is_refused(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert fetch_into(tmp_path / "out", source) == 2
    assert source in capsys.readouterr().err


def test_no_answer_fails_with_the_offline_way(address, tmp_path, capsys):
    assert fetch_into(tmp_path / "out", address + ".gone") == 1
    assert "--from FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_the_corpus_itself_has_the_published_counts(shared_data):
    for split, published in fetch.PUBLISHED.items():
        path = shared_data / fetch.FILES[split]
        if path.exists():  # the test set is not among the shared files
            assert fetch.count_annotations(read_pubtator(path)) == published
