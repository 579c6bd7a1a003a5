"""Bad configs, masks and caches are refused by name and number, by every attention variant."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import DynamicCache

from tests.attention_variants import VARIANTS, draw_tokens, left_pad, tiny_config, tiny_model

BAD_FIELDS = {
    "unknown": ({"attention_type": "longformer"}, ["attention_type", "vanilla, linformer", "'longformer'"]),
    "unknown-in-list": ({"attention_type": ["vanilla", "reformer"]}, ["attention_type", "'reformer'"]),
    "short-list": ({"attention_type": ["vanilla"]}, ["1 layers", "num_hidden_layers is 2"]),
    "long-list": ({"attention_type": ["window"] * 3}, ["3 layers", "num_hidden_layers is 2"]),
    "no-segment": ({"linformer_segment": 0}, ["linformer_segment", "at least 1", "0"]),
    "no-slots": ({"linformer_slots": 0}, ["linformer_slots", "at least 1", "0"]),
    "more-slots-than-places": (
        {"attention_type": ["vanilla", "linformer"], "linformer_segment": 8, "linformer_slots": 9},
        ["linformer_slots (9)", "linformer_segment (8)"],
    ),
    "slot-type": ({"linformer_slot_type": "mean"}, ["linformer_slot_type", "positional, content", "'mean'"]),
    "no-block": ({"bigbird_block": 0}, ["bigbird_block", "at least 1", "0"]),
    "no-window": ({"bigbird_window": 0}, ["bigbird_window", "at least 1", "0"]),
    "negative-global": ({"bigbird_global": -1}, ["bigbird_global", "at least 0", "-1"]),
    "negative-random": ({"bigbird_random": -2}, ["bigbird_random", "at least 0", "-2"]),
    "pattern-larger-than-text": (
        {"attention_type": "bigbird", "bigbird_window": 15, "bigbird_random": 6},
        ["bigbird_window (15)", "bigbird_random (6)", "20 blocks of 8", "max_position_embeddings (160)"],
    ),
    "random-type": ({"bigbird_random_type": "dice"}, ["bigbird_random_type", "rows, reservoir", "'dice'"]),
    "window-size": ({"window_size": 0}, ["window_size", "at least 1", "0"]),
    "negative-sinks": ({"window_sinks": -1}, ["window_sinks", "at least 0", "-1"]),
    "no-features": ({"performer_features": 0}, ["performer_features", "at least 1", "0"]),
    "no-key-heads": ({"gated_deltanet_heads": 0}, ["gated_deltanet_heads", "at least 1", "0"]),
    "key-heads-of-no-use": (
        {"attention_type": "gated_deltanet", "gated_deltanet_heads": 3},
        ["gated_deltanet_heads (3)", "must divide num_attention_heads (4)"],
    ),
    "no-taps": ({"gated_deltanet_convolution": 0}, ["gated_deltanet_convolution", "at least 1", "0"]),
    "no-delta-chunk": ({"gated_deltanet_chunk": 0}, ["gated_deltanet_chunk", "at least 1", "0"]),
    "no-selected": ({"selected_blocks": 0}, ["selected_blocks", "at least 1", "0"]),
    "no-selected-window": ({"selected_window": 0}, ["selected_window", "at least 1", "0"]),
    "selected-by": ({"selected_by": "mean"}, ["selected_by", "box, summary", "'mean'"]),
    "no-chunk": ({"performer_chunk": 0}, ["performer_chunk", "at least 1", "0"]),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Name each attention variant."""
    return request.param


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields_are_refused_with_their_values(name):
    fields, named = BAD_FIELDS[name]
    with pytest.raises(StrictDataclassError) as error:
        tiny_config("vanilla", **fields)
    assert all(text in str(error.value.__cause__ or error.value) for text in named)


def test_sizes_may_go_to_the_edge_and_unused_variants_are_free():
    tiny_config("bigbird", bigbird_window=20, bigbird_random=0)
    tiny_config("linformer", linformer_slots=8)
    tiny_config("gated_deltanet", gated_deltanet_heads=4)
    tiny_config("linformer-content", linformer_slots=99)
    tiny_config("vanilla", linformer_slots=99, bigbird_window=99, gated_deltanet_heads=3)


def test_packed_examples_are_refused(variant):
    model = tiny_model(variant)
    with pytest.raises(ValueError, match="packed examples need attention_type 'vanilla'"):
        model(draw_tokens(1, 6), position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))


@pytest.mark.parametrize("shape", [(2, 5), (1, 6), (2, 1, 6, 6)], ids=str)
def test_masks_of_other_shapes_are_refused(variant, shape):
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 0 \+ 6\)"):
        tiny_model(variant)(draw_tokens(2, 6), attention_mask=torch.ones(shape))


def test_foreign_caches_are_refused(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 6)
    with pytest.raises(ValueError, match=r"decodes with a cache of its own.*found DynamicCache of 0 layers"):
        model(ids, past_key_values=DynamicCache())
    with pytest.raises(ValueError, match=r"layer \d wants a cache layer for .* found DynamicLayer"):
        model(ids, past_key_values=DynamicCache(config=model.config))
    for other in VARIANTS:
        if other != variant:
            cache = tiny_model(other)(ids).past_key_values
            with pytest.raises(ValueError, match="wants a cache layer for"):
                model(ids, past_key_values=cache)
            with pytest.raises(ValueError, match=r"layer \d wants a cache layer for vanilla"):
                tiny_model("vanilla")(ids, past_key_values=cache)


def test_caches_of_another_batch_are_refused(variant):
    model = tiny_model(variant)
    cache = model(draw_tokens(2, 6)).past_key_values
    for batch in (1, 3):
        with pytest.raises(ValueError, match=f"the cache has 2 rows, found a batch of {batch}"):
            model(draw_tokens(batch, 1), past_key_values=cache)


def test_masks_that_contradict_the_cache_are_refused(variant):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(3), draw_tokens(6)])
    cache = model(ids, attention_mask=mask).past_key_values
    with pytest.raises(ValueError, match=r"the cache has padded rows: give their attention_mask, \(2, 6 \+ 1\)"):
        model(draw_tokens(2, 1), past_key_values=cache)
    with pytest.raises(ValueError, match=r"says \[6, 6\] of the 6 cached columns are real.* counted \[3, 6\]"):
        model(draw_tokens(2, 1), past_key_values=cache, attention_mask=torch.ones(2, 7))


@pytest.mark.parametrize("kind", ["static", "offloaded", "quantized"])
def test_generate_refuses_the_librarys_own_caches(variant, kind):
    with pytest.raises(ValueError, match=f"has its own cache, found '{kind}'"):
        tiny_model(variant).generate(draw_tokens(1, 4), max_new_tokens=2, cache_implementation=kind)
