"""Precision and compilation: the faster format where there is one, and compiled blocks that compute the same."""

import pytest
import torch
from torch._dynamo.utils import counters

from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from training import precision
from training.precision import can_compile, choose_precision, compiled_blocks, has_fast_bfloat16

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


@pytest.mark.parametrize("attention", ATTENTION_CLASSES)
def test_the_attention_kernel_runs_in_float32_under_cpu_autocast(tiny_model, attention, monkeypatch):
    seen, sdpa = [], torch.nn.functional.scaled_dot_product_attention

    def record(query, key, value, **settings):
        seen.extend((query.dtype, key.dtype, value.dtype, torch.is_autocast_enabled("cpu")))
        return sdpa(query, key, value, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    ids = torch.arange(48).reshape(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        tiny_model(attention_type=attention)(ids, labels=ids).loss.backward()
    assert set(seen) <= {torch.float32, False}


@pytest.fixture
def compiler():
    if not can_compile(CPU):
        pytest.skip("needs a C++ compiler")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(batch, labels=batch, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@pytest.mark.parametrize("attention", ["vanilla", "linformer", "performer"])
def test_compiled_blocks_compute_the_same_and_are_the_models_own_again(tiny_model, compiler, attention):
    model = tiny_model(attention_type=attention)
    batch = torch.randint(2, 300, (3, 19), generator=torch.Generator().manual_seed(0))
    expected = loss_and_gradients(model, batch)
    own = [block.forward for block in model.model.layers]
    with compiled_blocks(model, CPU, rows=8):
        assert all(block.forward != before for block, before in zip(model.model.layers, own, strict=True))
        found = loss_and_gradients(model, batch)
    assert [block.forward for block in model.model.layers] == own
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["bigbird", "window"])
def test_blocks_that_cannot_be_compiled_stay_as_they_are_and_a_line_says_so(tiny_model, capsys, attention):
    model = tiny_model(attention_type=["vanilla", attention])
    first, second = model.model.layers
    with compiled_blocks(model, CPU, rows=8):
        assert "forward" in vars(first)
        assert "forward" not in vars(second)
    assert f"warning: run.compile leaves {attention} blocks as they are" in capsys.readouterr().out


def test_every_length_and_batch_runs_through_what_was_compiled_once(tiny_model, compiler):
    model = tiny_model()
    counters.clear()
    with compiled_blocks(model, CPU, rows=8):
        for rows, length in ((8, 20), (20, 20), (8, 7), (5, 33), (8, 60), (2, 12)):
            loss_and_gradients(model, torch.full((rows, length), 5))
    assert counters["stats"]["unique_graphs"] == 1


def test_priming_leaves_no_trace(tiny_model, compiler):
    model = tiny_model(residual_dropout=0.1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with compiled_blocks(model, CPU, rows=8):
        assert torch.equal(torch.get_rng_state(), before)
        assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_compiler_a_line_says_so_and_training_goes_on(tiny_model, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = tiny_model()
    with compiled_blocks(model, CPU, rows=8):
        loss_and_gradients(model, torch.full((2, 5), 5))
    assert "run.compile needs a compiler" in capsys.readouterr().out
