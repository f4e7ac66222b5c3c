"""Generation against the plainest reference there is: the whole sequence read again for every token, one chat at a time."""

import json
from dataclasses import replace

import pytest
import torch
from articles import is_in, rows_by_task
from tiny_llama import tiny_model, tiny_tokenizer

from data.prompts import LAYOUTS, SYSTEM, read_answer, render_next_prompt, render_prompt
from data.schema import TASKS, Document, InputError
from eval.chat_template import read_template
from eval.chats import plan_chats
from eval.completions import write_completions
from eval.engines import huggingface as engine_transformers
from eval.engines.huggingface import ask_model
from eval.engines.kv_cache import Rows
from eval.engines.unsloth_generate import is_patched

DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
SENTENCE = "Naloxone reversed the antihypertensive effect of clonidine (5-HT, \u03b1-methyldopa). "


@pytest.fixture(scope="module")
def model():
    model = tiny_model(spread=2.4)
    # A random model hardly ever says the end token: these bytes, which no article holds, end an answer too, so that rows
    # finish raggedly.
    model.generation_config.eos_token_id = [model.config.eos_token_id, *range(199, 220)]
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def documents():
    return [Document(f"d{n}", SENTENCE * (1 + n * n % 7), title="In rats" if n % 2 else None) for n in range(9)]


def read_lines(path):
    return path.read_text(encoding="utf-8").splitlines()


@torch.inference_mode()
def answer_plainly(model, tokenizer, documents, layout, budget):
    """{(document, task): (ids, finish)}, from a growing list of ids, without cache, padding or batch."""
    stops = set(model.generation_config.eos_token_id)
    answers = {}
    turns = {
        "conversation": [TASKS],
        "relations-first": [("relations", "chemicals", "diseases")],
        "separate": [(task,) for task in TASKS],
    }
    for document in documents:
        for tasks in turns[layout]:
            ids = []
            for task in tasks:
                if not ids:
                    user = render_prompt(document.article, task)
                    text = f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{DATES}{SYSTEM}<|eot_id|>"
                else:
                    user, text = render_next_prompt(task), "<|eot_id|>"
                text += f"<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
                text += "<|start_header_id|>assistant<|end_header_id|>\n\n"
                ids += tokenizer(text, add_special_tokens=False)["input_ids"]
                answer, finish = [], "length"
                while len(answer) < budget:
                    token = model(input_ids=torch.tensor([ids + answer])).logits[0, -1].argmax().item()
                    if token in stops:
                        finish = "stop"
                        break
                    answer.append(token)
                ids += answer
                answers[document.id, task] = (tokenizer.decode(answer, skip_special_tokens=True), finish)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_tokens", [1, 2_000, 100_000])
def test_batches_answer_as_the_plain_loop_does(model, tokenizer, documents, tmp_path, layout, batch_tokens):
    path = ask_model(
        model, tokenizer, documents, tmp_path / "c.jsonl", layout=layout, max_new_tokens=20, batch_tokens=batch_tokens
    )
    rows = {key: (row["completion"], row["finish"]) for key, row in rows_by_task(path).items()}
    assert rows == answer_plainly(model, tokenizer, documents, layout, 20)
    assert {finish for _, finish in rows.values()} == {"stop", "length"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grounded", [False, True])
def test_a_patched_model_answers_the_same_through_its_generate(
    model, tokenizer, documents, tmp_path, monkeypatch, layout, grounded
):
    settings = {"layout": layout, "max_new_tokens": 12, "batch_tokens": 5_000, "grounded": grounded, "logprobs": True}
    ours = ask_model(model, tokenizer, documents, tmp_path / "ours.jsonl", **settings)
    monkeypatch.setattr(engine_transformers, "is_patched", lambda model: True)
    theirs = ask_model(model, tokenizer, documents, tmp_path / "theirs.jsonl", **settings)
    ours, theirs = rows_by_task(ours), rows_by_task(theirs)
    chances = [[chance for _, chance in row.pop("logprobs")] for rows in (ours, theirs) for _, row in sorted(rows.items())]
    assert ours == theirs
    assert sum(chances[: len(ours)], []) == pytest.approx(sum(chances[len(ours) :], []), abs=1e-3)


def test_unsloths_patches_are_recognised(model, monkeypatch):
    assert not is_patched(model)

    def forward(self):
        pass

    forward.__module__ = "unsloth.models.llama"
    monkeypatch.setattr(type(model.model.layers[0].self_attn), "forward", forward)
    assert is_patched(model)


@pytest.mark.slow
def test_separate_answers_as_transformers_generate_does(model, tokenizer, documents, tmp_path):
    path = ask_model(
        model, tokenizer, documents, tmp_path / "c.jsonl", layout="separate", max_new_tokens=12, batch_tokens=10_000
    )
    stops = model.generation_config.eos_token_id
    for (document, task), row in rows_by_task(path).items():
        article = next(d for d in documents if d.id == document).article
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": render_prompt(article, task)}]
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        assert row["finish"] == ("stop" if ids[-1] in stops else "length")
        ids = ids[:-1] if ids[-1] in stops else ids
        assert row["completion"] == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_gone_on_with_and_a_half_line_cut(model, tokenizer, documents, tmp_path, layout):
    settings = {"layout": layout, "max_new_tokens": {"chemicals": 9, "diseases": 5, "relations": 7}, "batch_tokens": 4_000}
    whole = ask_model(model, tokenizer, documents, tmp_path / "whole.jsonl", **settings)
    lines = whole.read_bytes().splitlines(keepends=True)
    part = tmp_path / "deep" / "part.jsonl"
    part.parent.mkdir()
    part.write_bytes(b"".join(lines[:10]) + lines[10][:25])
    ask_model(model, tokenizer, documents, part, **settings)
    assert part.read_bytes().splitlines(keepends=True)[:10] == lines[:10]
    assert rows_by_task(part) == rows_by_task(whole)
    assert len(part.read_bytes().splitlines()) == len(lines) == len(documents) * 3
    before = part.stat().st_mtime_ns, part.read_bytes()
    ask_model(model, tokenizer, documents, part, **settings)
    assert part.read_bytes() == before[1]


def test_an_interruption_loses_nothing_that_came(documents, tmp_path):
    def engine(chats):
        for number, chat in enumerate(chats):
            if number == 4:
                raise KeyboardInterrupt
            yield [{"document": chat.document.id, "task": task, "completion": "-", "finish": "stop"} for task in chat.tasks]

    with pytest.raises(KeyboardInterrupt):
        write_completions(engine, documents, tmp_path / "c.jsonl", layout="conversation", max_new_tokens=5)
    assert len(rows_by_task(tmp_path / "c.jsonl")) == 4 * 3


@pytest.mark.parametrize("line", ["{", '{"document": "d1"}', '{"document": "other", "task": "chemicals"}', "[]"])
def test_a_file_of_something_else_is_refused_and_kept(model, tokenizer, documents, tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.jsonl:1: "):
        ask_model(model, tokenizer, documents, path, layout="separate", max_new_tokens=5, batch_tokens=100)
    assert path.read_text(encoding="utf-8") == line + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "error"),
    [
        ("separate", torch.OutOfMemoryError),
        ("conversation", MemoryError),
        ("separate", RuntimeError("[enforce fail] can't allocate memory")),
    ],
)
def test_a_batch_that_runs_out_of_memory_is_halved(model, tokenizer, documents, tmp_path, monkeypatch, layout, error):
    sizes, read = [], Rows.read

    def read_few(rows, ids):
        sizes.append(len(ids))
        if len(ids) > 3 or len(sizes) == 40:  # too many at a time, and once out of the blue in the middle
            raise error
        return read(rows, ids)

    settings = {"layout": layout, "max_new_tokens": 6, "batch_tokens": 100_000}
    whole = ask_model(model, tokenizer, documents, tmp_path / "whole.jsonl", **settings)
    monkeypatch.setattr(Rows, "read", read_few)
    halved = ask_model(model, tokenizer, documents, tmp_path / "halved.jsonl", **settings)
    assert rows_by_task(halved) == rows_by_task(whole)
    assert len(read_lines(halved)) == len(documents) * 3
    assert max(sizes) > 6 and max(sizes[20:]) <= 3


def test_a_failure_of_the_program_is_not_taken_for_a_full_memory(model, tokenizer, documents, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Rows, "read", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ask_model(model, tokenizer, documents, tmp_path / "c.jsonl", layout="separate", max_new_tokens=5, batch_tokens=10_000)


def test_a_document_too_long_for_the_model_is_refused_before_any_is_answered(tokenizer, documents, tmp_path):
    long = Document("long one", SENTENCE * 40)
    with pytest.raises(InputError, match="document long one needs"):
        ask_model(
            tiny_model(positions=1024), tokenizer, [*documents, long], tmp_path / "c.jsonl",
            layout="separate", max_new_tokens=5, batch_tokens=10_000,
        )  # fmt: skip
    assert (tmp_path / "c.jsonl").read_bytes() == b""


@pytest.mark.parametrize("answer", ["- a", "-", "- \u03b1-methyldopa | (5-HT) tremor\n- b | c"])
def test_turn_ids_are_what_the_template_renders_around_answers(tokenizer, documents, answer):
    chat = plan_chats(documents[:1], layout="conversation", max_new_tokens=5)[0]
    turns = read_template(tokenizer).prompt_ids(chat.prompts)
    messages = [{"role": "system", "content": SYSTEM}]
    ids, own = [], tokenizer(answer, add_special_tokens=False)["input_ids"]
    for prompt, turn in zip(chat.prompts, turns, strict=True):
        messages += [{"role": "user", "content": prompt}]
        ids += turn
        assert ids == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        messages += [{"role": "assistant", "content": answer}]
        ids += own
    assert ids.count(tokenizer.bos_token_id) == 1
    assert all(turn[0] == tokenizer.eos_token_id for turn in turns[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{{- bos_token }}", ""), "exactly one"),
        (("{{- bos_token }}", "{{- bos_token }}{{- bos_token }}"), "exactly one"),
        (("'<|start_header_id|>' + message['role']", "(messages|length)|string + message['role']"), "changes earlier turns"),
    ],
)
def test_a_template_that_would_not_match_training_is_refused(tokenizer, documents, monkeypatch, change, message):
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template.replace(*change))
    chat = plan_chats(documents[:1], layout="conversation", max_new_tokens=5)[0]
    with pytest.raises(InputError, match=message):
        read_template(tokenizer).prompt_ids(chat.prompts)


def test_the_stop_token_is_the_templates_and_never_padding(model, tokenizer, monkeypatch):
    monkeypatch.setattr(model.generation_config, "eos_token_id", tokenizer.pad_token_id)
    assert engine_transformers.stop_ids(model, tokenizer, 7) == {7}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logprobs_are_the_models_and_their_texts_make_the_answer(model, tokenizer, documents, tmp_path, layout):
    path = ask_model(
        model, tokenizer, documents[:3], tmp_path / "c.jsonl",
        layout=layout, max_new_tokens=15, batch_tokens=10_000, logprobs=True,
    )  # fmt: skip
    rows = rows_by_task(path)
    assert all("".join(text for text, _ in row["logprobs"]) == row["completion"] for row in rows.values())
    chat = plan_chats(documents[1:], layout=layout, max_new_tokens=5)[0]
    row = rows["d1", chat.tasks[0]]
    prompt = read_template(tokenizer).prompt_ids(chat.prompts)
    with torch.inference_mode():
        first = model(input_ids=torch.tensor([prompt[0]])).logits[0, -1].log_softmax(-1).max().item()
    assert row["logprobs"][0][1] == pytest.approx(first, abs=1e-4)


def test_each_document_is_asked_its_own_tasks_unless_told_otherwise():
    documents = [Document("a", "x", tasks=("diseases",)), Document("b", "y"), Document("c", "z", tasks=())]
    chats = plan_chats(documents, layout="conversation", max_new_tokens=5)
    assert [(chat.document.id, chat.tasks) for chat in chats] == [("a", ("diseases",)), ("b", TASKS)]
    budgets = {"relations": 3, "chemicals": 2}
    chats = plan_chats(documents, layout="separate", tasks=["relations", "chemicals"], max_new_tokens=budgets)
    assert [(chat.tasks, chat.budgets) for chat in chats[:2]] == [(("chemicals",), (2,)), (("relations",), (3,))]
    chats = plan_chats(documents, layout="relations-first", max_new_tokens=5)
    assert [chat.tasks for chat in chats] == [("diseases",), ("relations", "chemicals", "diseases")]
    with pytest.raises(InputError, match="document a: the model was not trained to list its diseases"):
        plan_chats(documents, layout="conversation", max_new_tokens=budgets)


def say_nothing(chats):
    for chat in chats:
        yield [{"document": chat.document.id, "task": task, "completion": "-", "finish": "stop"} for task in chat.tasks]


def write(documents, path, engine=say_nothing, **settings):
    return write_completions(engine, documents, path, layout="conversation", max_new_tokens=5, **settings)


def test_a_log_gets_plain_lines_now_and_then_and_none_of_a_short_job(documents, tmp_path, capsys, monkeypatch):
    write(documents, tmp_path / "short.jsonl")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("eval.progress.SECONDS", 1e-9)
    write(documents, tmp_path / "long.jsonl")
    told = capsys.readouterr().err
    assert "\r" not in told and all(line.startswith("answers: ") for line in told.splitlines() if line)
    assert "27/27" in told
    write(documents, tmp_path / "hidden.jsonl", progress=False)
    assert capsys.readouterr().err == ""


def test_answers_are_kept_with_what_produced_them(documents, tmp_path):
    path = write(documents, tmp_path / "a" / "completions.jsonl", provenance={"engine": "x", "weights": {"a": "1" * 64}})
    beside = json.loads((tmp_path / "a" / "provenance.json").read_text(encoding="utf-8"))
    assert beside.keys() == {"engine", "weights", "layout", "max_new_tokens", "prompts_sha256"}
    before = path.read_bytes()

    def never(chats):
        raise AssertionError("asked again, or opened for nothing")

    write(documents, path, never, provenance={"weights": {"a": "1" * 64}, "engine": "x"})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("provenance", "change", "message"),
    [
        ({"engine": "y"}, None, "engine: x there, y here"),
        ({"engine": "x", "weights": {"a": "2" * 64}}, None, "weights a: 111111111111… there, 222222222222… here"),
        (None, "article", "prompts_sha256"),
        (None, "provenance", r"provenance.json is missing"),
        (None, "rows", "line"),
    ],
)
def test_answers_of_another_variant_are_refused_with_the_way_out(documents, tmp_path, provenance, change, message):
    known = {"engine": "x", "weights": {"a": "1" * 64}}
    path = write(documents, tmp_path / "a" / "completions.jsonl", provenance=known)
    if change == "article":
        documents = [replace(documents[0], text="Another text."), *documents[1:]]
    if change == "provenance":
        (tmp_path / "a" / "provenance.json").unlink()
    if change == "rows":
        path.unlink()  # nothing was answered: started over, whatever stands beside it
        assert write(documents, path, provenance={"engine": "y"}).exists()
        return
    before = path.read_bytes()
    with pytest.raises(InputError, match=message) as refused:
        write(documents, path, provenance=provenance or known)
    assert f"delete {tmp_path / 'a'}" in str(refused.value)
    assert path.read_bytes() == before


def test_one_process_writes_a_file_at_a_time(documents, tmp_path):
    path = tmp_path / "completions.jsonl"

    def second(chats):
        with pytest.raises(InputError, match="another process is writing these answers"):
            write(documents, path)
        yield from say_nothing(chats)

    write(documents, path, second)
    assert len(rows_by_task(path)) == len(documents) * 3
    write(documents, path)


def test_an_answer_that_comes_twice_is_written_once_and_odd_line_breaks_are_read_back(documents, tmp_path):
    def twice(chats):
        for rows in say_nothing(chats):
            rows = [row | {"completion": "- a\u2028b\x85c"} for row in rows]
            yield rows[:1]
            yield rows

    path = write(documents, tmp_path / "completions.jsonl", twice)
    assert path.read_text(encoding="utf-8").count("\n") == len(documents) * 3
    write(documents, path)


def test_training_goes_on_in_the_mode_it_was_in(model, tokenizer, documents, tmp_path):
    model.train()
    ask_model(model, tokenizer, documents[:1], tmp_path / "c.jsonl", layout="separate", max_new_tokens=2, batch_tokens=100)
    assert model.training
    model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grounded_answers_are_verbatim_and_end_whatever_the_batch(model, tokenizer, documents, tmp_path, layout):
    settings = {"layout": layout, "max_new_tokens": 24, "grounded": True}
    path = ask_model(model, tokenizer, documents, tmp_path / "c.jsonl", batch_tokens=100_000, **settings)
    alone = ask_model(model, tokenizer, documents, tmp_path / "alone.jsonl", batch_tokens=1, **settings)
    rows = rows_by_task(path)
    assert rows == rows_by_task(alone)
    articles = {document.id: document.article for document in documents}
    for (document, task), row in rows.items():
        items, malformed = read_answer(row["completion"], task)
        assert row["finish"] == "stop" and not malformed and len(items) == len(set(items))
        assert all(is_in(item, articles[document]) for item in items)
    assert any(len(row["completion"]) > 20 for row in rows.values())


def test_relations_of_the_names_just_listed(model, tokenizer, documents, tmp_path):
    path = ask_model(
        model, tokenizer, documents, tmp_path / "c.jsonl", layout="conversation",
        max_new_tokens=24, batch_tokens=100_000, grounded=True, listed_sides=True,
    )  # fmt: skip
    rows = rows_by_task(path)
    for document in documents:
        listed = [set(read_answer(rows[document.id, task]["completion"], task)[0]) for task in TASKS]
        assert all(chemical in listed[0] and disease in listed[1] for chemical, disease in listed[2])
