"""The head on completion positions only: its loss and gradients are those of the full computation, to float64's precision."""

from __future__ import annotations

import ast
import os
import types
from pathlib import Path

import pytest

from pipeline.head import HIDDEN_STATES, completion_loss, use_completion_head

torch = pytest.importorskip("torch")
SITE = Path(os.environ.get("UNSLOTH_SITE", "/nonexistent"))


@pytest.fixture
def model():
    """A Llama of two layers in float64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return LlamaForCausalLM(config).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    ids = torch.randint(0, 64, (3, 20))
    labels = ids.clone()
    labels[:, :14] = -100
    labels[1, 10:12] = ids[1, 10:12]  # a conversation's first answer
    labels[2, 17:] = -100
    return ids, labels


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("num_items", [None, 100])
@pytest.mark.parametrize("chunk", [1024, 5])
def test_loss_and_gradients_equal_the_full_computation(model, batch, num_items, chunk):
    ids, labels = batch
    full = model(input_ids=ids, labels=labels, num_items_in_batch=num_items).loss
    full.backward()
    expected = gradients(model)
    hidden = model.model(input_ids=ids).last_hidden_state
    ours = completion_loss(hidden, model.lm_head.weight, labels, num_items, chunk=chunk)
    ours.backward()
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(full.item(), rel=1e-6)  # transformers computes its loss in float32
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-8)


def test_loss_equals_a_hand_computed_one_in_float64(model, batch):
    ids, labels = batch
    hidden = model.model(input_ids=ids).last_hidden_state
    logits = hidden @ model.lm_head.weight.T
    pairs = [(row, position) for row in range(3) for position in range(19) if labels[row, position + 1] != -100]
    expected = -sum(logits[row, p].log_softmax(-1)[labels[row, p + 1]] for row, p in pairs) / len(pairs)
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
    ours = completion_loss(hidden, model.lm_head.weight, labels, chunk=4)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-14)
    for gradient, other in zip(torch.autograd.grad(ours, parameters), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-11, atol=1e-14)


def test_micro_batches_divided_by_the_whole_step_add_up_to_one_large_batch(model, batch):
    ids, labels = batch
    items = int((labels[:, 1:] != -100).sum())

    def loss(rows):
        hidden = model.model(input_ids=ids[rows]).last_hidden_state
        return completion_loss(hidden, model.lm_head.weight, labels[rows], items)

    assert sum(loss([row]).item() for row in range(3)) == pytest.approx(loss([0, 1, 2]).item(), rel=1e-12)


def test_a_batch_without_completions_gives_zero_and_still_reaches_every_parameter(model, batch):
    hidden = model.model(input_ids=batch[0]).last_hidden_state
    loss = completion_loss(hidden, model.lm_head.weight, torch.full((3, 20), -100))
    loss.backward()
    assert loss.item() == 0
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_gemma_bounds_its_logits(model, batch):
    ids, labels = batch
    hidden = model.model(input_ids=ids).last_hidden_state
    logits = 3 * torch.tanh((hidden @ model.lm_head.weight.T)[:, :-1] / 3)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    assert completion_loss(hidden, model.lm_head.weight, labels, softcap=3.0).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def give_hidden_states(model):
    """As Unsloth's forward passes do where the variable is set."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    original = model.forward

    def forward(self, *arguments, labels=None, num_items_in_batch=None, **keywords):
        if os.environ.get(HIDDEN_STATES) == "1":
            return CausalLMOutputWithPast(logits=self.model(*arguments, **keywords).last_hidden_state)
        return original(*arguments, labels=labels, num_items_in_batch=num_items_in_batch, **keywords)

    model.forward = types.MethodType(forward, model)


def test_a_model_in_a_peft_wrapper_learns_by_it_and_generates_as_before(model, batch):
    from peft import LoraConfig, get_peft_model

    ids, labels = batch
    give_hidden_states(model)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    full = wrapped(input_ids=ids, labels=labels, num_items_in_batch=30).loss.item()
    use_completion_head(wrapped)
    output = wrapped(input_ids=ids, labels=labels, num_items_in_batch=30)
    assert output.loss.item() == pytest.approx(full, rel=1e-6)
    assert HIDDEN_STATES not in os.environ
    assert wrapped(input_ids=ids).logits.shape == (3, 20, 64)


def test_a_model_that_ignores_the_variable_is_noticed(model, batch):
    use_completion_head(model)
    with pytest.raises(RuntimeError, match="no UNSLOTH_RETURN_HIDDEN_STATES"):
        model(input_ids=batch[0], labels=batch[1])


def test_unsloth_gives_hidden_states_before_it_computes_its_loss():
    """Read from the installed source: the branch on the variable returns, and stands before the fused loss."""
    source = SITE / "unsloth" / "models" / "llama.py"
    if not source.exists():
        pytest.skip("UNSLOTH_SITE names no folder with unsloth in it")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    outer = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "CausalLM_fast_forward")
    forward = next(n for n in outer.body if isinstance(n, ast.FunctionDef))
    branch = next(n for n in ast.walk(forward) if isinstance(n, ast.If) and HIDDEN_STATES in ast.unparse(n.test))
    fused = next(n for n in ast.walk(forward) if isinstance(n, ast.Call) and ast.unparse(n.func) == "unsloth_fused_ce_loss")
    assert any(isinstance(n, ast.Return) for n in branch.body)
    assert branch.end_lineno < fused.lineno
