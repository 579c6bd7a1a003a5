"""Questions (a) and (b): the copying bound for any head, and the exact weights and error of an average of two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_lab.heads import (
    attend,
    copy_bound,
    copy_margin,
    head_weights,
    longest,
    pair_error,
    pair_query,
    pair_weight,
)
from tests.attention_lab.strategies import any_head, below, lab, orthonormal, seeds, vectors


def slow_attend(keys, query, values):
    """Attend by the definition, in exponentials taken relative to the largest score."""
    scores = [float(np.dot(key, query)) for key in keys]
    masses = [np.exp(score - max(scores)) for score in scores]
    return sum(mass / sum(masses) * value for mass, value in zip(masses, values, strict=True))


@lab
@given(any_head())
def test_attention_is_what_its_definition_says(head):
    keys, query, values, _ = head
    np.testing.assert_allclose(attend(keys, query, values), slow_attend(keys, query, values), atol=1e-9)


@lab
@given(any_head(size=1e3))
def test_weights_are_a_distribution_whatever_the_scores(head):
    weights = head_weights(*head[:2])
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1.0)


@lab
@given(any_head(), any_head())
def test_leading_dimensions_are_heads_of_their_own(one, other):
    keys, query, values, _ = one
    scaled = [np.stack([part, -2.0 * part]) for part in (keys, query, values)]
    found = attend(*scaled)
    assert found.shape == (2, values.shape[1])
    np.testing.assert_allclose(found[0], attend(keys, query, values), atol=1e-9)
    np.testing.assert_allclose(found[1], attend(-2.0 * keys, -2.0 * query, -2.0 * values), atol=1e-9)
    np.testing.assert_allclose(longest(scaled[2])[1], 2 * longest(values))


@lab
@given(any_head())
def test_copying_bound(head):
    keys, query, values, index = head
    error = np.linalg.norm(attend(keys, query, values) - values[index])
    assert below(error, copy_bound(values, copy_margin(keys, query, index)), 1e3)


@lab
@given(orthonormal(), st.floats(0, 1100), seeds)
def test_copying_bound_at_every_margin(keys, margin, seed):
    values = np.random.default_rng(seed).standard_normal((len(keys), 3))
    query = margin * keys[0]
    assert copy_margin(keys, query, 0) == pytest.approx(margin)
    assert below(np.linalg.norm(attend(keys, query, values) - values[0]), copy_bound(values, margin), longest(values))


def test_copying_bound_is_reached():
    """Opposite values: every other one is 2·max|v| away, so the bound is reached as the margin grows."""
    values = np.array([[1.0], [-1.0], [-1.0], [-1.0]])
    keys = np.eye(4)
    for margin in (5.0, 10.0, 15.0):
        error = abs(attend(keys, margin * keys[0], values) - values[0])[0]
        assert copy_bound(values, margin) * (1 - 4 * np.exp(-margin)) < error < copy_bound(values, margin)


@lab
@given(vectors(1, 3, 40.0), vectors(1, 3, 40.0), vectors(1, 2, 40.0))
def test_a_head_with_one_key_copies(key, query, value):
    assert copy_margin(key, query[0], 0) == np.inf
    assert copy_bound(value, np.inf) == 0.0
    np.testing.assert_array_equal(attend(key, query[0], value), value[0])


@lab
@given(vectors(5, 3, 40.0), st.integers(1, 5))
def test_equal_keys_average(values, width):
    keys = np.ones((5, width))
    assert copy_margin(keys, np.ones(width), 2) == 0.0
    np.testing.assert_allclose(attend(keys, np.ones(width), values), values.mean(axis=0), atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_a_margin_of_a_thousand_overflows_nothing():
    keys, values = 1000.0 * np.eye(3), np.array([[1.0], [5.0], [-7.0]])
    assert attend(keys, np.array([0.0, 1.0, 0.0]), values) == 5.0
    assert copy_bound(values, 1000.0) == 0.0
    assert copy_bound(values, -1000.0) == np.inf


@lab
@given(orthonormal(), st.floats(0, 60), seeds)
def test_average_of_two_has_the_exact_weights_and_error(keys, beta, seed):
    rng, count = np.random.default_rng(seed), len(keys)
    values, (a, b) = rng.standard_normal((count, 3)), rng.permutation(count)[:2]
    query = pair_query(keys, a, b, beta)
    weights = head_weights(keys, query)
    assert pair_weight(beta, count) == pytest.approx(np.exp(beta) / (2 * np.exp(beta) + count - 2))
    np.testing.assert_allclose(weights[[a, b]], pair_weight(beta, count), rtol=1e-9)
    np.testing.assert_allclose(np.delete(weights, [a, b]).sum(), 1 - 2 * pair_weight(beta, count), atol=1e-12)
    error = attend(keys, query, values) - (values[a] + values[b]) / 2
    np.testing.assert_allclose(error, pair_error(values, a, b, beta), atol=1e-12)


@lab
@given(orthonormal(least=3), st.floats(12, 30), seeds)
def test_the_error_of_an_average_of_two_falls_as_exp_minus_beta(keys, beta, seed):
    values = np.random.default_rng(seed).standard_normal((len(keys), 3))
    near, far = (np.linalg.norm(pair_error(values, 0, 1, size)) for size in (beta, beta + 1))
    assert near / far == pytest.approx(np.e, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "query", "values", "message"),
    [
        (np.eye(3), np.ones(2), np.eye(3), r"equally wide, found shapes \(3, 3\) and \(2,\)"),
        (np.ones(3), np.ones(3), np.eye(3), r"equally wide, found shapes \(3,\) and \(3,\)"),
        (np.eye(3), np.ones(3), np.eye(2), r"wanted 3 values, one per key, found shape \(2, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(keys, query, values, message):
    with pytest.raises(ValueError, match=message):
        attend(keys, query, values)
