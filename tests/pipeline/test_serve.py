"""`medner serve`: what the page shows, driven as a visitor does in a real browser; its API; the Space it writes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from chromium import open_chromium
from fixed_run import make_run
from known_names import ASKED, answer

from data.schema import InputError
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.extract.extractor import Extractor
from pipeline.extract.results import Entity, Influence
from pipeline.serve import page as served_page
from pipeline.serve.space import export_space
from pipeline.serve.view import describe, draw_graph, highlight, keep_sure, relation_rows

TEXT = "Lithium caused tremor. The tremor stopped when lithium was stopped.\r\nβ-carotene & <b>renal failure</b> followed."
gradio_missing = pytest.mark.skipif("not __import__('importlib').util.find_spec('gradio')", reason="Gradio is not installed")


def found_in(text: str):
    return next(Extractor(answer, ASKED)([text]))


def test_what_is_shown_stands_where_the_text_has_it():
    one = found_in(TEXT)
    shown = highlight(one)
    words = [(TEXT[part["start"] : part["end"]].lower(), part["entity"]) for part in shown["entities"]]
    assert shown["text"] == TEXT and words == [
        ("lithium", "Chemical"), ("tremor", "Disease"), ("tremor", "Disease"), ("lithium", "Chemical"),
        ("β-carotene", "Chemical"), ("renal failure", "Disease"),
    ]  # fmt: skip
    assert describe(one).startswith("2 chemicals, 2 diseases, 4 relations")
    assert ["lithium", "tremor", 0.9] in relation_rows(one)
    assert keep_sure(one, 0.91).entities == () == keep_sure(one, 0.91).relations
    assert keep_sure(one, 0.89) == one


def test_a_name_within_another_is_not_shown_twice():
    one = found_in("lithium and tremor")
    longer = Entity("lithium and", "Chemical", ((0, 11),), None, None)
    shown = highlight(replace(one, entities=(*one.entities, longer)))
    assert [(part["start"], part["end"]) for part in shown["entities"]] == [(0, 11), (12, 18)]


def test_the_graph_draws_every_relation_and_runs_nothing_of_a_name():
    drawn = draw_graph(found_in(TEXT))
    assert drawn.count("<line") == 4 and drawn.count("<circle") == 4
    assert draw_graph(found_in("no patient was seen")) == ""
    hostile = found_in(TEXT)
    entity = Entity("<script>alert(1)</script>", "Chemical", ((0, 7),), None, None)
    relation = Influence(entity.name, "tremor", None)
    drawn = draw_graph(replace(hostile, entities=(entity, *hostile.diseases), relations=(relation,)))
    assert "<script" not in drawn and "<script>" in unescape(drawn)


def test_too_much_or_nothing_is_refused_with_the_way_out(tmp_path):
    refused = [
        ("", None, "paste one, or upload a file"),
        ("a", "b.txt", "clear one of them"),
        ("a " * 11_000, None, r"21,999 characters; 20,000 at most here: use medner extract"),
        ("", str(many(tmp_path, 21)), "21 documents; 20 at most"),
    ]
    for text, file, said in refused:
        with pytest.raises(InputError, match=said):
            served_page.read_request(text, file)
    assert len(served_page.read_request("", str(many(tmp_path, 20)))) == 20


def many(folder: Path, count: int) -> Path:
    path = folder / "many.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": f"Lithium {i}."}) + "\n" for i in range(count)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("gradio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gradio's own
        models = {"tuned": Extractor(answer, ASKED), "untuned model": Extractor(lambda chats: iter(()), ASKED)}
        page = served_page.build_page(models, "medner: test")
        yield served_page.serve_page(page, "127.0.0.1", None, wait=False)
        page.close()
    # Gradio sets this thread a loop and leaves it open, which would be a warning in whichever test it is collected in.
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)


@pytest.mark.slow
@gradio_missing
@pytest.mark.filterwarnings("ignore")
def test_a_visitor_pastes_extracts_narrows_and_downloads(address):
    with open_chromium() as page:
        page.open(address)
        page.wait("!!document.querySelector('#text textarea') && !!document.querySelector('#extract')")
        page.type("#text textarea", TEXT)
        page.click("#extract")
        page.wait("document.querySelector('#model-0').innerText.includes('2 chemicals, 2 diseases, 4 relations')")
        marked = "[...document.querySelectorAll('#model-0 .token.highlighted')].map(e => e.innerText.trim()).join('|')"
        page.wait(f"{marked}.includes('renal failure')")
        assert page.run("document.querySelectorAll('#model-0 svg line').length") == 4
        page.wait("document.querySelector('#model-1').innerText.includes('0 chemicals')")
        page.wait("!document.querySelector('#download').disabled")
        page.type("#text textarea", "a " * 11_000)
        page.click("#extract")
        page.wait("document.body.innerText.includes('20,000 at most here')")
        page.wait("document.querySelectorAll('#model-0 svg line').length === 0")  # nothing of the text before stays
        page.resize(400, 900)
        assert page.run("document.documentElement.scrollWidth") <= 400
        asked = [one for one in page.asked if not one.startswith((address.rstrip("/"), "data:", "blob:", "about:"))]
        assert asked == []  # of no other machine


@pytest.mark.slow
@gradio_missing
@pytest.mark.filterwarnings("ignore")
def test_the_api_gives_what_extract_writes(address):
    from gradio_client import Client

    client = Client(address, verbose=False)
    row = client.predict(TEXT, 0.0, api_name="/extract")
    assert row["entities"][0]["name"] == "lithium" and row["entities"][0]["spans"] == [[0, 7], [47, 54]]
    assert [name for name in client.view_api(return_format="dict")["named_endpoints"]] == ["/extract"]
    with pytest.raises(Exception, match="20,000 at most"):
        client.predict("a " * 11_000, 0.0, api_name="/extract")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@gradio_missing
@pytest.mark.filterwarnings("ignore")
def test_a_space_starts_as_it_is(run, tmp_path, capsys):
    space = tmp_path / "space"
    assert main(["serve", "--model", str(run), "--export-space", str(space)]) == 0
    assert {"app.py", "README.md", "requirements.txt", "model", "pipeline"} <= {path.name for path in space.iterdir()}
    assert re.search(r"^sdk_version: \d+\.\d+\.\d+$", (space / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert str(tmp_path) not in "".join(path.read_text(encoding="utf-8") for path in space.glob("*.*"))
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert "serving on" in started.stdout.readline()
        from gradio_client import Client

        row = Client(f"http://127.0.0.1:{port}", verbose=False).predict("Lithium caused tremor.", 0.0, api_name="/extract")
        assert row["text"] == "Lithium caused tremor."
    finally:
        started.terminate()
        started.wait(30)


@gradio_missing
def test_what_cannot_be_served_is_said(run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for flags, said in (
        (["--model", str(run), "--export-space", str(tmp_path / "full")], "is not empty; nothing was written"),
        (["--model", "nowhere", "--export-space", str(tmp_path / "new")], "a Space needs a run"),
        (["--model", str(tmp_path / "no.gguf")], "no such file or folder"),
    ):
        assert main(["serve", *flags]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_adapter_of_a_base_on_this_machine_makes_no_space(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "medner.json").write_text(json.dumps({"base_model": "/models/base"}), encoding="utf-8")
    with pytest.raises(InputError, match="lies on this machine only; export a GGUF"):
        export_space(str(tmp_path / "adapter"), tmp_path / "space")


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("pipeline.serve.command.find_spec", lambda name: None)
    assert main(["serve", "--model", "x"]) == 2
    assert "pip install 'medner[ui]'" in capsys.readouterr().err


def test_a_space_that_could_not_ask_its_model_is_not_written(tmp_path):
    gguf = convert_to_gguf(TINY, tmp_path / "silent.gguf", "q8_0", {})
    with pytest.raises(InputError, match=r"silent\.gguf: does not say how it was trained to be asked"):
        export_space(str(gguf), tmp_path / "space")
    assert not (tmp_path / "space").exists()
