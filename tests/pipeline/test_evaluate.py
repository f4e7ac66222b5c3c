"""`medner evaluate` with each flag, on a run whose adapter has fixed weights; answers never stand under another's name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixed_run import make_run, save_adapter
from llama_server import serve

from data.files import read_jsonl, write_jsonl
from data.prompts import read_answer, render_answer
from data.schema import TASKS, Mention, Relation, document_to_json
from data.split import read_split_folder
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.merge import merge_adapter
from pipeline.run_folder import read_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def evaluate(run: Path, *flags: str) -> int:
    return main(["evaluate", str(run), *map(str, flags)])


def refused(capsys, run: Path, *flags: str) -> str:
    """The one line with which the command refuses."""
    capsys.readouterr()
    assert evaluate(run, *flags) == 2
    out, err = capsys.readouterr()
    assert not out and 1 <= err.count("\n") <= 2, err
    return err


def provenance(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def forbid_loading(monkeypatch) -> None:
    def load(*arguments, **settings):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("pipeline.model.load_model", load)


def test_answers_say_what_produced_them_and_are_asked_once(run, monkeypatch, capsys):
    assert evaluate(run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 3
    said = provenance(run / "eval" / "test")
    assert said["engine"] == "transformers" and said["model"] == "tiny" and not said["grounded"]
    assert said["layout"] == "conversation" and len(said["adapter_sha256"]) == len(said["prompts_sha256"]) == 64
    forbid_loading(monkeypatch)
    begun = run / "eval/validation/completions.jsonl"  # an evaluation that was interrupted before its first answer
    begun.parent.mkdir(exist_ok=True)
    begun.touch()
    before = (run / "eval/test/completions.jsonl").read_bytes()
    assert evaluate(run) == 0 and (run / "eval/test/completions.jsonl").read_bytes() == before


def test_the_audit_counts_with_the_runs_own_tokenizer(tmp_path):
    """The same articles, and a model whose tokenizer knows single bytes alone: many times as many tokens."""
    model = shutil.copytree(TINY, tmp_path / "bytes")
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["merges"] = []
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    path = make_run(tmp_path, [f"model.name={model}"])
    counted = json.loads((path / "data/audit.json").read_text(encoding="utf-8"))["tokens"]
    bare = min(len(document.article.encode()) for part in read_split_folder(path / "data").values() for document in part)
    assert counted["tokenizer"] == str(model) and counted["prompt"]["median"] > 0.9 * bare


def test_old_answers_are_refused_with_the_way_out(run, monkeypatch, capsys):
    assert evaluate(run) == 0
    path, forbidden = run / "eval/test/completions.jsonl", run / "eval/test/provenance.json"
    before, kept = path.read_bytes(), forbidden.read_text(encoding="utf-8")
    forbid_loading(monkeypatch)
    forbidden.unlink()
    said = refused(capsys, run)
    assert "nothing says what produced these answers" in said and f"delete {path.parent}" in said
    forbidden.write_text(kept.replace('"adapter_sha256": "', '"adapter_sha256": "f'), encoding="utf-8")
    assert "another variant: adapter_sha256" in refused(capsys, run)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_grounded_answers_of_a_time_when_no_repeated_line_could_end_are_refused(run, monkeypatch, capsys):
    assert evaluate(run, "--grounded") == 0
    forbid_loading(monkeypatch)
    assert evaluate(run, "--grounded") == 0
    path = run / "eval/test/grounded/provenance.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    assert said.pop("most_repeats") == 3
    path.write_text(json.dumps(said), encoding="utf-8")
    assert "another variant: most_repeats: null there, 3 here" in refused(capsys, run, "--grounded")


@pytest.mark.slow
def test_grounded_answers_have_a_folder_and_a_calibration_of_their_own(run, capsys):
    for split in ("validation", "test"):
        assert evaluate(run, "--split", split, "--grounded") == 0
    metrics = json.loads((run / "eval/test/grounded/metrics.json").read_text(encoding="utf-8"))
    assert metrics["rates"]["ungrounded"] == 0 and metrics["confidence"] is not None
    assert not (run / "eval/validation/completions.jsonl").exists()
    assert evaluate(run, "--grounded", "--listed-sides", "--markdown") == 0
    assert capsys.readouterr().out.count("with perfect lists, recall could reach 100.0%") == 1
    assert provenance(run / "eval/test/grounded-listed")["listed_sides"]


@pytest.mark.slow
def test_min_precision_asks_the_variant_that_it_is_given_with(run, capsys):
    assert evaluate(run, "--grounded", "--min-precision", "0.5") == 0
    assert "thresholds from 3 validation articles" in capsys.readouterr().out
    assert (run / "eval/test/grounded/min-precision-0.5/metrics.json").exists()
    assert provenance(run / "eval/validation/grounded")["logprobs"]
    assert not (run / "eval/test/completions.jsonl").exists()


@pytest.mark.slow
def test_two_models_of_one_name_never_share_answers(run, tmp_path, capsys):
    """`a/x.gguf` and `b/x.gguf`, and the same file after it was made anew."""
    merged = merge_adapter(TINY, run / "adapter", tmp_path / "merged")
    first = convert_to_gguf(merged, tmp_path / "a" / "x.gguf", "f16", {})
    second = convert_to_gguf(merged, tmp_path / "b" / "x.gguf", "q8_0", {})
    for path in (first, second, first):
        assert evaluate(run, "--engine", "llama.cpp", "--model", path) == 0
    folders = sorted(path.parent for path in run.glob("eval/test/llama.cpp-x-*/completions.jsonl"))
    assert len(folders) == 2
    assert len({provenance(folder)["sha256"] for folder in folders}) == 2
    first.write_bytes(second.read_bytes())
    assert evaluate(run, "--engine", "llama.cpp", "--model", first) == 0
    assert len(list(run.glob("eval/test/llama.cpp-x-*"))) == 2  # the second one's weights: its answers


@pytest.mark.slow
def test_two_servers_never_share_answers(run, tmp_path):
    """Two addresses, each with another model under the same name, and one address where the model was exchanged."""
    merged = merge_adapter(TINY, run / "adapter", tmp_path / "merged")
    first, second = (convert_to_gguf(merged, tmp_path / name / "x.gguf", name, {}) for name in ("f16", "q8_0"))
    with serve(first) as one, serve(second) as other:
        for client in (one, other, one):
            assert evaluate(run, "--engine", "llama.cpp", "--model", client.base_url) == 0
        address = str(one.base_url).rstrip("/")
    said = [provenance(path.parent) for path in run.glob("eval/test/llama.cpp-*/completions.jsonl")]
    assert len({one["model"] for one in said}) == 2 and address in {one["model"] for one in said}
    assert said[0]["served_meta"] != said[1]["served_meta"]


def test_items_that_hold_odd_line_breaks_are_no_items_and_our_own_file_is_read_again(run, monkeypatch, capsys):
    odd = "- one\rtwo\n- three\u2028four\n- five\x85six"
    monkeypatch.setattr("pipeline.variant.open_variant", lambda run, variant, chats: lambda chats: (
        [{"document": chat.document.id, "task": task, "completion": odd, "finish": "stop"} for task in chat.tasks]
        for chat in chats
    ))  # fmt: skip
    assert evaluate(run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rates"]["malformed"] == 1
    for name in ("predictions.jsonl", "completions.jsonl"):
        assert main(["score", str(run / "data/test.jsonl"), str(run / "eval/test" / name)]) == 0


@pytest.mark.parametrize("known", [True, False])
def test_predicted_relations_stand_in_pubtator_where_train_has_their_ids(known, run, monkeypatch, capsys):
    names = {"Zolamine": ("Chemical", "C1"), "tremor": ("Disease", "D1")}
    text = "Zolamine gave tremor."
    mentions = tuple(
        Mention(name, kind, text.index(name), text.index(name) + len(name), (concept,) * known)
        for name, (kind, concept) in names.items()
    )
    relation = Relation("Zolamine", "tremor", *(("C1", "D1") if known else ()))
    rows = [
        {"split": name} | document_to_json(replace(one, text=text, title=None, mentions=mentions, relations=(relation,)))
        for name, documents in read_split_folder(run / "data").items() for one in documents
    ]  # fmt: skip
    write_jsonl(run / "data/documents.jsonl", rows)
    monkeypatch.setattr("pipeline.variant.open_variant", answer_with_gold)
    assert evaluate(run, "--json") == 0
    official = json.loads(capsys.readouterr().out)["official"]
    written = (run / "eval/test/predictions.PubTator").read_text(encoding="utf-8")
    assert written.count("\tCID\tC1\tD1\n") == 3 * known and official["relations"]["written"] == 3 * known
    assert official["relation"]["f1"] == 1 if known else "concept id" in official["relations"]["reason"]


@pytest.mark.slow
def test_a_models_folder_is_told_by_its_weights(run, tmp_path, monkeypatch):
    merged = merge_adapter(TINY, run / "adapter", tmp_path / "merged")
    assert evaluate(run, "--model", merged) == 0
    with monkeypatch.context() as patched:
        patched.setattr("eval.engines.open.open_engine", None)
        assert evaluate(run, "--model", merged) == 0, "nothing was left to ask, and a model was opened"
    again = shutil.copytree(run, tmp_path / "again")
    save_adapter(read_run(again), seed=2)
    merge_adapter(TINY, again / "adapter", merged)
    assert evaluate(run, "--model", merged) == 0
    assert len(list(run.glob("eval/test/transformers-merged-*"))) == 2


@pytest.mark.parametrize(
    ("fault", "flags", "message"),
    [
        ("cut", [], "adapter_model.safetensors"),
        ("half zeros", [], "adapter_model.safetensors: is damaged"),
        ("gone", [], "adapter_model.safetensors: "),
        ("garbage", ["--engine", "llama.cpp", "--model", "{garbage}"], "garbage.gguf: not a GGUF file"),
        ("garbage", ["--engine", "llama.cpp", "--model", "{folder}/none.gguf"], "none.gguf: no such GGUF file"),
        ("garbage", ["--engine", "llama.cpp"], "say which with --model"),
        ("garbage", ["--engine", "vllm"], "vllm is not installed"),
        ("garbage", ["--engine", "openai"], "say which with --model"),
        ("garbage", ["--engine", "openai", "--model", "http://127.0.0.1:9"], "cannot be reached"),
        ("garbage", ["--model", "{folder}/none"], "no config.json"),
    ],
)
def test_what_cannot_answer_is_refused_before_anything_is_loaded(fault, flags, message, run, tmp_path, monkeypatch, capsys):
    forbid_loading(monkeypatch)
    adapter, garbage = run / "adapter/adapter_model.safetensors", tmp_path / "garbage.gguf"
    garbage.write_bytes(b"nothing of the kind")
    if fault == "cut":
        adapter.write_bytes(adapter.read_bytes()[:5000])
    if fault == "half zeros":
        written = adapter.read_bytes()
        adapter.write_bytes(written[: len(written) // 2] + bytes(len(written) - len(written) // 2))
    if fault == "gone":
        adapter.unlink()
    said = refused(capsys, run, *(flag.format(garbage=garbage, folder=tmp_path) for flag in flags))
    assert message in said and not (run / "eval").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listed-sides"], "only with --grounded"),
        (["--cases", "--min-precision", "0.9"], "give one of them"),
        (["--cases", "--split", "test"], "of no split"),
        (["--min-precision", "0.9", "--markdown"], "give one of them"),
        (["--min-precision", "0.9", "--split", "validation"], "use --split test"),
        (["--min-precision", "1.5"], "between 0 and 1"),
        (["--grounded", "--listed-sides", "--engine", "openai", "--model", "http://127.0.0.1:9"], "cannot keep relations"),
    ],
)
def test_flags_of_which_one_would_do_nothing_are_refused(flags, message, run, capsys):
    assert message in refused(capsys, run, *flags)


def test_cases_are_asked_as_the_adapter_was_trained(run, monkeypatch):
    asked = []

    def note(run, variant, chats):
        asked.extend(chats)
        return lambda chats: (
            [{"document": chat.document.id, "task": task, "completion": "-", "finish": "stop"} for task in chat.tasks]
            for chat in chats
        )

    monkeypatch.setattr("pipeline.variant.open_variant", note)
    assert evaluate(run, "--cases") == 1
    assert {chat.tasks for chat in asked} == {TASKS}


CHATTY = "Sure, here they are:\n\n"


def answer_with_gold(run, variant, chats):
    """An engine that knows the gold, and says it as a chat model does where nobody tuned it."""
    opening = CHATTY if variant.untuned else ""

    def answers(chat):
        for task in chat.tasks:
            completion = opening + render_answer(chat.document.gold(task))
            yield {"document": chat.document.id, "task": task, "completion": completion, "finish": "stop"}

    return lambda chats: (list(answers(chat)) for chat in chats)


def test_an_untuned_model_that_chats_is_read_leniently_where_it_stands_beside(run, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.variant.open_variant", answer_with_gold)
    assert main(["run", "--out", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]["test"]
    assert {task: one["f1"] for task, one in metrics["baselines"]["base_model_lenient"].items()} == dict.fromkeys(TASKS, 1)
    assert {task: one["f1"] for task, one in metrics["baselines"]["base_model"].items()} == dict.fromkeys(TASKS, 0)
    assert metrics["readings"]["compared"] == "strict" and metrics["readings"]["lenient"]["rates"]["repaired"] == 0
    base = json.loads((run / "eval/test/base/metrics.json").read_text(encoding="utf-8"))["readings"]
    assert base["compared"] == "lenient" and base["lenient"]["rates"]["repaired"] == 1
    assert (base["strict"]["micro"]["f1"], base["lenient"]["micro"]["f1"]) == (0, 1)
    assert evaluate(run) == 0
    for text in (capsys.readouterr().out, *((run / name).read_text(encoding="utf-8") for name in FOR_READERS)):
        assert "untuned, strict" in text and "its answers are read leniently" in " ".join(text.split())
    assert "Compared with other models: lenient" in (run / "eval/test/base/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("logprobs", [None, []])
def test_logprobs_that_are_none_are_refused_with_their_place(logprobs, run, monkeypatch, capsys):
    def engine(run, variant, chats):
        answers = answer_with_gold(run, variant, chats)
        return lambda chats: ([row | {"logprobs": logprobs} for row in rows] for rows in answers(chats))

    monkeypatch.setattr("pipeline.variant.open_variant", engine)
    said = refused(capsys, run)
    assert "eval/test/completions.jsonl:1: logprobs is" in said and "expected [[token, log-probability], …]" in said


def test_few_articles_all_right_have_no_interval_and_it_is_said(run, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.variant.open_variant", answer_with_gold)
    assert evaluate(run) == 0
    metrics = json.loads((run / "eval/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["tasks"]["chemicals"]["ci95"] is None and metrics["interval_remark"].startswith("3 articles: under 30")
    for text in (capsys.readouterr().out, (run / "eval/test/report.html").read_text(encoding="utf-8")):
        shown = " ".join(text.split())
        assert "under 30, these intervals are too narrow" in shown and "all right or all wrong has no interval" in shown


@pytest.mark.slow
def test_min_precision_takes_any_engine_and_says_where_nothing_can_be_promised(run, tmp_path, capsys):
    gguf = convert_to_gguf(merge_adapter(TINY, run / "adapter", tmp_path / "merged"), tmp_path / "x.gguf", "f16", {})
    assert evaluate(run, "--engine", "llama.cpp", "--model", gguf, "--min-precision", "0.9") == 0
    assert "no threshold can promise 90% on" in capsys.readouterr().out
    (known,), (new,) = (list(run.glob(f"eval/{split}/llama.cpp-x-*/provenance.json")) for split in ("validation", "test"))
    assert known.parent.name == new.parent.name and not (run / "eval/test/completions.jsonl").exists()


def test_a_look_alike_character_is_a_fault_of_its_own(run, monkeypatch, capsys):
    names = (Mention("Crohn's", "Disease"), Mention("5-HT", "Chemical"))
    rows = [
        {"split": name} | document_to_json(replace(one, text=f"Crohn's 5-HT {one.text}", mentions=names, relations=()))
        for name, documents in read_split_folder(run / "data").items() for one in documents
    ]  # fmt: skip
    write_jsonl(run / "data/documents.jsonl", rows)
    swapped = {"chemicals": "- 5\u2011HT", "diseases": "- Crohn\u2019s", "relations": "-"}
    monkeypatch.setattr("pipeline.variant.open_variant", lambda run, variant, chats: lambda chats: (
        [{"document": chat.document.id, "task": task, "completion": swapped[task], "finish": "stop"} for task in chat.tasks]
        for chat in chats
    ))  # fmt: skip
    assert evaluate(run, "--json") == 0
    found = json.loads(capsys.readouterr().out)["faults"]["categories"]
    for task in ("chemicals", "diseases"):
        assert {kind: {name: one["count"] for name, one in own.items()} for kind, own in found[task].items()} == {
            kind: {"look_alike": 3} for kind in ("fp", "fn")
        }


FOR_READERS = ("README.md", "eval/test/report.md", "eval/test/report.html")


def test_a_task_that_train_lacks_is_told_with_a_cure(run, capsys):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    del manifest["max_new_tokens"]["relations"]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert f"medner evaluate {run}" in refused(capsys, run, "--cases")


def test_an_article_that_is_too_long_is_named_before_anything_is_loaded(run, monkeypatch, capsys):
    forbid_loading(monkeypatch)
    rows = [row for _, row in read_jsonl(run / "data/documents.jsonl")]
    rows[-1]["text"] = "word " * 3000
    (run / "data/documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert f"document {rows[-1]['id']} needs" in refused(capsys, run)


def test_a_second_evaluation_of_one_folder_is_refused(run, capsys):
    from eval.completions import locked

    (run / "eval/test").mkdir(parents=True)
    with locked(run / "eval/test/completions.jsonl"):
        code = "import sys; from pipeline.cli import main; sys.exit(main(['evaluate', sys.argv[1]]))"
        done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.returncode == 2 and "another process is writing these answers" in done.stderr


@pytest.mark.slow
def test_given_entities_asks_and_scores_relations_alone(run, capsys):
    assert evaluate(run, "--given-entities", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert set(metrics["tasks"]) == {"relations"} and metrics["baselines"] == {}
    out = run / "eval/test/given"
    assert {row["task"] for _, row in read_jsonl(out / "completions.jsonl")} == {"relations"}
    assert provenance(out)["given_entities"] is True and (out / "report.html").is_file()
    assert "given_entities" not in provenance_of_plain(run)  # answers of before this flag stay valid


def provenance_of_plain(run: Path) -> dict:
    assert evaluate(run) == 0
    return provenance(run / "eval/test")


def test_given_names_hold_the_sides_of_relations_where_asked(run):
    assert evaluate(run, "--given-entities", "--grounded", "--listed-sides") == 0
    documents = {document.id: document for document in read_split_folder(run / "data")["test"]}
    rows = [row for _, row in read_jsonl(run / "eval/test/grounded-listed-given/completions.jsonl")]
    assert len(rows) == len(documents)
    for row in rows:
        document = documents[row["document"]]
        for chemical, disease in read_answer(row["completion"], "relations")[0]:
            assert chemical in document.gold("chemicals") and disease in document.gold("diseases")


def test_given_entities_refuses_what_it_cannot_do(run, tmp_path, capsys):
    assert "give one of them" in refused(capsys, run, "--given-entities", "--cases")
    separate = make_run(tmp_path / "other", ["train.layout=separate"])
    assert "relations in a chat of their own" in refused(capsys, separate, "--given-entities")
    first = make_run(tmp_path / "first", ["train.layout=relations-first"])
    assert "relations first, where names cannot be given" in refused(capsys, first, "--given-entities")
