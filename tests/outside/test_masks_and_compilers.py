"""Masks, packed rows, number formats, devices and compilers, where other people's models have failed."""

import warnings

import pytest
import torch
from accelerate.utils import send_to_device
from torch._dynamo.testing import CompileCounter
from transformers import StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_minigpt.attention_base_minigpt import PaddingInfo
from modeling_minigpt.performer_attention_minigpt import chunk_initial_states, scan_by_doubling
from tests.attention_variants import (
    HYBRIDS,
    VARIANTS,
    assert_equal,
    draw_tokens,
    left_pad,
    tiny_model,
)

ALL = ["vanilla", *VARIANTS]


@pytest.fixture(params=ALL)
def variant(request):
    """Name each attention variant."""
    return request.param


def logits_of(model, ids, **settings):
    """Return the logits of a text read in one pass, without a cache."""
    with torch.no_grad():
        return model(ids, use_cache=False, **settings).logits


# --- Devices and dtypes


@pytest.mark.row("M11")
def test_hooks_that_move_a_layers_inputs_move_its_padding():
    padding = PaddingInfo.from_mask(torch.tensor([[0, 1, 1], [1, 1, 0]]).bool())
    moved = send_to_device({"attention_mask": padding}, "meta", non_blocking=True)["attention_mask"]
    assert moved.lengths.device.type == moved.order.device.type == "meta"
    in_place = PaddingInfo.from_mask(torch.tensor([[1, 1, 0]]).bool())
    assert send_to_device(in_place, torch.device("meta")).order is None
    assert torch.equal(send_to_device(padding, "cpu").order, padding.order)


@pytest.mark.row("M12")
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "recorded"])
def test_norms_left_in_float32_leave_one_dtype_to_the_kernel(variant, kernel, monkeypatch):
    found = set()

    def attend(module, query, key, value, mask, **_):
        found.update((query.dtype, key.dtype, value.dtype))
        return value.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "recorded", attend)
    model = tiny_model(variant).bfloat16()
    for layer in model.model.layers:
        layer.self_attn.q_norm.float()
        layer.self_attn.k_norm.float()
    model.config._attn_implementation = kernel
    for use_cache in (False, True):
        outputs = model(draw_tokens(1, 9), use_cache=use_cache)
        assert outputs.logits.dtype == torch.bfloat16
    assert found <= {torch.bfloat16}


# --- Packed examples and masks


@pytest.mark.row("M13")
@pytest.mark.parametrize("mark", ["cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"])
def test_marks_of_packed_examples_are_refused_where_they_would_mix(variant, mark):
    model, ids = tiny_model(variant), draw_tokens(1, 6)
    several = torch.tensor([0, 3, 6]) if mark != "seq_idx" else torch.tensor([[0, 0, 0, 1, 1, 1]])
    one = torch.tensor([0, 6]) if mark != "seq_idx" else torch.zeros(1, 6, dtype=torch.long)
    with pytest.raises(ValueError, match=f"packed examples need .* found {mark}"):
        model(ids, **{mark: several})
    assert torch.equal(logits_of(model, ids, **{mark: one}), logits_of(model, ids))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    if variant == "vanilla":
        found = logits_of(model, ids, position_ids=positions, **{mark: several})
        assert_equal(found, torch.cat([logits_of(model, part) for part in ids.split(3, dim=1)], dim=1))
    else:
        with pytest.raises(ValueError, match="packed examples need attention_type 'vanilla'"):
            model(ids, position_ids=positions, **{mark: several})


@pytest.mark.row("M13")
def test_positions_that_start_again_are_refused_beside_a_mask_or_a_cache(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 6)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    for mask in (torch.ones(2, 6), torch.tensor([[0, 1, 1, 1, 1, 1]] * 2)):
        with pytest.raises(ValueError, match="packed examples need"):
            model(ids, attention_mask=mask, position_ids=positions)
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match="packed examples need"):
        model(ids, past_key_values=cache, position_ids=positions + 6)
    assert cache.get_seq_length() == 6


@pytest.mark.row("M13")
def test_positions_of_padded_rows_are_not_taken_for_packed_ones(variant):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(3), draw_tokens(6)])
    wanted = logits_of(model, ids, attention_mask=mask)
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as `generate` gives them
    found = logits_of(model, ids, attention_mask=mask, position_ids=positions)
    assert_equal(found[mask.bool()], wanted[mask.bool()])


BAD_MASKS = {
    "of new tokens only": (2, 2),
    "too short": (2, 7),
    "too long": (2, 9),
    "of one row": (1, 8),
    "of three rows": (3, 8),
    "one-dimensional": (8,),
    "three-dimensional": (2, 2, 8),
    "of other queries": (2, 1, 3, 8),
    "of other keys": (2, 1, 2, 9),
    "of other heads": (2, 3, 2, 8),
}


@pytest.mark.row("M19")
@pytest.mark.parametrize("shape", BAD_MASKS.values(), ids=BAD_MASKS)
def test_masks_that_do_not_fit_are_refused_with_both_shapes(variant, shape):
    model = tiny_model(variant)
    cache = model(draw_tokens(2, 6)).past_key_values
    with pytest.raises(ValueError, match="attention_mask must be") as error:
        model(draw_tokens(2, 2), attention_mask=torch.ones(shape), past_key_values=cache)
    message = str(error.value)
    assert "attention_mask must be (2, 6 + 2)" in message
    assert f"found {shape}" in message
    assert "\n" not in message
    assert cache.get_seq_length() == 6


@pytest.mark.row("M19")
def test_masks_of_four_dimensions_and_of_a_static_cache_are_taken():
    model, ids = tiny_model("vanilla"), draw_tokens(2, 8)
    wanted = logits_of(model, ids)
    causal = torch.ones(8, 8).tril().log()
    for shape in ((1, 1), (2, 1), (2, 4)):
        assert_equal(logits_of(model, ids, attention_mask=causal.expand(*shape, 8, 8)), wanted)
    cache = StaticCache(model.config, max_cache_len=12)
    for end in (6, 8):
        start = cache.get_seq_length()
        found = model(ids[:, int(start) : end], attention_mask=torch.ones(2, end), past_key_values=cache).logits
    assert_equal(found, wanted[:, 6:])
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 8 \+ 1\)"):
        model(ids[:, :1], attention_mask=torch.ones(2, 1), past_key_values=cache)


# --- Compilers and exporters


@pytest.mark.row("M15")
@pytest.mark.parametrize("name", ["bigbird", "window", "performer", "selected"])
def test_a_compiler_has_few_graphs_for_all_lengths(name):  # compiling takes seconds
    model = tiny_model(name, num_hidden_layers=1)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for length in (34, 65, 90, 96, 119):
        ids, mask = left_pad([draw_tokens(11), draw_tokens(length)])
        found = logits_of(compiled, ids, attention_mask=mask)
        assert_equal(found[mask.bool()], logits_of(model, ids, attention_mask=mask)[mask.bool()])
    torch.compiler.reset()
    assert counter.frame_count <= 2


@pytest.mark.row("M15")
@pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_padding_mask_does_not_break_the_graph(name, use_cache):
    model = tiny_model(name, num_hidden_layers=2 if name in HYBRIDS else 1)
    ids, mask = left_pad([draw_tokens(4), draw_tokens(9)])
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(ids, attention_mask=mask, use_cache=use_cache).logits
    torch.compiler.reset()
    assert_equal(found[mask.bool()], logits_of(model, ids, attention_mask=mask)[mask.bool()])


@pytest.mark.row("M15")
def test_sums_by_doubling_are_the_loops():
    generator = torch.Generator().manual_seed(0)
    for chunks in (1, 2, 3, 7, 8):
        key, value = (torch.rand(2, 3, chunks, 4, 5, generator=generator) for _ in range(2))
        maxima = torch.randn(2, 3, chunks * 4 + 1, generator=generator).mul(9).cummax(-1).values
        now, ends = maxima[:, :, 1:].unflatten(2, (chunks, 4)), maxima[:, :, ::4]
        sums = torch.rand(2, 3, 5, 5, generator=generator)
        starts, last = chunk_initial_states(key, value, now, ends, sums)
        writes = (key * (now - ends[:, :, 1:, None]).exp()[..., None]).mT @ value
        found, end = scan_by_doubling(writes, ends, sums)
        assert_equal(found, starts)
        assert_equal(end, last)


class Logits(torch.nn.Module):
    """A model as a function of ids and mask alone, as exporters want it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.row("M16")
@pytest.mark.parametrize("how", ["export", "trace"])
def test_an_exported_model_reads_other_masks_than_the_one_it_was_exported_with(variant, how):
    function = Logits(tiny_model(variant, num_hidden_layers=2)).eval()
    ids, mask = left_pad([draw_tokens(9), draw_tokens(30)])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = (ids, torch.ones_like(mask))
        exported = torch.export.export(function, examples).module() if how == "export" else None
        exported = exported or torch.jit.trace(function, examples)
        for other in (mask, mask.flip(-1), torch.ones_like(mask)):
            assert_equal(exported(ids, other)[other.bool()], function(ids, other)[other.bool()])
