"""Question (g): spectra against NumPy's, masses against the package's own masks, Performer's error and its law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_lab.structure import (
    attention_matrices,
    bigbird_mass,
    cumulative_spectrum,
    effective_rank,
    exact_weights,
    far_part,
    low_rank_error,
    model_performer_error,
    pattern_mass,
    pattern_parts,
    performer_error,
    performer_weights,
    tail_error,
    text_rows,
    uniform_weights,
)
from attention_lab.trained import head_streams
from modeling_minigpt.block_sparse_minigpt import BlockPattern, dense_mask
from modeling_minigpt.performer_attention_minigpt import draw_features
from tests import reference_attention as reference
from tests.attention_lab.strategies import lab, seeds
from tests.attention_variants import draw_states, draw_tokens, tiny_model


def causal(seed, length):
    """A random causal matrix of attention weights (T, T)."""
    scores = torch.randn(length, length, generator=torch.Generator().manual_seed(seed)) * 2
    return scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf).softmax(-1)


@lab
@given(seeds, st.integers(1, 12))
def test_spectrum_and_low_rank_error_are_numpys(seed, length):
    weights = causal(seed, length)
    left, sizes, right = np.linalg.svd(weights.double().numpy())
    np.testing.assert_allclose(cumulative_spectrum(weights), np.cumsum(sizes) / sizes.sum(), atol=1e-9)
    errors = [low_rank_error(weights, rank).item() for rank in range(length + 1)]
    for rank in range(length + 1):
        best = (left[:, :rank] * sizes[:rank]) @ right[:rank]
        wanted = np.linalg.norm(weights.numpy() - best) / np.linalg.norm(weights.numpy())
        assert errors[rank] == pytest.approx(wanted, abs=1e-5)
    assert errors[0] == pytest.approx(1.0)
    assert errors[-1] == 0.0


@lab
@given(seeds, st.integers(1, 12), st.integers(0, 11))
def test_no_matrix_of_a_rank_comes_nearer(seed, length, rank):
    weights, rng = causal(seed, length), np.random.default_rng(seed)
    other = rng.standard_normal((length, rank)) @ rng.standard_normal((rank, length))
    fit = other * (np.sum(other * weights.numpy()) / max(np.sum(other * other), 1e-12))  # as near as a multiple comes
    error = np.linalg.norm(fit - weights.numpy()) / np.linalg.norm(weights.numpy())
    assert low_rank_error(weights, rank).item() <= error + 1e-6


def test_effective_rank():
    assert effective_rank(torch.eye(20)).item() == 18
    assert effective_rank(torch.ones(20, 20)).item() == 1
    assert effective_rank(torch.diag(torch.tensor([6.0, 3.0, 1.0])), 0.6).item() == 1
    assert effective_rank(torch.diag(torch.tensor([6.0, 3.0, 1.0])), 0.61).item() == 2
    assert effective_rank(torch.stack([torch.eye(4), torch.ones(4, 4)])).tolist() == [4, 1]


def test_uniform_weights():
    np.testing.assert_allclose(uniform_weights(3), [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])


@lab
@given(seeds, st.integers(1, 30), st.integers(1, 9))
def test_the_far_part_is_what_stands_two_segments_back(seed, length, segment):
    weights = causal(seed, length)
    far = far_part(weights, segment)
    for query in range(length):
        border = max(0, query // segment - 1) * segment  # the first token that Linformer reads exactly
        assert torch.equal(far[query, :border], weights[query, :border])
        assert not far[query, border:].any()
    assert tail_error(far, weights, 0).item() == pytest.approx((far.norm() / weights.norm()).item(), abs=1e-5)
    assert tail_error(far, weights, 3) <= low_rank_error(weights, 3) + 1e-6 or length <= 3


@pytest.mark.parametrize("random_type", ["rows", "reservoir"])
@pytest.mark.parametrize("length", [1, 15, 64, 101], ids="T{}".format)
def test_parts_are_disjoint_and_make_up_the_pattern(length, random_type):
    pattern = BlockPattern(4, 2, 3, 2, random_type=random_type, heads=3, layer=1)
    parts = pattern_parts(pattern, length)
    assert torch.equal(sum(part.int() for part in parts.values()), dense_mask(pattern, length).int())
    queries, keys = torch.arange(length)[:, None] // 4, torch.arange(length) // 4
    seen = torch.arange(length) <= torch.arange(length)[:, None]
    assert torch.equal(parts["window"], (seen & (queries - keys < 3)).expand(3, -1, -1))
    assert torch.equal(parts["global"], (seen & (queries - keys >= 3) & (keys < 2)).expand(3, -1, -1))


@pytest.mark.parametrize("attention_type", ["bigbird", "bigbird-reservoir"])
def test_a_bigbird_model_is_all_inside_its_own_pattern(attention_type):
    model = tiny_model(attention_type, attn_implementation="eager")
    weights = attention_matrices(model, draw_tokens(2, 90))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    patterns = [layer.self_attn.pattern for layer in model.model.layers]
    masses = bigbird_mass(weights, patterns)
    torch.testing.assert_close(masses["all"], torch.ones(2, 4))
    assert all(masses[part].min() > 0.01 for part in ("window", "global", "random"))
    strange = [BlockPattern(**{**vars(pattern), "seed": 1}) for pattern in patterns]
    assert bigbird_mass(weights, strange)["all"].max() < 0.99


def test_mass_of_uniform_weights_is_the_share_of_tokens_seen():
    pattern = BlockPattern(4, 1, 2, 1, heads=2)
    mask = dense_mask(pattern, 50)
    shares = [(mask[:, row].sum(-1) / (row + 1)) for row in range(50)]
    torch.testing.assert_close(pattern_mass(uniform_weights(50), mask), torch.stack(shares).mean(0))
    vanilla = attention_matrices(tiny_model("vanilla", attn_implementation="eager"), draw_tokens(1, 50))
    assert 0.1 < pattern_mass(vanilla[0, 0, :2], mask).max() < 0.99


def test_performers_weights_are_the_references():
    query, key, _ = (states.detach() for states in draw_states(2, 3, 21, 8))
    features = draw_features(3, 24, 8, seed=5)
    units = torch.eye(21).expand(2, 3, -1, -1)
    weights = performer_weights(query, key, features)
    torch.testing.assert_close(
        weights, reference.performer_attention(query, key, units, features), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(exact_weights(query, key), reference.full_attention(query, key, units))


def test_performers_error_falls_and_orthogonal_features_have_less():
    query, key, _ = (states.detach() / 2 for states in draw_states(1, 4, 32, 16))
    errors = {
        kind: [performer_error(query, key, size, kind).mean().item() for size in (64, 1024)] for kind in (True, False)
    }
    for few, many in errors.values():
        assert math.log(few / many) / math.log(1024 / 64) == pytest.approx(0.5, abs=0.1)
    assert errors[True][0] < 0.95 * errors[False][0]
    assert errors[True][1] < errors[False][1]


def test_performers_error_is_relative_and_over_all_draws():
    query, key, _ = (states.detach() for states in draw_states(2, 3, 12, 8))
    exact, found = exact_weights(query, key), performer_error(query, key, 16, True, draws=3)
    squares = [
        (performer_weights(query, key, draw_features(3, 16, 8, seed)) - exact).square().sum((0, 2, 3))
        for seed in range(3)
    ]
    torch.testing.assert_close(found, (sum(squares) / 3 / exact.square().sum((0, 2, 3))).sqrt())


def test_performers_error_on_a_models_own_heads():
    model, ids = tiny_model("vanilla", attn_implementation="eager"), draw_tokens(2, 24)
    errors = [model_performer_error(model, ids, size, True) for size in (8, 512)]
    assert errors[0].shape == (2, 4)
    assert (errors[1] < errors[0]).all()
    first = head_streams(model, {"input_ids": ids})[0]
    torch.testing.assert_close(errors[0][0], performer_error(first.query, first.key, 8, True, draws=5))


def test_rows_of_text_go_on_from_document_to_document(toy):
    rows = text_rows(toy.tokenizer, toy.documents, 16, 3)
    assert rows.shape == (3, 16)
    stream = [token for document in toy.documents for token in toy.tokenizer(document)["input_ids"]]
    assert rows.flatten().tolist() == stream[:48]
    with pytest.raises(ValueError, match=r"1 documents hold \d+ tokens, wanted 1600"):
        text_rows(toy.tokenizer, toy.documents[:1], 16, 100)
