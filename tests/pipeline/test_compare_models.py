"""`medner parity A B`: models that answer alike, and models that were spoilt at one stage, which is then named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
from fixed_run import make_run
from gguf import GGUFReader

from data.corpus import read_corpus
from eval.chats import plan_chats
from eval.engines.llama_cpp import start_server
from pipeline.cli import main
from pipeline.compare_models import compare_first, compare_ids, compare_rows
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.merge import merge_adapter
from pipeline.model import model_path

ROWS = Path(__file__).parents[1] / "files" / "invented.rows.jsonl"
ASKED = {
    "medner.layout": "conversation",
    **{f"medner.max_new_tokens.{task}": "6" for task in ("chemicals", "diseases", "relations")},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run, its merged model and that as a GGUF file."""
    run = make_run(tmp_path_factory.mktemp("run"))
    merged = merge_adapter(model_path("tiny"), run / "adapter", run / "merged")
    convert_to_gguf(merged, run / "merged.f16.gguf", "f16", ASKED)
    return run


def compare(capsys, a: object, b: object, *more: str) -> tuple[int, dict, str]:
    capsys.readouterr()
    code = main(["parity", str(a), str(b), "--data", str(ROWS), "--limit", "4", "--json", *more])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


@pytest.mark.slow
def test_an_adapter_its_merged_model_its_file_and_a_server_answer_alike(run, capsys):
    code, found, _ = compare(capsys, run, run / "merged.f16.gguf")
    stages = found["stages"]
    assert (code, found["broke"], found["documents"]) == (0, None, 4)
    assert stages["tokenizer"] == {"equal": 4, "of": 4, "first": None, "same": True}
    assert stages["template"]["equal"] == stages["template"]["of"] == len(plan(run)) and stages["template"]["same"]
    assert stages["first tokens"]["same"] and stages["first tokens"]["difference"] < 0.05
    assert stages["answers"]["equal"] >= 11 and stages["answers"]["of"] == 12
    server = start_server(run / "merged.f16.gguf", 4096, 2, 1)
    code, found, _ = compare(capsys, run / "merged", server.listening_address)
    assert (code, found["broke"]) == (0, None) and found["stages"]["template"]["same"]
    assert main(["parity", str(run), str(run / "merged"), "--data", str(ROWS), "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert "answers      same   6 of 6 the same to the letter" in shown and shown.rstrip().endswith("they answer alike")


def plan(run: Path) -> list:
    layout = json.loads((run / "adapter" / "medner.json").read_text(encoding="utf-8"))["layout"]
    return plan_chats(list(read_corpus(ROWS).documents)[:4], layout=layout, max_new_tokens=6)


@pytest.mark.slow
def test_the_stage_that_broke_is_named(run, tmp_path, capsys):
    """Another date in the template; weights that slipped by a row; a token that stands for another."""
    other = shutil.copytree(run / "merged", tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("26 Jul 2024", "27 Nov 2026"), encoding="utf-8")
    code, found, _ = compare(capsys, run / "merged", other)
    assert (code, found["broke"]) == (1, "template") and found["stages"]["tokenizer"]["same"]

    broken = Path(shutil.copyfile(run / "merged.f16.gguf", tmp_path / "broken.f16.gguf"))
    (tensor,) = (tensor for tensor in GGUFReader(broken, "r+").tensors if tensor.name == "token_embd.weight")
    tensor.data[:] = numpy.roll(tensor.data, 1, axis=0)
    tensor.data.base.flush()
    code, found, _ = compare(capsys, run / "merged.f16.gguf", broken)
    assert (code, found["broke"]) == (1, "first tokens") and found["stages"]["template"]["same"]
    assert found["stages"]["answers"]["same"] is False and found["stages"]["answers"]["example"]

    swapped = shutil.copytree(run / "merged", tmp_path / "swapped")
    tokenizer = json.loads((swapped / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["e"], vocabulary["a"] = vocabulary["a"], vocabulary["e"]
    tokenizer["model"]["merges"] = []
    (swapped / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    code, found, _ = compare(capsys, run / "merged", swapped)
    assert (code, found["broke"]) == (1, "tokenizer") and found["stages"]["tokenizer"]["first"]


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    code, _, said = compare(capsys, tmp_path / "none.gguf", tmp_path)
    assert code == 2 and "no such file or folder" in said
    (tmp_path / "bare").mkdir()
    code, _, said = compare(capsys, tmp_path / "bare", tmp_path / "bare")
    assert code == 2 and "give --layout and --max-new-tokens" in said


def test_stages_by_hand():
    assert compare_ids([("a", (1,)), ("b", (2,))], [("a", (1,)), ("b", (3,))]) == {
        "equal": 1,
        "of": 2,
        "first": "b",
        "same": False,
    }
    assert compare_ids(None, [("a", (1,))])["same"] is None
    documents = list(read_corpus(ROWS).documents)[:2]
    chats = plan_chats(documents, layout="separate", tasks=["chemicals"], max_new_tokens=3)
    keys = [(document.id, task) for document in documents for task in document.tasks]

    def rows(first: str, logprob: float) -> dict:
        return {key: {"document": key[0], "task": key[1], "completion": "-", "finish": "stop", "logprobs": [[first, logprob]]}
                for key in keys}  # fmt: skip

    same = compare_first(rows("-", -0.1), rows("-", -0.15), chats, 0.9)
    assert same["same"] and same["difference"] == pytest.approx(0.05)
    assert compare_first(rows("-", -0.1), rows("-", -0.5), chats, 0.9)["same"] is False
    assert compare_first(rows("-", -0.1), rows("*", -0.1), chats, 0.9)["same"] is False
    other = rows("-", 0.0)
    other[keys[0]]["completion"] = "- lithium"
    assert compare_rows(documents, rows("-", 0.0), other, 0.99)["answers"]["example"] == [*keys[0], "-", "- lithium"]
