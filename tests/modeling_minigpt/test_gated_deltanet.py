"""Gated DeltaNet: the chunked rule equals the token-by-token one, numbers stay finite, and decoding is exact."""

import math

import pytest
import torch

from modeling_minigpt import MiniGPTForCausalLM, make_cache
from modeling_minigpt.gated_deltanet_attention_minigpt import DECAY_BIAS, causal_convolution, gated_delta_rule
from tests import reference_attention as reference
from tests.attention_variants import LENGTHS, SIZE, assert_equal, draw_tokens, left_pad, tiny_config, tiny_model

HEADS, WIDTH = 4, 6


def draw_inputs(length, groups=1, rows=2, seed=0, dtype=torch.float32):
    """Draw queries and keys (B, G, T, 5), values (B, H, T, 6), betas and log decays (B, H, T, 1), with gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, groups, length, 5)] * 2 + [(rows, HEADS, length, width) for width in (WIDTH, 1, 1)]
    query, key, value, beta, decay = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    query, key = (torch.nn.functional.normalize(states, dim=-1) for states in (query, key))
    inputs = query, key, value, beta.sigmoid(), torch.nn.functional.logsigmoid(decay + 1)
    return [states.requires_grad_() for states in inputs]


def slow_rule(query, key, value, beta, log_decay):
    """Apply the reference, which has as many heads of keys as of values."""
    repeats = value.shape[1] // query.shape[1]
    query, key = (states.repeat_interleave(repeats, dim=1) for states in (query, key))
    return reference.gated_delta_rule(query, key, value, beta, log_decay)


def with_gradients(mixed, inputs):
    """Return a result and the gradients of a random combination of it."""
    direction = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(9))
    return [mixed, *torch.autograd.grad((mixed * direction).sum(), inputs, materialize_grads=True)]


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_chunked_rule_equals_the_recurrence(groups, length):
    inputs = draw_inputs(length, groups)
    found = with_gradients(gated_delta_rule(*inputs, chunk_size=SIZE)[0], inputs)
    for actual, expected in zip(found, with_gradients(slow_rule(*inputs), inputs), strict=True):
        assert_equal(actual, expected)


def test_the_chunk_size_does_not_change_the_result():
    inputs = draw_inputs(130, groups=2)
    expected = with_gradients(gated_delta_rule(*inputs, chunk_size=130)[0], inputs)
    for size in (1, 7, 64, 200):
        found = with_gradients(gated_delta_rule(*inputs, chunk_size=size)[0], inputs)
        for actual, wanted in zip(found, expected, strict=True):
            assert_equal(actual, wanted)


def test_a_rewritten_key_gives_its_new_value_alone():
    key = torch.eye(5)[[0, 1, 0, 0, 1]][None, None]  # two keys, the first one written three times
    value = torch.arange(30.0).view(1, 1, 5, 6)
    strength, no_decay = torch.ones(1, 1, 5, 1), torch.zeros(1, 1, 5, 1)
    mixed, memory = gated_delta_rule(key, key, value, strength, no_decay, chunk_size=4)
    assert_equal(mixed, value)
    assert_equal(memory[0, 0, :2], value[0, 0, [3, 4]])


@pytest.mark.parametrize("strongest", [1e2, 1e4, 1e30])
def test_strong_decays_neither_overflow_nor_blur_slow_ones(strongest):
    query, key, value, beta, log_decay = draw_inputs(100, groups=2)
    log_decay = log_decay.detach() / 1000
    log_decay[:, :, ::9] = -strongest
    inputs = query, key, value, beta, log_decay.requires_grad_()
    found = with_gradients(gated_delta_rule(*inputs, chunk_size=32)[0], inputs)
    for actual, expected in zip(found, with_gradients(slow_rule(*inputs), inputs), strict=True):
        assert actual.isfinite().all()
        assert_equal(actual, expected)


def test_equal_keys_written_at_full_strength_stay_bounded():
    length = 2000
    key = torch.nn.functional.normalize(torch.ones(1, 1, length, 64), dim=-1)
    value = torch.randn(1, 1, length, 8, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 1, length, 1)
    mixed, memory = gated_delta_rule(key, key, value, ones, 0 * ones, chunk_size=64)
    assert_equal(mixed, value, atol=1e-4)
    assert memory.norm() < 1.01 * value[:, :, -1].norm()


def test_the_convolution_is_the_librarys():
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(shape, generator=generator) for shape in ((2, 13, 6), (6, 1, 4)))
    wanted = torch.nn.functional.conv1d(states.mT, weight, groups=6).mT
    assert_equal(causal_convolution(states, weight), wanted)
    compiled = torch.compile(causal_convolution, backend="eager", fullgraph=True)
    assert_equal(compiled(states, weight), wanted)


# --- Models


def layer_states(cache):
    """Return every tensor of a cache's layers, by name."""
    return [layer.state for layer in cache.layers]


def test_the_state_stays_as_large_and_forgets_what_is_behind_its_taps():
    model, ids = tiny_model("gated_deltanet"), draw_tokens(1, 150)
    for length in (1, 2, 40, 150):
        for state in layer_states(model(ids[:, :length]).past_key_values):
            assert state["memory"].shape == (1, 1, 32, 32)
            assert state["last"].shape == (1, 1, 3, 96)
            assert state["last"].untyped_storage().nbytes() == 3 * 96 * 4  # no view of the whole text


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
def test_the_convolutions_cache_is_exact_at_every_cut(taps):
    model = tiny_model("gated_deltanet", gated_deltanet_convolution=taps)
    ids = draw_tokens(2, 20)
    expected = model(ids, use_cache=False).logits
    for cut in range(1, 20):
        cache = model(ids[:, :cut]).past_key_values
        assert_equal(model(ids[:, cut:], past_key_values=cache).logits, expected[:, cut:])


def test_the_cache_has_each_rows_own_last_tokens():
    model = tiny_model("gated_deltanet")
    rows = [draw_tokens(length, seed=length) for length in (2, 3, 11)]
    ids, mask = left_pad(rows)
    together = layer_states(model(ids, attention_mask=mask).past_key_values)
    for index, row in enumerate(rows):
        for found, alone in zip(together, layer_states(model(row[None]).past_key_values), strict=True):
            for name in ("last", "memory"):
                assert_equal(found[name][index], alone[name][0])


def test_padding_neither_writes_nor_fades_nor_enters_the_convolutions():
    model, row = tiny_model("gated_deltanet"), draw_tokens(1, 9)
    cache = model(row).past_key_values
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in layer_states(cache)]
    mask = torch.cat((torch.ones(1, 9), torch.zeros(1, 5)), dim=1)
    model(draw_tokens(1, 5, seed=7), attention_mask=mask, past_key_values=cache)
    for state, unchanged in zip(layer_states(cache), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in unchanged.items())


def test_a_memory_is_in_float32_in_a_bfloat16_model():
    model, ids = tiny_model("gated_deltanet").bfloat16(), draw_tokens(1, 30)
    cache = model(ids).past_key_values
    assert {state["memory"].dtype for state in layer_states(cache)} == {torch.float32}
    step = model(draw_tokens(1, 1), past_key_values=cache).logits
    assert step.dtype == torch.bfloat16
    assert step.isfinite().all()


def test_a_new_model_remembers_for_thousands_of_tokens():
    torch.manual_seed(0)
    layer = MiniGPTForCausalLM(tiny_config("gated_deltanet")).model.layers[0].self_attn
    *_, log_decay = layer.project_inputs(torch.randn(1, 50, 32), None)
    assert log_decay.mean().item() == pytest.approx(-math.exp(-DECAY_BIAS), rel=0.1)
    assert -1 / log_decay.mean() > 2000


def test_fewer_heads_of_keys_have_a_larger_memory():
    sizes = {}
    for heads in (1, 2, 4):
        config = tiny_config("gated_deltanet", gated_deltanet_heads=heads)
        cache = MiniGPTForCausalLM(config)(draw_tokens(1, 5), past_key_values=make_cache(config)).past_key_values
        sizes[heads] = cache.layers[0].state["memory"].numel()
    assert sizes == {1: 32**2, 2: 32**2 // 2, 4: 32**2 // 4}
