"""What a choice of blocks finds: choices against loops, the box against every key in it, masses and facts by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_lab.selection import (
    block_mass,
    blocks_before,
    blocks_in_window,
    box_scores,
    choose_random,
    choose_top,
    found_share,
    mean_scores,
    seen_mass,
    what_is_found,
)
from attention_lab.structure import attention_matrices, pattern_mass, uniform_weights
from attention_lab.trained import head_streams
from modeling_minigpt.block_sparse_minigpt import BlockPattern, dense_mask
from tests.attention_lab.strategies import lab, seeds
from tests.attention_variants import draw_states, draw_tokens, tiny_model

any_sizes = given(seeds, st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 4))


def draw_scores(seed, length, block):
    """Random scores (2, T, nb) of few values, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, (2, length, -(-length // block)), generator=generator).float()


@lab
@any_sizes
def test_the_best_blocks_before_the_window_are_chosen(seed, length, block, window, k):
    scores = draw_scores(seed, length, block)
    chosen = choose_top(scores, block, window, k)
    for head in range(2):
        for query in range(length):
            before = range(max(0, query // block - window + 1))
            best = sorted(before, key=lambda number, row=scores[head, query]: (-row[number], number))[:k]
            assert chosen[head, query].nonzero().flatten().tolist() == sorted(best)


@lab
@any_sizes
def test_a_query_sees_each_block_once_and_none_that_is_later(seed, length, block, window, k):
    before, near = blocks_before(length, block, window), blocks_in_window(length, block, window)
    assert not (before & near).any()
    for query in range(length):
        assert (before | near)[query].nonzero().flatten().tolist() == list(range(query // block + 1))
        assert near[query].sum() == min(window, query // block + 1)
    complete = torch.arange(before.shape[1]) < length // block
    assert not (choose_top(draw_scores(seed, length, block), block, window, k) & ~complete).any()


@lab
@given(seeds, st.integers(1, 30), st.integers(1, 7))
def test_a_box_bounds_the_product_with_every_key_in_it(seed, length, block):
    query, key = (states.detach() for states in draw_states(2, 3, length, 4, count=2, seed=seed))
    scores = box_scores(query, key, block)
    products = query @ key.mT  # (B, H, T, T)
    for number, part in enumerate(products.split(block, dim=-1)):
        assert (part <= scores[..., number : number + 1] + 1e-5).all()
    torch.testing.assert_close(box_scores(query, key, 1), products)
    torch.testing.assert_close(mean_scores(query, key, 1), products)


def test_scores_of_earlier_blocks_do_not_depend_on_later_tokens():
    query, key = (states.detach() for states in draw_states(1, 2, 30, 8, count=2))
    later = key.clone()
    later[:, :, 21:] = 100.0
    for rule in (box_scores, mean_scores):
        before, after = (choose_top(rule(query, keys, 4), 4, 1, 2) for keys in (key, later))
        assert torch.equal(before[:, :, :21], after[:, :, :21])
        assert not torch.equal(before, after)


def test_mass_is_that_of_the_tokens_seen():
    weights = uniform_weights(10)
    torch.testing.assert_close(block_mass(weights, 4)[9], torch.tensor([0.4, 0.4, 0.2]))
    nothing = torch.zeros(10, 3, dtype=torch.bool)
    assert seen_mass(weights, nothing, 4, 3).item() == pytest.approx(1.0)
    assert seen_mass(weights, nothing, 4, 1, start=9).item() == pytest.approx(0.2)
    first = nothing.clone()
    first[:, 0] = True
    assert seen_mass(weights, first, 4, 1, start=9).item() == pytest.approx(0.6)


@lab
@given(seeds, st.integers(1, 3))
def test_no_choice_of_as_many_blocks_sees_more_than_the_best(seed, k):
    scores = torch.randn(2, 50, 50, generator=torch.Generator().manual_seed(seed)) * 3
    weights = scores.masked_fill(torch.ones(50, 50).triu(1).bool(), float("-inf")).softmax(-1)
    best = seen_mass(weights, choose_top(block_mass(weights, 4), 4, 2, k), 4, 2)
    others = [choose_top(draw_scores(seed, 50, 4), 4, 2, k), choose_random(2, 50, 4, 2, k)]
    assert all((best >= seen_mass(weights, other, 4, 2) - 1e-6).all() for other in others)


def test_the_random_choice_is_bigbirds():
    chosen = choose_random(3, 50, 4, 2, 2, layer=1)
    assert chosen[:, 16:].sum(-1).unique().tolist() == [2]
    mask = dense_mask(BlockPattern(4, 0, 2, 2, heads=3, layer=1), 50)
    weights = uniform_weights(50).expand(3, -1, -1)
    torch.testing.assert_close(seen_mass(weights, chosen, 4, 2), pattern_mass(weights, mask))


def test_a_head_that_matches_keys_finds_the_block_with_the_fact():
    """Every key is a direction of its own, and the query of each question equals the key of its fact."""
    key = torch.eye(128).expand(2, 3, -1, -1)
    query = torch.zeros(2, 3, 128, 128)
    asked = torch.tensor([[0, 120, 5], [0, 127, 66], [1, 125, 40]])
    for row, reader, fact in asked.tolist():
        query[row, :, reader] = key[row, :, fact]
    found = found_share(choose_top(box_scores(query, key, 8), 8, 2, 1), asked, 8, 2)
    assert found.tolist() == [1.0, 1.0, 1.0]
    blind = choose_top(torch.zeros(2, 3, 128, 16), 8, 2, 1)  # block 0, where the first question's fact is
    assert found_share(blind, asked, 8, 2).tolist() == pytest.approx([1 / 3] * 3)
    assert found_share(blind[0], asked, 8, 2).tolist() == pytest.approx([1 / 3] * 3)
    near = torch.tensor([[0, 120, 118]])  # in the window
    assert found_share(blind, near, 8, 2).tolist() == [1.0] * 3


def test_streams_before_the_rotation_are_those_of_the_first_position():
    model = tiny_model("vanilla", attn_implementation="eager")
    ids = draw_tokens(2, 9)
    (plain, *_), (rotated, *_) = (head_streams(model, {"input_ids": ids}, rotated=turn) for turn in (False, True))
    torch.testing.assert_close(plain.key[:, :, 0], rotated.key[:, :, 0])
    assert not torch.allclose(plain.key[:, :, 1:], rotated.key[:, :, 1:], atol=1e-3)
    torch.testing.assert_close(plain.key.norm(dim=-1), rotated.key.norm(dim=-1))


def test_a_models_rows_by_layer_head_rule_and_number():
    model = tiny_model("vanilla", attn_implementation="eager")
    ids = draw_tokens(2, 61)
    asked = torch.tensor([[0, 60, 3], [1, 59, 30], [1, 60, 9]])
    rows = what_is_found(model, ids, asked, counts=(1, 3, 12), block=4, window=2)
    by = {(row["layer"], row["head"], row["rule"], row["blocks"]): row for row in rows}
    assert len(by) == len(rows) == 2 * 4 * 4 * 3
    weights = attention_matrices(model, ids)
    for layer in (1, 2):
        for head in (1, 2, 3, 4):
            best = [by[layer, head, "best", k] for k in (1, 3, 12)]
            for rule in ("best", "box", "mean", "random"):
                found = [by[layer, head, rule, k] for k in (1, 3, 12)]
                assert found == sorted(found, key=lambda row: row["mass"])
                assert all(row["mass"] <= top["mass"] + 1e-6 for row, top in zip(found, best, strict=True))
            chosen = choose_top(block_mass(weights[layer - 1], 4), 4, 2, 3)
            wanted = seen_mass(weights[layer - 1], chosen, 4, 2, start=56).mean(0)[head - 1]
            assert best[1]["mass"] == pytest.approx(wanted.item())
            assert best[1]["found"] == pytest.approx(found_share(chosen, asked, 4, 2)[head - 1].item())


def test_a_text_too_short_for_a_choice_is_refused():
    model = tiny_model("vanilla", attn_implementation="eager")
    with pytest.raises(ValueError, match="a choice from 49 tokens on, found 48"):
        what_is_found(model, draw_tokens(1, 48), torch.zeros(1, 3, dtype=torch.long), (4,), block=8, window=2)
