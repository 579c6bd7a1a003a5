"""Each fast attention equals its slow oracle, outputs and gradients, and full attention where it should."""

import math

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from modeling_minigpt.block_sparse_minigpt import (
    FLEX_TILE,
    BlockPattern,
    block_attention,
    block_table,
    counter_hash,
    dense_mask,
    flex_block_mask,
)
from modeling_minigpt.linformer_attention_minigpt import linformer_attention
from modeling_minigpt.performer_attention_minigpt import draw_features, performer_attention
from tests import reference_attention as reference
from tests.attention_variants import LENGTHS, SIZE, assert_equal, draw_states, tiny_config, tiny_model

HEADS, DIM, SLOTS = 2, 16, 4
SCALING = DIM**-0.5
PATTERNS = {
    "bigbird": BlockPattern(SIZE, 1, 2, 2, heads=HEADS, layer=1, seed=3),
    "reservoir": BlockPattern(SIZE, 1, 2, 2, random_type="reservoir", heads=HEADS, layer=1, seed=3),
    "no-random": BlockPattern(SIZE, 2, 1, heads=HEADS),
    "only-random": BlockPattern(SIZE, 0, 1, 3, heads=HEADS),
    "window": BlockPattern(SIZE, 1, 3, heads=HEADS, span=13, sinks=3),
    "diagonal": BlockPattern(SIZE, 0, 1, heads=HEADS),
}


def compare(fast, slow, *inputs):
    """Check that two functions of the same tensors agree, in value and in every gradient."""
    results = []
    for function in (fast, slow):
        mixed = function(*inputs)
        direction = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(9))
        results.append((mixed, *torch.autograd.grad((mixed * direction).sum(), inputs, materialize_grads=True)))
    for actual, expected in zip(*results, strict=True):
        assert_equal(actual, expected)


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_linformer_equals_oracle(length):
    compare(
        lambda q, k, v, p: linformer_attention(q, k, v, p.softmax(-1), SIZE, SCALING),
        lambda q, k, v, p: reference.linformer_attention(q, k, v, p.softmax(-1), SIZE),
        *draw_states(2, HEADS, length, DIM),
        *draw_states(2, HEADS, length, SLOTS, count=1, seed=1),
    )


@pytest.mark.parametrize("length", [length for length in LENGTHS if length <= 2 * SIZE], ids="T{}".format)
def test_linformer_of_two_segments_is_full_attention(length):
    weights = torch.full((1, HEADS, length, SLOTS), 1 / SLOTS)
    compare(
        lambda q, k, v: linformer_attention(q, k, v, weights, SIZE, SCALING),
        reference.full_attention,
        *draw_states(2, HEADS, length, DIM),
    )


def test_linformer_with_a_slot_for_each_token_equals_full_attention():
    length = 5 * SIZE + 3
    inputs = draw_states(2, HEADS, length, DIM)
    one_hot = torch.eye(length).expand(1, HEADS, -1, -1)
    compare(lambda q, k, v: linformer_attention(q, k, v, one_hot, SIZE, SCALING), reference.full_attention, *inputs)


def test_linformer_slots_that_stay_empty_give_finite_gradients():
    weights = torch.zeros(1, 1, 40, 2)
    weights[..., 0] = 1.0  # nobody ever writes into the second slot
    weights.requires_grad_()
    states = torch.randn(1, 1, 40, 4, requires_grad=True)
    mixed = linformer_attention(states, states, states, weights, SIZE, 0.5)
    gradients = torch.autograd.grad(mixed.sum(), (weights, states))
    assert all(tensor.isfinite().all() for tensor in (mixed, *gradients))


def test_linformer_positional_weights_repeat_with_the_segment():
    layer = tiny_model("linformer").model.layers[0].self_attn
    weights = layer.positional_weights(3 * SIZE, None)
    assert torch.equal(weights[:, :, :SIZE], weights[:, :, SIZE : 2 * SIZE])
    later = layer.positional_weights(SIZE, torch.tensor([5, 2 * SIZE]))
    assert torch.equal(later[0], weights[0, :, 5 : 5 + SIZE])
    assert torch.equal(later[1], weights[0, :, :SIZE])


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
@pytest.mark.parametrize("name", PATTERNS)
def test_blocks_equal_oracle(name, length):
    pattern = PATTERNS[name]
    mask = reference.block_mask(pattern, length)
    assert torch.equal(dense_mask(pattern, length), mask)
    compare(
        lambda q, k, v: block_attention(q, k, v, pattern, SCALING),
        lambda q, k, v: reference.masked_attention(q, k, v, mask),
        *draw_states(2, HEADS, length, DIM),
    )


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_window_over_everything_equals_full_attention(length):
    pattern = BlockPattern(SIZE, 0, -(-length // SIZE), heads=HEADS)
    compare(
        lambda q, k, v: block_attention(q, k, v, pattern, SCALING),
        reference.full_attention,
        *draw_states(1, HEADS, length, DIM),
    )


def test_window_is_exact_to_the_token_whatever_its_blocks():
    inputs = draw_states(1, 4, 50, DIM)
    found = []
    for block in (1, 4, 16, 64):
        config = tiny_config("window", window_block=block)
        found.append(block_attention(*inputs, BlockPattern.from_config(config, 0), SCALING))
    for other in found[1:]:
        assert_equal(other, found[0])
    query, key = torch.arange(50)[:, None], torch.arange(50)
    seen = (key <= query) & ((query - key < 13) | (key < 3))
    assert torch.equal(dense_mask(BlockPattern.from_config(config, 0), 50), seen.expand(4, -1, -1))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_longer_table_extends_a_shorter_one(name):
    longest = block_table(PATTERNS[name], 100)
    for blocks in (1, 2, 15, 16, 17, 99):
        assert torch.equal(block_table(PATTERNS[name], blocks), longest[:, :blocks])


@pytest.mark.parametrize("name", PATTERNS)
def test_a_row_lists_no_block_twice_and_as_many_as_there_are(name):
    pattern = PATTERNS[name]
    for row, heads in enumerate(block_table(pattern, 40).transpose(0, 1)):
        for ids in heads.tolist():
            listed = [block for block in ids if block >= 0]
            assert len(listed) == len(set(listed)) == min(row + 1, pattern.blocks_per_query)
            assert max(listed) == row


def test_random_blocks_come_from_their_counters_alone():
    table = block_table(PATTERNS["bigbird"], 40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    block_table.__globals__["_build_table"].cache_clear()
    assert torch.equal(block_table(PATTERNS["bigbird"], 40), table)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(table[0], table[1])
    for change in ({"seed": 4}, {"layer": 2}):
        other = BlockPattern(**{**vars(PATTERNS["bigbird"]), **change})
        assert not torch.equal(block_table(other, 40), table)


@pytest.mark.parametrize("random_type", ["rows", "reservoir"])
def test_random_blocks_are_uniform(random_type):
    pattern = BlockPattern(SIZE, 1, 2, 2, random_type=random_type, heads=4000)
    drawn = block_table(pattern, 16)[:, 11, 1:3]  # out of blocks 1 to 9
    shares = torch.bincount(drawn.flatten(), minlength=10)[1:] / drawn.shape[0]
    assert shares.sum() == 2
    assert (shares - 2 / 9).abs().max() < 4 * math.sqrt(2 / 9 * 7 / 9 / 4000)


def test_hash_equals_python_integers():
    counters = torch.tensor([0, 1, 2**31, 2**32 - 1])
    expected = [reference.counter_hash(7, counter, 3) for counter in counters.tolist()]
    assert counter_hash(7, counters, 3).tolist() == expected


FLEX_CASES = [
    *((name, pattern, length) for name, pattern in PATTERNS.items() for length in (1, 63, 130, 300)),
    ("whole-tiles", BlockPattern(64, 1, 8, heads=HEADS), 520),
    ("odd-blocks", BlockPattern(48, 1, 2, 1, heads=HEADS), 520),
]


@pytest.mark.parametrize(("name", "pattern", "length"), FLEX_CASES, ids=[f"{name}-T{n}" for name, _, n in FLEX_CASES])
def test_flex_block_mask_equals_dense_mask(name, pattern, length):
    mask = flex_block_mask(pattern, length)
    dense = dense_mask(pattern, length)
    tile = mask.BLOCK_SIZE[0]
    assert tile % FLEX_TILE == tile % pattern.block == 0
    listed = mask.to_dense()[0].bool()  # (H, tiles, tiles)
    whole = torch.zeros_like(listed)
    for head in range(HEADS):
        for row in range(listed.shape[1]):
            count = int(mask.full_kv_num_blocks[0, head, row])
            whole[head, row, mask.full_kv_indices[0, head, row, :count].long()] = True
    assert whole.any() == (name == "whole-tiles")
    positions = torch.arange(length)
    places = positions // tile
    by_rule = torch.stack([mask.mask_mod(0, head, positions[:, None], positions) for head in range(HEADS)])
    assert torch.equal(by_rule, dense)  # what an uncompiled kernel reads
    listed, free = listed[:, places][:, :, places], whole[:, places][:, :, places]
    assert torch.equal(listed & (by_rule | free), dense)  # what a compiled one does
    inputs = [states.detach() for states in draw_states(1, HEADS, length, DIM)]
    with torch.no_grad():
        assert_equal(
            flex_attention(*inputs, block_mask=mask, scale=SCALING), block_attention(*inputs, pattern, SCALING)
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attention_type", ["bigbird", "window"])
@pytest.mark.parametrize("length", [130, 1000], ids="T{}".format)
def test_flex_attention_on_cuda_equals_gathering(attention_type, length):
    fields = {"hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": length}
    results = []
    for kernel in ("sdpa", "flex_attention"):
        model = tiny_model(attention_type, attn_implementation=kernel, **fields).cuda()
        ids = torch.randint(2, 64, (2, length), generator=torch.Generator().manual_seed(0)).cuda()
        outputs = model(ids, labels=ids, use_cache=False)
        outputs.loss.backward()
        results.append([outputs.logits, *(parameter.grad for parameter in model.parameters())])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_performer_equals_oracle(length):
    features = draw_features(HEADS, 24, DIM, seed=0)
    compare(
        lambda q, k, v: performer_attention(q, k, v, features, chunk_size=SIZE)[0],
        lambda q, k, v: reference.performer_attention(q, k, v, features),
        *draw_states(2, HEADS, length, DIM),
    )


def performer_error(features, orthogonal):
    """Return the root mean squared error against full attention over thirty draws of the features.

    Queries and keys have half the length of normal ones: the law holds once no single feature outweighs the rest.
    """
    query, key, value = (states.detach() for states in draw_states(1, 4, 32, DIM))
    inputs = query / 2, key / 2, value
    expected, errors = reference.full_attention(*inputs), []
    for seed in range(30):
        drawn = draw_features(4, features, DIM, seed, orthogonal)
        errors.append((performer_attention(*inputs, drawn, chunk_size=32)[0] - expected).square().mean())
    return torch.stack(errors).mean().sqrt().item()


def test_performer_error_falls_with_the_root_of_its_features():
    few, many = performer_error(64, True), performer_error(4096, True)
    assert math.log(few / many) / math.log(4096 / 64) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("features", [DIM, 4 * DIM])
def test_orthogonal_features_beat_independent_ones(features):
    assert performer_error(features, True) < 0.97 * performer_error(features, False)


def test_orthogonal_features_are_orthogonal_and_as_long_as_normal_vectors():
    drawn = draw_features(50, DIM, DIM, seed=0)
    gram = drawn @ drawn.mT
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    assert_equal(gram, torch.diag_embed(lengths), atol=1e-4)
    assert lengths.mean().item() == pytest.approx(DIM, rel=0.05)


@pytest.mark.parametrize("scale", [30.0, 1e3])
def test_performer_survives_long_keys_and_queries(scale):
    inputs = draw_states(1, HEADS, 40, DIM)
    features = draw_features(HEADS, 24, DIM, seed=0)
    mixed = performer_attention(inputs[0] * scale, inputs[1] * scale, inputs[2], features, chunk_size=SIZE)[0]
    gradients = torch.autograd.grad(mixed.sum(), inputs)
    assert all(tensor.isfinite().all() for tensor in (mixed, *gradients))


def test_a_huge_later_key_leaves_performer_outputs_before_it_alone():
    inputs = [states.detach() for states in draw_states(1, HEADS, 40, DIM)]
    features = draw_features(HEADS, 24, DIM, seed=0)
    before = performer_attention(*inputs, features, chunk_size=SIZE)[0]
    # Of log features between -100 and 100: a stabiliser that saw it would underflow all the others.
    inputs[1][:, :, 20] = 10 * features[:, 0]
    after = performer_attention(*inputs, features, chunk_size=SIZE)[0]
    assert torch.equal(before[:, :, :20], after[:, :, :20])
    assert after.isfinite().all()
