"""Precision and compilation: the faster format where there is one, and compiled blocks that compute the same."""

import pytest
import torch
from accelerate import PartialState
from torch._dynamo.utils import counters

from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from training import precision
from training.precision import can_compile, choose_precision, compiled_parts, has_fast_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "fast"), [({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({}, False)]
)
def test_a_cpu_with_amx_multiplies_bfloat16_faster(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16(CPU) is fast


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "no")])
def test_the_precision_is_the_faster_one_unless_one_is_asked_for(monkeypatch, fast, chosen):
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: fast)
    assert choose_precision("auto") == chosen
    assert choose_precision("no") == "no"
    assert choose_precision("bf16") == "bf16"


# What turns scores into weights: torch's kernel, or the Performer's exponentials. The Linformer's are in bfloat16.
KERNEL = (torch.nn.functional, "scaled_dot_product_attention")
WEIGHTING = {"vanilla": KERNEL, "bigbird": KERNEL, "window": KERNEL, "performer": (torch.Tensor, "exp")}


@pytest.mark.parametrize("attention", WEIGHTING)
def test_attention_weights_are_computed_in_float32_under_cpu_autocast(tiny_model, attention, monkeypatch):
    owner, name = WEIGHTING[attention]
    original = getattr(owner, name)
    seen = []

    def record(*tensors, **settings):
        result = original(*tensors, **settings)
        seen.append(result.dtype)
        if owner is KERNEL[0]:  # whose gradient is slow in bfloat16, so its operands are float32 as well
            seen.extend(tensor.dtype for tensor in tensors)
            assert not torch.is_autocast_enabled("cpu")
        return result

    monkeypatch.setattr(owner, name, record)
    ids = torch.arange(48).reshape(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        tiny_model(attention_type=attention)(ids, labels=ids).loss.backward()
    assert set(seen) == {torch.float32}


@pytest.fixture
def compiler():
    if not can_compile(CPU):
        pytest.skip("needs a C++ compiler")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def loss_and_gradients(model, batch):
    model.zero_grad()
    labels = batch.masked_fill(torch.arange(batch.shape[1]) < 5, -100)  # as the loop has it: no loss on titles
    loss = model(batch, labels=labels, num_items_in_batch=batch.numel() - 1, use_cache=False, skip_logits=True).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


# Two kinds in one model, and each of the others alone.
MODELS = [["vanilla", "linformer"], *(name for name in ATTENTION_CLASSES if name not in ("vanilla", "linformer"))]


@pytest.mark.parametrize("attention", MODELS, ids=str)
def test_compiled_parts_compute_the_same_at_every_length_and_are_the_models_own_again(tiny_model, compiler, attention):
    model = tiny_model(attention_type=attention)
    batches = [
        torch.randint(2, 300, size, generator=torch.Generator().manual_seed(0))
        for size in ((3, 19), (8, 20), (20, 20), (8, 7), (5, 33), (8, 60), (2, 12))
    ]
    expected = [loss_and_gradients(model, batch) for batch in batches]
    own = [set(vars(module)) for module in model.modules()]
    with compiled_parts(model, CPU, rows=8):
        assert all("forward" in vars(block) for block in model.model.layers)
        counters.clear()
        found = [loss_and_gradients(model, batch) for batch in batches]
        assert not counters["stats"], "what the warm-up compiled was not used"
    assert [set(vars(module)) for module in model.modules()] == own
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_warming_up_leaves_no_trace(tiny_model, compiler):
    model = tiny_model(residual_dropout=0.1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with compiled_parts(model, CPU, rows=8):
        assert torch.equal(torch.get_rng_state(), before)
        assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_compiler_a_warning_says_so_and_training_continues(tiny_model, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    PartialState(cpu=True)  # Accelerate's loggers ask it whether this process is the one that speaks
    model = tiny_model()
    with compiled_parts(model, CPU, rows=8):
        loss_and_gradients(model, torch.full((2, 5), 5))
    assert "run.compile needs a compiler" in caplog.text
