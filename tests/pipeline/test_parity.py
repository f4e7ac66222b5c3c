"""The parity gate on a model that really answers: everything exported from it passes, a corrupted tensor does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFReader
from tiny_llama import save_adapter, save_base
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from data.prompts import render_answer
from data.schema import Document, InputError, Mention, Relation
from eval.chats import plan_chats
from eval.completions import write_completions
from eval.engines.open import open_engine
from pipeline import model as loading
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.merge import merge_adapter
from pipeline.export.parity import (
    _open_merged,
    check_parity,
    compare_answers,
    decide,
    describe_failures,
    describe_power,
    read_answers,
    render_parity,
)
from pipeline.export.quantise import quantise_gguf
from pipeline.publish.push import require_parity
from pipeline.training.loss_mask import encode_documents

NAMES = [("benzodiazepine", "nephropathy"), ("chlorophenol", "hepatitis"), ("lithium", "tremor"), ("α-methionine", "seizure")]
TOKENS = 40


def document(number: int, chemical: str, disease: str) -> Document:
    return Document(
        id=str(number),
        text=f"{chemical} gave {disease}.",
        mentions=(Mention(chemical, "Chemical"), Mention(disease, "Disease")),
        relations=(Relation(chemical, disease),),
    )


# As many as a gate needs to exclude a loss of two points; the model has to know four of them by heart.
DOCUMENTS = [document(number, *NAMES[number % 4]) for number in range(100)]


def memorise(folder: Path) -> None:
    """Train the whole tiny model until it has its four documents by heart."""
    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    examples = encode_documents(tokenizer, DOCUMENTS[:4], "conversation")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(300):
        losses = []
        for example in examples:
            ids = torch.tensor([example["input_ids"]])
            labels = ids.where(torch.tensor([example["completion_mask"]]) == 1, -100)
            losses.append(model(ids, labels=labels).loss)
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.002:
            break
    assert loss < 0.05
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as far as export: base, adapter, its completions, the merged model, three GGUF files."""
    run = tmp_path_factory.mktemp("run")
    memorise(save_base(run / "base"))
    save_adapter(run / "base", run / "adapter", strength=0.001)
    engine = open_engine("transformers", str(run / "adapter"))
    write_completions(engine, DOCUMENTS, run / "completions.jsonl", layout="conversation", max_new_tokens=TOKENS)
    merged = merge_adapter(run / "base", run / "adapter", run / "export/merged")
    f16 = convert_to_gguf(merged, run / "export/run.f16.gguf", "f16", {})
    convert_to_gguf(merged, run / "export/run.q8_0.gguf", "q8_0", {})
    quantise_gguf(f16, run / "export/run.q4_k_m.gguf", "q4_k_m")
    return run


def check(run: Path, ggufs: list[Path], *, merged: bool = False, out: Path | None = None) -> dict:
    return check_parity(
        DOCUMENTS,
        run / "completions.jsonl",
        out or run / "export/parity.json",
        merged=run / "export/merged" if merged else None,
        ggufs=ggufs,
        tokenizer=run / "adapter",
        layout="conversation",
        max_new_tokens=TOKENS,
        context=1024,
    )


@pytest.mark.slow
def test_everything_exported_answers_as_the_adapter(run):
    names = ["run.f16.gguf", "run.q8_0.gguf", "run.q4_k_m.gguf"]
    parity = check(run, [run / "export" / name for name in names], merged=True)
    assert parity["passed"], render_parity(parity)
    assert list(parity["models"]) == ["merged", *names]
    assert json.loads((run / "export/parity.json").read_text()) == parity
    for name, facts in parity["models"].items():
        assert {task: figures["adapter_f1"] for task, figures in facts["tasks"].items()} == dict.fromkeys(facts["tasks"], 1.0)
        assert facts["least_exact"] == (0.7 if "q4" in name else 0.9)
        assert facts["micro"]["power"]["lossless_passes"] > 0.95
        if name != "merged":
            assert facts["prompts"] == facts["identical_prompts"] == 300
    assert parity["models"]["merged"]["exact_completions"] == 1
    assert parity["models"]["run.f16.gguf"]["exact_completions"] >= 0.95
    require_parity(run, [])
    assert "run.q8_0.gguf: passed, F1 +0.0 points" in render_parity(parity)


@pytest.mark.slow
def test_a_corrupted_tensor_is_refused(run, tmp_path):
    broken = Path(shutil.copyfile(run / "export/run.f16.gguf", tmp_path / "broken.f16.gguf"))
    (tensor,) = (tensor for tensor in GGUFReader(broken, "r+").tensors if tensor.name == "token_embd.weight")
    tensor.data[:] = numpy.roll(tensor.data, 1, axis=0)  # every row slips by one; the file stays well-formed
    tensor.data.base.flush()
    parity = check(run, [broken], out=tmp_path / "parity.json")
    assert not parity["passed"]
    assert parity["models"]["broken.f16.gguf"]["identical_prompts"] == 300
    assert any("F1 -" in line and line.endswith("a loss is shown") for line in reasons(parity))


@pytest.mark.slow
def test_what_was_compared_is_kept_until_the_file_or_the_adapters_answers_change(run, tmp_path, monkeypatch):
    export = tmp_path / "export"
    export.mkdir()
    for quant in ("f16", "q8_0"):
        shutil.copyfile(run / f"export/run.{quant}.gguf", export / f"run.{quant}.gguf")
    first = check(run, [export / "run.f16.gguf"], out=export / "parity.json")
    second = check(run, [export / "run.q8_0.gguf"], out=export / "parity.json")
    assert list(second["models"]) == ["run.f16.gguf", "run.q8_0.gguf"]
    assert second["models"]["run.f16.gguf"] == first["models"]["run.f16.gguf"]
    shutil.copyfile(run / "export/run.q4_k_m.gguf", export / "run.f16.gguf")  # made anew, under the old name
    third = check(run, [export / "run.f16.gguf"], out=export / "parity.json")
    assert third["models"]["run.f16.gguf"]["quant"] == "Q4_K_M"
    monkeypatch.setattr("pipeline.export.parity.serve_gguf", None)
    assert check(run, [export / "run.f16.gguf"], out=export / "parity.json") == third


@pytest.mark.slow
def test_other_prompt_tokens_are_refused(run, tmp_path):
    """The date of another day in the template: the answers may well be the same, the prompt is not what was trained."""
    model = shutil.copytree(run / "export/merged", tmp_path / "model")
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    (model / "chat_template.jinja").write_text(template.replace("26 Jul 2024", "22 Nov 2026"), encoding="utf-8")
    gguf = convert_to_gguf(model, tmp_path / "dated.f16.gguf", "f16", {})
    parity = check(run, [gguf], out=tmp_path / "parity.json")
    assert not parity["passed"]
    assert "100 of 300 prompts become other tokens" in next(iter(reasons(parity)))


def reasons(parity: dict) -> list[str]:
    (facts,) = parity["models"].values()
    return list(describe_failures(facts))


def rows(*wrong: str) -> dict:
    """What the documents' chemicals answers would be, those of `wrong` missing their name."""
    return {
        (one.id, task): {
            "document": one.id,
            "task": task,
            "completion": "-" if one.id in wrong or task != "chemicals" else f"- {one.gold('chemicals')[0]}",
            "finish": "stop",
        }
        for one in DOCUMENTS
        for task in one.tasks
    }


def test_comparison_by_hand():
    found = compare_answers(DOCUMENTS, rows(), rows("2"))
    assert found["exact_completions"] == 299 / 300
    chemicals = found["tasks"]["chemicals"]
    assert chemicals["adapter_f1"] == 1
    assert chemicals["f1"] == pytest.approx(198 / 199)  # 99 found, 1 missed
    assert chemicals["change"] == pytest.approx(-1 / 199)
    assert chemicals["ci95"][0] < -1 / 199 < chemicals["ci95"][1]
    assert found["tasks"]["diseases"]["change"] == 0


@pytest.mark.parametrize(
    ("change", "micro", "identical", "exact", "verdict"),
    [
        (True, True, 9, 0.95, "passed"),
        (False, True, 9, 0.95, "undecided"),
        (True, False, 9, 0.95, "undecided"),
        (True, True, 8, 0.95, "failed"),
        (True, True, 9, 0.85, "failed"),
    ],
)
def test_what_passes(change, micro, identical, exact, verdict):
    facts = {"prompts": 9, "identical_prompts": identical, "exact_completions": exact, "least_exact": 0.9}
    micro, change = ({"passed": ok, "ci95": [-0.1, 0.1]} for ok in (micro, change))
    assert decide({**facts, "micro": micro, "tasks": {"chemicals": change}}) == verdict


def test_a_failure_says_whether_something_was_lost_or_too_little_is_known():
    few = DOCUMENTS[:8]
    kept = {key: row for key, row in rows().items() if key[0] in {one.id for one in few}}
    facts = compare_answers(few, kept, kept) | {"least_exact": 0.9}
    parity = {"documents": 8, "models": {"x.gguf": {**facts, "passed": False}}}
    assert decide(facts) == "undecided"
    assert "so large a loss is neither shown nor excluded" in next(describe_failures(facts))
    shown = render_parity(parity)
    assert shown.startswith("x.gguf: UNDECIDED, F1 +0.0 points")
    assert "8 validation articles are too few: of 100 files that lose nothing such a check would pass 0; about " in shown


def test_as_many_articles_as_it_says_would_do():
    """Forty articles of four items each are too few; as many as it then asks for pass what loses nothing."""
    def told(count: int) -> str:
        some = [document(number, *NAMES[number % 4]) for number in range(count)]
        asked = [(one, task) for one in some for task in one.tasks]
        right = {
            (one.id, task): {"document": one.id, "task": task, "completion": render_answer(one.gold(task)), "finish": "stop"}
            for one, task in asked
        }
        return describe_power(compare_answers(some, right, right) | {"least_exact": 0.9}, count)

    few = told(40)
    assert few.startswith("40 validation articles are too few")
    enough = told(int(few.split(" about ")[1].split()[0]))
    assert "passes 9" in enough and " of 100 files that lose nothing, and at most 5 of 100 that lose" in enough
    assert "nearly all" not in enough


def test_what_fails_is_a_loss_that_is_shown():
    same = compare_answers(DOCUMENTS, rows(), rows()) | {"least_exact": 0.9}
    assert decide(same) != "failed"
    assert decide(same | {"exact_completions": 0.85}) == decide(same | {"prompts": 9, "identical_prompts": 8}) == "failed"
    assert decide(same | {"micro": {"passed": False, "ci95": [-0.05, -0.01]}}) == "failed"
    assert decide(same | {"micro": {"passed": False, "ci95": [-0.05, 0.01]}}) == "undecided"


def test_an_adapter_that_was_not_asked_everything_is_told(tmp_path):
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows().values() if row["document"] != "3"), encoding="utf-8")
    with pytest.raises(InputError, match="no answer for document 3"):
        read_answers(path, DOCUMENTS)
    assert len(read_answers(path, DOCUMENTS[:3])) == 9


@pytest.mark.slow
def test_the_merged_model_is_opened_by_the_loader_that_trained(tmp_path, monkeypatch):
    """Unsloth gives Llama a forward that reads what only its own loader sets, here in miniature."""
    forward, load = LlamaModel.forward, loading.load_with_transformers

    def patched_forward(model, *arguments, **keywords):
        assert model.max_seq_length
        return forward(model, *arguments, **keywords)

    def load_patched(*arguments):
        model = load(*arguments)
        model.model.max_seq_length = 512
        return model

    monkeypatch.setattr(LlamaModel, "forward", patched_forward)
    monkeypatch.setattr(loading, "load_with_transformers", load_patched)
    save_adapter(save_base(tmp_path / "base"), tmp_path / "adapter")
    engine = _open_merged(merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged"), 1024, False)
    rows = [row for rows in engine(plan_chats(DOCUMENTS[:1], layout="conversation", max_new_tokens=2)) for row in rows]
    assert [row["task"] for row in rows] == ["chemicals", "diseases", "relations"]
