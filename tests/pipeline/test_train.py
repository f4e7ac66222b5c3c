"""What the real trainer trains on, proven on its collated batches: the answers and their end tokens, and nothing else."""

from __future__ import annotations

import copy
import math
import signal
from dataclasses import replace

import pytest
import torch
from tiny_llama import save_base, tiny_tokenizer
from torch.nn import functional
from transformers import TrainerCallback

from data.files import write_text
from data.prompts import LAYOUTS, answer_of, order_tasks
from data.schema import TASKS, Document, InputError, Mention, Relation
from pipeline.config import apply_settings
from pipeline.model import load_model, model_path
from pipeline.training.checkpoints import last_checkpoint, seal
from pipeline.training.loss_mask import encode_documents
from pipeline.training.train import check_training, make_trainer, train_adapter

IGNORED = -100
DOCUMENTS = [
    Document(
        f"d{n}",
        f"Case {n}: gout came after lead. " * (1 + n % 3),
        mentions=(*(Mention(f"lead {i}", "Chemical") for i in range(n)), Mention("gout", "Disease")),
        relations=(Relation("lead", "gout"),) * (n % 2),
        tasks=TASKS if n else ("chemicals", "diseases"),
    )
    for n in range(4)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"), width=64, positions=3072)


@pytest.fixture
def settings(base):
    """One step over four examples in one batch; plain gradient descent, so that weights show the gradient's size."""
    explicit = {
        "model.name": str(base), "model.dtype": "float32", "model.load_in_4bit": False, "model.max_length": 1024,
        "lora.r": 4, "train.max_steps": 1, "train.learning_rate": 1.0, "train.optim": "sgd", "train.weight_decay": 0.0,
        "train.warmup_steps": 0.0, "train.max_grad_norm": 0.0, "train.lr_scheduler_type": "constant",
        "train.per_device_train_batch_size": 4, "train.per_device_eval_batch_size": 4,
        "train.gradient_accumulation_steps": 1, "train.gradient_checkpointing": False, "train.report_to": "none",
    }  # fmt: skip
    return apply_settings(explicit)


def change(settings, **train):
    return replace(settings, train=replace(settings.train, **train))


def trainer_of(settings, examples, folder, validation=(), tokenizer=None):
    model = load_model(settings, trainable=True)
    return make_trainer(settings, model, tokenizer or tiny_tokenizer(), examples, validation, folder)


def collate(trainer):
    (batch,) = trainer.get_train_dataloader()
    return batch


def faults(tokenizer, batch, documents, layout):
    """What is wrong with a collated batch: nothing, where exactly the answers of these documents are trained on."""
    answers = [[f"{answer_of(d, task)}<|eot_id|>" for task in order_tasks(d.tasks, layout)] for d in documents]
    expected = [one for own in answers for one in own] if layout == "separate" else ["".join(own) for own in answers]
    found, trained = [], []
    for ids, labels, attended in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        supervised = labels != IGNORED
        trained.append(tokenizer.decode(ids[supervised]))
        if not torch.equal(labels[supervised], ids[supervised]):
            found.append("labels differ from the ids")
        if (ids[attended.bool()] == tokenizer.bos_token_id).sum() != 1:
            found.append("not exactly one begin-of-text token")
        if (supervised & ~attended.bool()).any():
            found.append("padding is trained on")
        if labels[attended.bool()][-1] != tokenizer.convert_tokens_to_ids("<|eot_id|>"):
            found.append("the end token is not trained on")
    if sorted(trained) != sorted(expected):
        found.append("what is trained on is not the answers")
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pad_is_end", [False, True])
def test_the_collated_batch_trains_on_answers_and_ends_alone(settings, tmp_path, layout, pad_is_end):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    if pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    documents = DOCUMENTS if layout != "separate" else [DOCUMENTS[0], replace(DOCUMENTS[3], tasks=TASKS[:2])]
    examples = encode_documents(tokenizer, documents, layout)
    batch = collate(trainer_of(settings, examples, tmp_path, tokenizer=tokenizer))
    assert len(batch["labels"]) == len(examples) == 4 and not batch["attention_mask"].all()
    assert faults(tokenizer, batch, documents, layout) == []
    ends = (batch["labels"] == tokenizer.eos_token_id).sum().item()
    assert ends == sum(len(d.tasks) for d in documents)


def shifted(example, by):
    mask = example["completion_mask"]
    return {"input_ids": example["input_ids"], "completion_mask": mask[by:] + [0] * by if by > 0 else [0] * -by + mask[:by]}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda e: e | {"completion_mask": [1] * len(e["input_ids"])}, "what is trained on is not the answers"),
        (lambda e: shifted(e, 1), "the end token is not trained on"),
        (lambda e: shifted(e, -1), "what is trained on is not the answers"),
        (lambda e: {key: value[:-1] for key, value in e.items()}, "the end token is not trained on"),
        (lambda e: {key: value[:1] + value for key, value in e.items()}, "not exactly one begin-of-text token"),
    ],
)
def test_a_wrong_mask_is_seen(settings, tmp_path, spoil, fault):
    examples = [spoil(example) for example in encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")]
    batch = collate(trainer_of(settings, examples, tmp_path))
    assert fault in faults(tiny_tokenizer(), batch, DOCUMENTS, "conversation")


def test_without_completion_only_loss_every_token_would_be_trained_on(settings, tmp_path):
    from datasets import Dataset
    from trl import SFTTrainer

    from pipeline.training.train import training_arguments

    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    arguments = training_arguments(settings, len(examples), False, tmp_path)
    arguments.completion_only_loss = None  # TRL's default
    model = load_model(settings, trainable=True)
    data = Dataset.from_list(examples)
    batch = collate(SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tiny_tokenizer()))
    assert (batch["labels"] != IGNORED).sum() == batch["attention_mask"].sum()
    assert "what is trained on is not the answers" in faults(tiny_tokenizer(), batch, DOCUMENTS, "conversation")


def cross_entropy(model, examples, reduction):
    """Each example alone, without padding: the answers' tokens from all that stands before them."""
    losses = []
    for example in examples:
        ids = torch.tensor(example["input_ids"])
        answered = torch.tensor(example["completion_mask"]).bool()
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        losses.append(functional.cross_entropy(logits[:-1][answered[1:]], ids[1:][answered[1:]], reduction="none"))
    return getattr(torch.cat(losses), reduction)()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_trainers_loss_is_the_answers_cross_entropy_and_prompts_get_no_gradient(settings, tmp_path, layout):
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, layout)[:4]
    trainer = trainer_of(settings, examples, tmp_path)
    batch, kept = collate(trainer), []
    # The head reads the last norm's output and nothing else does: a position without gradient there has none in its logits.
    norm = trainer.model.base_model.model.model.norm
    hook = norm.register_forward_hook(lambda module, inputs, output: kept.append(output) or output.retain_grad())
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    hook.remove()
    assert loss.item() == pytest.approx(cross_entropy(trainer.model, examples, "mean").item(), rel=1e-5)
    predicting = functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
    size = kept[0].grad.abs().amax(-1)
    assert predicting.any() and (size[predicting] > 0).all() and (size[~predicting] == 0).all()


def adapter_after(settings, examples, folder, batch_size, accumulation):
    parts = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(change(settings, **parts), examples, folder)
    trainer.train()
    return {name: weight.detach() for name, weight in trainer.model.named_parameters() if weight.requires_grad}


@pytest.mark.slow
def test_a_step_is_the_same_in_one_batch_and_in_two(settings, tmp_path):
    """Answers differ in length, so that a mean of the batches' means would not be the step's."""
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    model = load_model(settings, trainable=True)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    cross_entropy(model, examples, "mean").backward()
    expected = {name: before[name] - weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert any(not torch.equal(expected[name], before[name]) for name in before)
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        after = adapter_after(settings, examples, tmp_path / str(batch_size), batch_size, accumulation)
        for name, weight in expected.items():
            torch.testing.assert_close(after[name], weight, rtol=1e-4, atol=5e-6)  # sums in another order: 1.1e-6 was seen


@pytest.mark.slow
def test_only_the_last_layers_get_an_adapter_where_so_set(settings):
    few = replace(settings, lora=replace(settings.lora, last_layers=1))
    whole, last = (load_model(one, trainable=True) for one in (settings, few))

    def trained(model):
        return {int(name.split(".layers.")[1].split(".")[0]) for name, p in model.named_parameters() if p.requires_grad}

    count = whole.config.num_hidden_layers
    assert count > 1 and trained(whole) == set(range(count)) and trained(last) == {count - 1}


def test_training_saves_the_adapter_with_all_it_needs(settings, tmp_path):
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    model = load_model(settings, trainable=True)
    facts = train_adapter(change(settings, max_steps=2), model, tiny_tokenizer(), examples, examples[:2], tmp_path)
    assert facts["steps"] == 2 and facts["examples"] == 4 and facts["best_step"] in (1, 2)
    assert math.isfinite(facts["train_loss"]) and facts["validation_loss"] > 0
    assert facts["trainable_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not (tmp_path / "adapter.part").exists()
    loaded = load_model(settings, adapter=tmp_path / "adapter").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())


class Interrupt(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_training_that_was_interrupted_ends_as_if_it_had_not_been(settings, tmp_path):
    settings = change(settings, max_steps=4, evaluations=4, optim="adamw_torch", learning_rate=1e-2)
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS * 2, "conversation")
    trainer = trainer_of(settings, examples, tmp_path / "cut", examples[:2])
    trainer.add_callback(Interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    half = tmp_path / "cut" / "checkpoints" / "checkpoint-3"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half of it")
    for run in ("cut", "whole"):
        model = load_model(settings, trainable=True)
        facts = train_adapter(settings, model, tiny_tokenizer(), examples, examples[:2], tmp_path / run)
        assert facts["steps"] == 4
    weights = [load_model(settings, adapter=tmp_path / run / "adapter").state_dict() for run in ("cut", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("longest", "saved"), [(600, ["checkpoint-3"]), (-1, ["checkpoint-2", "checkpoint-3"])])
def test_a_checkpoint_is_saved_in_time_between_evaluations(settings, tmp_path, monkeypatch, longest, saved):
    monkeypatch.setattr("pipeline.training.callbacks.LONGEST_UNSAVED", longest)
    settings = change(settings, max_steps=3, evaluations=1)
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    train_adapter(settings, load_model(settings, trainable=True), tiny_tokenizer(), examples, examples[:1], tmp_path)
    assert sorted(path.parent.name for path in tmp_path.glob("checkpoints/*/sealed.json")) == saved


@pytest.mark.slow
def test_an_adapter_that_was_saved_before_an_interruption_is_saved_again(settings, tmp_path):
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    for _ in range(2):
        train_adapter(settings, load_model(settings, trainable=True), tiny_tokenizer(), examples, [], tmp_path)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("checkpoints", "newest"),
    [
        ({}, None),
        ({"checkpoint-2": True, "checkpoint-10": True}, "checkpoint-10"),
        ({"checkpoint-2": True, "checkpoint-10": False}, "checkpoint-2"),
        ({"checkpoint-2": False}, None),
    ],
)
def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path, checkpoints, newest):
    for name, whole in checkpoints.items():
        state = write_text(tmp_path / name / "trainer_state.json", '{"best_global_step": null}')
        seal(state.parent)
        if not whole:
            state.write_text("{", encoding="utf-8")
    found = last_checkpoint(tmp_path)
    assert found == (tmp_path / newest if newest else None)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, whole in checkpoints.items() if whole}


class Signal(TrainerCallback):
    """A Ctrl-C in the middle of an epoch, between two evaluations."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_a_signal_saves_a_checkpoint_from_which_training_ends_bit_for_bit_as_if_undisturbed(
    settings, tmp_path, capsys, damaged
):
    """Dropout, accumulation and several epochs: what is drawn at random is drawn on where it was."""
    settings = change(
        settings, max_steps=9, evaluations=3, optim="adamw_torch", learning_rate=1e-2,
        per_device_train_batch_size=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    settings = replace(settings, lora=replace(settings.lora, lora_dropout=0.3))
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS * 4, "conversation")
    facts = {}
    for run in ("cut", "whole"):
        for callbacks in [[Signal()], []] if run == "cut" else [[]]:
            arguments = (
                load_model(settings, trainable=True),
                tiny_tokenizer(),
                examples,
                examples[:2],
                tmp_path / run,
                callbacks,
            )
            if callbacks:
                with pytest.raises(KeyboardInterrupt, match="at step 3"):
                    train_adapter(settings, *arguments)
                saved = tmp_path / run / "checkpoints" / "checkpoint-3"
                assert saved.exists()
                if damaged:
                    (saved / "optimizer.pt").write_bytes((saved / "optimizer.pt").read_bytes()[:100])
            else:
                facts[run] = train_adapter(settings, *arguments)
    assert ("optimizer.pt is missing or damaged; training begins anew" in capsys.readouterr().err) is damaged
    weights = [(tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("cut", "whole")]
    assert weights[0] == weights[1]
    assert facts["cut"]["steps"] == facts["whole"]["steps"] == 9
    again = train_adapter(
        settings, load_model(settings, trainable=True), tiny_tokenizer(), examples, examples[:2], tmp_path / "cut"
    )
    assert again["steps"] == 9  # ended, but not recorded: nothing is trained on top
    assert (tmp_path / "cut" / "adapter" / "adapter_model.safetensors").read_bytes() == weights[1]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_names_the_documents(settings, tmp_path):
    settings = change(settings, max_steps=6, learning_rate=1e30)
    examples = encode_documents(tiny_tokenizer(), DOCUMENTS, "conversation")
    model = load_model(settings, trainable=True)
    with pytest.raises(RuntimeError, match=r"the loss is nan at step \d, documents d0, d1, d2, d3; lower|no longer finite"):
        train_adapter(settings, model, tiny_tokenizer(), examples, [], tmp_path, owners=["d0", "d1", "d2", "d3"])
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optim": "foo"}, "train.optim=foo: unknown to transformers"),
        ({"optim": "adamw_torc"}, "did you mean adamw_torch"),
        ({"lr_scheduler_type": "foo"}, "train.lr_scheduler_type=foo: unknown to transformers"),
        ({"lr_scheduler_type": "liner"}, "did you mean linear"),
        ({"best_by": "f1", "eval_f1_articles": 0}, "train.best_by=f1: train.eval_f1_articles=0 answers no validation article"),
    ],
)
def test_what_training_would_refuse_is_refused_before(settings, tmp_path, changed, message):
    check_training(settings, 4, True, tmp_path)
    with pytest.raises(InputError) as refused:
        check_training(change(settings, **changed), 4, True, tmp_path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "none", "~/none", "a/b/c"])
def test_a_path_that_holds_no_model_is_refused(name):
    with pytest.raises(InputError, match=f"model.name={name}: no config.json there"):
        model_path(name)


def test_hub_ids_and_the_embedded_model_are_left_as_they_are(base):
    assert model_path("owner/name") == "owner/name"
    assert model_path(str(base)) == str(base)
    assert (base / "config.json").exists() and model_path("tiny").endswith("tiny")
