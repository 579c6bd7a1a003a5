"""Decoding with a cache equals the parallel form, however the text is cut, padded, reordered or generated."""

import copy

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from modeling_minigpt.cache_layers_minigpt import PreallocatedLayer
from modeling_minigpt.cache_minigpt import make_cache
from tests.attention_variants import (
    CONSTANT,
    CROPPABLE,
    HYBRIDS,
    LENGTHS,
    SIZE,
    VARIANTS,
    assert_equal,
    draw_tokens,
    left_pad,
    tiny_config,
    tiny_model,
)


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Name each attention variant."""
    return request.param


@torch.no_grad()
def decode(model, ids, cuts, mask=None, cache=None):
    """Return the logits of a text fed in pieces of the given lengths, and the cache after it."""
    logits, seen = [], 0 if cache is None else cache.get_seq_length()
    for piece in ids.split(cuts, dim=1):
        seen += piece.shape[1]
        part = None if mask is None else mask[:, :seen]
        outputs = model(piece, attention_mask=part, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        logits.append(outputs.logits)
    return torch.cat(logits, dim=1), cache


@torch.no_grad()
def parallel(model, ids, mask=None):
    """Return the logits of a text fed at once, without a cache."""
    return model(ids, attention_mask=mask, use_cache=False).logits


def cache_bytes(cache):
    """Count the bytes of the state of every layer."""
    return sum(tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in layer.state.values())


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_decoding_in_pieces_equals_the_parallel_form(variant, length):
    model, ids = tiny_model(variant), draw_tokens(2, length)
    expected = parallel(model, ids)
    for cut in (1, 5, SIZE, 3 * SIZE + 1, 1000):
        if cut == 1 or cut < length or cut == 1000:
            logits, cache = decode(model, ids, cut)
            assert_equal(logits, expected)
            assert cache.get_seq_length() == length


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_uneven_pieces_of_a_left_padded_batch_equal_the_rows_alone(variant, positions):
    model = tiny_model(variant, position_embedding_type=positions)
    rows = [draw_tokens(length, seed=length) for length in (4, SIZE, 30, 75)]
    ids, mask = left_pad(rows)
    for cuts in ([60, 1, 1, 1, 7, 1, 4], [1] * 75, [9] * 8 + [3]):
        logits, _ = decode(model, ids, cuts, mask)
        for row, found in zip(rows, logits, strict=True):
            assert_equal(found[-len(row) :], parallel(model, row[None])[0])


def test_holes_between_pieces_are_skipped(variant):
    model = tiny_model(variant)
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(3, 60, generator=generator) < 0.7).long()
    ids = draw_tokens(3, 60)
    logits, _ = decode(model, ids, [7, 20, 1, 1, 30, 1], mask)
    for row, found, real in zip(ids, logits, mask.bool(), strict=True):
        assert_equal(found[real], parallel(model, row[real][None])[0])


def test_rows_can_be_reordered_repeated_and_selected(variant):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(length, seed=length) for length in (5, 20, 37)])
    more = draw_tokens(6, 12, seed=3)
    _, cache = decode(model, ids, 10, mask)
    for change, order in (
        (lambda c: c.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
        (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda c: c.batch_select_indices(torch.tensor([1])), [1]),
    ):
        changed = copy.deepcopy(cache)
        change(changed)
        tail = more[: len(order)]
        joined, wide = torch.cat((ids[order], tail), 1), torch.nn.functional.pad(mask[order], (0, 12), value=1)
        logits, _ = decode(model, tail, [1, 4, 7], wide, changed)
        assert_equal(logits, parallel(model, joined, wide)[:, -12:])


def test_a_reset_cache_is_empty(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 30)
    _, cache = decode(model, ids, 7)
    cache.reset()
    assert cache.get_seq_length() == 0
    logits, _ = decode(model, ids[:1], 7, cache=cache)
    assert_equal(logits, parallel(model, ids[:1]))


@pytest.mark.parametrize("name", [*CROPPABLE, "window", "bigbird-reservoir", "linformer", "hybrid"])
def test_cropped_tokens_are_forgotten_where_they_can_be(name):
    model, ids = tiny_model(name), draw_tokens(2, 38)  # six tokens into a segment or block
    _, cache = decode(model, ids, 38)
    cache.crop(-5)
    assert cache.get_seq_length() == 33
    other = draw_tokens(2, 20, seed=4)
    logits, _ = decode(model, other, [1, 19], cache=cache)
    assert_equal(logits, parallel(model, torch.cat((ids[:, :33], other), 1))[:, 33:])


@pytest.mark.parametrize("name", CONSTANT)
def test_merged_or_evicted_tokens_cannot_be_cropped(name):
    _, cache = decode(tiny_model(name), draw_tokens(2, 38), 38)
    cache.crop(0)
    with pytest.raises(ValueError, match="cache cannot remove the last 20 tokens"):
        cache.crop(-20)
    with pytest.raises(ValueError, match="cannot remove 39 tokens: the shortest row of the cache has 38"):
        cache.crop(-39)
    with pytest.raises(ValueError, match="negated number"):
        cache.crop(3)


@pytest.mark.parametrize("name", [*CROPPABLE, "window", "linformer"])
def test_columns_with_padding_are_not_cropped_and_others_are(name):
    model = tiny_model(name)
    ids = draw_tokens(2, 43)
    mask = torch.ones(2, 43, dtype=torch.long)
    mask[0, :2] = 0
    mask[0, 30:37] = 0  # padding on the right of a first call with 37 columns
    _, cache = decode(model, ids[:, :37], [37], mask)
    for layer in cache.layers:
        before = layer.counts.clone()
        with pytest.raises(ValueError, match="cannot remove 1 columns: only the last 0 are real tokens in every row"):
            cache.crop(-1)
        assert torch.equal(layer.counts, before)
    _, cache = decode(model, ids[:, 37:], [4, 2], mask, cache)
    with pytest.raises(ValueError, match="cannot remove 7 columns: only the last 6 are real tokens in every row"):
        cache.crop(-7)
    cache.crop(-2)
    with pytest.raises(ValueError, match="cannot remove 5 columns: only the last 4 are real tokens in every row"):
        cache.crop(-5)
    logits, _ = decode(model, ids[:, 41:], [1, 1], mask, cache)
    assert_equal(logits, parallel(model, ids, mask)[:, 41:])


@pytest.mark.parametrize("name", CROPPABLE)
def test_every_real_token_of_a_left_padded_batch_can_be_cropped(name):
    model = tiny_model(name)
    ids, mask = left_pad([draw_tokens(9), draw_tokens(20)])
    _, cache = decode(model, ids, [14, 6], mask)
    cache.crop(-8)
    logits, _ = decode(model, ids[:, 12:], [8], mask, cache)
    assert_equal(logits, parallel(model, ids, mask)[:, 12:])


@pytest.mark.parametrize("name", CONSTANT)
def test_cache_bytes_are_flat_in_the_context(name):
    model = tiny_model(name)
    sizes = {length: cache_bytes(decode(model, draw_tokens(1, length), 29)[1]) for length in (1, 40, 150)}
    assert len(set(sizes.values())) == 1


def test_cache_bytes_are_as_documented():
    heads, dim, layers, number = 4, 8, 2, 4  # 4 bytes a number
    rows = {
        "linformer": 2 * SIZE * (2 * dim + 4) + 4 * (2 * dim + 1),
        "performer": 24 * (dim + 1) + 1,
        "gated_deltanet": heads * dim**2 + 3 * 3 * dim,  # one memory of C² and three taps of C
        "window": 2 * 4 * SIZE * dim + 2 * 4,  # with 8-byte block numbers, 1 sink block and 3 of the window
        "bigbird-reservoir": 2 * 5 * SIZE * dim + 2 * 5,
    }
    for name, numbers in rows.items():
        _, cache = decode(tiny_model(name), draw_tokens(1, 50), 50)
        assert cache_bytes(cache) == layers * (heads * numbers * number + 8)
    _, cache = decode(tiny_model("bigbird"), draw_tokens(1, 150), 1)
    assert cache_bytes(cache) <= 2 * layers * (heads * 2 * (150 + SIZE) * dim * number + 8)


@pytest.mark.parametrize("name", ["bigbird", "bigbird-reservoir", "window"])
def test_a_step_reads_a_fixed_number_of_keys(name):
    model = tiny_model(name)
    _, cache = decode(model, draw_tokens(1, 100), 100)
    layer = cache.layers[0]
    *_, slots = layer.update(*torch.zeros(2, 1, 4, 1, 8))
    assert slots.shape == (1, 4, 1, layer.pattern.blocks_per_query)


# --- generate()

SETTINGS = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "beam": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "chunked-prefill": {"do_sample": False, "prefill_chunk_size": 5},
}


@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("mode", SETTINGS)
def test_generate_is_the_same_with_and_without_a_cache(variant, mode, padded):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(length, seed=length) for length in ((6, 19, 21) if padded else (21, 21, 21))])
    found = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        settings = dict(SETTINGS[mode]) if use_cache else {**SETTINGS[mode], "prefill_chunk_size": None}
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=24, use_cache=use_cache, return_dict_in_generate=True, **settings
        )
        found.append(out)
    assert torch.equal(found[0].sequences, found[1].sequences)
    if variant not in HYBRIDS:
        assert all(hasattr(layer, "counts") for layer in found[0].past_key_values.layers)


def test_a_generation_goes_on_from_its_cache(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 11)
    cache = make_cache(model.config)
    first = model.generate(ids, max_new_tokens=9, do_sample=False, past_key_values=cache)
    longer = torch.cat((first, draw_tokens(2, 6, seed=2)), dim=1)
    mask = torch.ones_like(longer)
    second = model.generate(longer, attention_mask=mask, max_new_tokens=9, do_sample=False, past_key_values=cache)
    assert torch.equal(second, model.generate(longer, attention_mask=mask, max_new_tokens=9, do_sample=False))


def test_inputs_as_embeddings_generate_the_same(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 20)
    embeddings = model.get_input_embeddings()(ids)
    whole = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert torch.equal(model.generate(inputs_embeds=embeddings, max_new_tokens=8, do_sample=False), whole[:, 20:])


def test_a_cache_made_in_inference_mode_serves_outside(variant):
    model, ids = tiny_model(variant), draw_tokens(1, 40)
    with torch.inference_mode():
        cache = model(ids[:, :33]).past_key_values
    logits, _ = decode(model, ids[:, 33:], 1, cache=cache)
    assert_equal(logits, parallel(model, ids)[:, 33:])


def test_gradients_flow_through_a_cache(variant):
    model, ids = tiny_model(variant), draw_tokens(1, 40)
    embeddings = model.get_input_embeddings()(ids).detach()
    gradients = []
    for cuts in ([40], [21, 1, 1, 17]):
        inputs, cache, losses = embeddings.clone().requires_grad_(), None, []
        for piece in inputs.split(cuts, dim=1):
            outputs = model.model(inputs_embeds=piece, past_key_values=cache, use_cache=True)
            cache = outputs.past_key_values
            losses.append(outputs.last_hidden_state.square().sum(-1))
        weight = torch.linspace(-1, 1, 40)
        gradients.append(torch.autograd.grad((torch.cat(losses, 1) * weight).sum(), inputs)[0])
    assert_equal(gradients[1], gradients[0], atol=1e-4)


def test_hybrids_get_a_cache_of_each_layers_kind():
    config = tiny_config(
        "hybrid", num_hidden_layers=5, attention_type=["vanilla", "linformer", "bigbird", "window", "performer"]
    )
    kinds = [type(layer).__name__ for layer in make_cache(config).layers]
    assert kinds == ["DynamicLayer", "LinformerCache", "FullBlockCache", "RecentBlockCache", "PerformerCache"]
    config = tiny_config("hybrid-gated_deltanet")
    assert [type(layer).__name__ for layer in make_cache(config).layers] == ["DynamicLayer", "GatedDeltaNetCache"]
    assert type(make_cache(tiny_config("vanilla"))).__name__ == "DynamicCache"


def rows_like(number, *lengths):
    """Return new keys and values of so many rows and tokens, one pair a length."""
    return [tuple(torch.randn(2, number, 2, length, 4)) for length in lengths]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda layer: None, id="nothing"),
        pytest.param(lambda layer: layer.crop(-5), id="tokens taken back"),
        pytest.param(lambda layer: layer.reorder_cache(torch.tensor([2, 0, 1])), id="rows in another order"),
        pytest.param(lambda layer: layer.batch_select_indices(torch.tensor([2, 2])), id="rows chosen"),
        pytest.param(lambda layer: layer.batch_repeat_interleave(2), id="rows repeated"),
        pytest.param(lambda layer: layer.reset(), id="emptied"),
    ],
)
def test_a_growing_layer_holds_what_the_librarys_does(change):
    own, librarys = PreallocatedLayer(), DynamicLayer()
    for key, value in rows_like(3, 7, 1, 1, 40, 1):  # beyond the room that it has at first
        assert all(map(torch.equal, own.update(key, value), librarys.update(key, value)))
    change(own), change(librarys)
    rows = librarys.keys.shape[0] if librarys.is_initialized else 3
    for key, value in rows_like(rows, 1, 1, 90, 1):
        assert all(map(torch.equal, own.update(key, value), librarys.update(key, value)))
    assert own.get_seq_length() == librarys.get_seq_length()


def test_a_growing_layer_does_not_copy_what_it_holds_for_one_more_token():
    layer = PreallocatedLayer()
    places = [layer.update(key, value)[0].data_ptr() for key, value in rows_like(3, 7, *[1] * 30)]
    assert len(set(places)) == 1


def test_copies_of_a_growing_layer_grow_apart():
    layer, (first, second, third) = PreallocatedLayer(), rows_like(1, 5, 1, 1)
    layer.update(*first)
    other = copy.deepcopy(layer)
    layer.update(*second), other.update(*third)
    assert torch.equal(layer.keys[:, :, -1:], second[0])
    assert torch.equal(other.keys[:, :, -1:], third[0])
