"""Questions (c) and (d): sampled heads against the distributions and variances that were derived for them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attention_lab.heads import attend, head_weights, longest, pair_query
from attention_lab.noise import (
    LogitNormal,
    draw_keys,
    flip_probability,
    isotropic,
    one_head,
    one_head_errors,
    one_head_variance,
    one_head_weight,
    pair_share,
    stretched,
    two_head_variance,
    two_head_weight,
    two_heads,
)
from tests.attention_lab.strategies import below, lab, orthonormal, seeds

A, B, COUNT, DRAWS = 1, 3, 6, 20_000
MEANS = np.linalg.qr(np.random.default_rng(7).standard_normal((COUNT + 2, COUNT)))[0].T  # orthonormal (n, d)
VALUES = np.random.default_rng(8).standard_normal((COUNT, 4))
TARGET = (VALUES[A] + VALUES[B]) / 2


def keys_with(stretch, alpha, draws=DRAWS, seed=0):
    covariances = stretched(MEANS, A, alpha) if stretch else isotropic(MEANS, alpha)
    return draw_keys(MEANS, covariances, draws, np.random.default_rng(seed))


def p_value(sample, distribution):
    """How likely a sample is that far from its distribution (Kolmogorov–Smirnov)."""
    return stats.kstest(sample, distribution.cdf).pvalue


@lab
@given(orthonormal(), seeds)
def test_keys_have_the_means_and_covariances_asked_for(means, seed):
    rng, draws = np.random.default_rng(seed), 4000
    roots = rng.standard_normal((len(means), means.shape[1], 2))  # of rank two: most are singular
    covariances = roots @ roots.transpose(0, 2, 1)
    keys = draw_keys(means, covariances, draws, rng)
    spread = covariances.trace(axis1=1, axis2=2).max()
    assert np.abs(keys.mean(axis=0) - means).max() < 6 * np.sqrt(spread / draws)
    centred = keys - means
    assert np.abs(np.einsum("bnd,bne->nde", centred, centred) / draws - covariances).max() < 9 * spread / draws**0.5
    assert np.abs(np.einsum("bd,be->de", centred[:, 0], centred[:, -1]) / draws).max() < 9 * spread / draws**0.5


def test_a_stretched_key_is_a_multiple_of_its_mean():
    keys = keys_with(stretch=True, alpha=0.0)
    gamma = keys[:, A] @ MEANS[A]
    np.testing.assert_allclose(keys[:, A], gamma[:, None] * MEANS[A], atol=1e-12)
    assert stats.kstest(gamma, stats.norm(1.0, np.sqrt(0.5)).cdf).pvalue > 0.01
    np.testing.assert_allclose(np.delete(keys, A, axis=1), np.delete(MEANS, A, axis=0)[None].repeat(DRAWS, 0))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.diag([1.0, -0.5]), "covariance 1 is not positive semidefinite: an eigenvalue is -0.5"),
        (np.array([[1.0, 0.3], [0.0, 1.0]]), "covariance 1 is not symmetric"),
        (np.eye(3), "want a covariance each"),
    ],
)
def test_covariances_that_are_none_are_refused(covariance, message):
    covariances = [np.eye(len(covariance)), covariance]
    with pytest.raises(ValueError, match=message):
        draw_keys(np.eye(2), covariances, 10, np.random.default_rng(0))


@pytest.mark.parametrize("beta", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("stretch", [False, True], ids=["isotropic", "stretched"])
def test_the_share_of_v_a_in_the_pair_is_logit_normal(stretch, alpha, beta):
    weights = head_weights(keys_with(stretch, alpha), pair_query(MEANS, A, B, beta))
    share = weights[:, A] / (weights[:, A] + weights[:, B])
    assert p_value(share, pair_share(beta, alpha, stretch)) > 0.01
    wider = pair_share(1.05 * beta, alpha, stretch)
    assert p_value(share, wider) < 0.01  # the test can tell five per cent


@pytest.mark.parametrize("beta", [0.5, 3.0, 12.0])  # beyond, so many weights round to one that the sample has ties
def test_the_weight_of_a_stretched_key_has_the_derived_distribution(beta):
    keys = keys_with(stretch=True, alpha=0.0)
    weight = head_weights(keys, pair_query(MEANS, A, B, beta))[:, A]
    assert p_value(weight, one_head_weight(beta, COUNT)) > 0.01
    assert p_value(weight, two_head_weight(beta, COUNT)) < 1e-6
    first = head_weights(keys, beta * MEANS[A])[:, A]
    assert p_value(first, two_head_weight(beta, COUNT)) > 0.01
    gamma = keys[:, A] @ MEANS[A]
    by_gamma = 1 / (1 + np.exp(-beta * (gamma - 1)))
    assert np.abs(weight - by_gamma).max() <= (COUNT - 2) * np.exp(-beta)  # the e^{-β} terms


@lab
@given(st.floats(0.2, 200), st.integers(2, 50), st.floats(0.01, 0.99))
def test_density_is_the_derivative_of_the_distribution(beta, count, weight):
    distribution, step = one_head_weight(beta, count), 1e-6
    slope = (distribution.cdf(weight + step) - distribution.cdf(weight - step)) / (2 * step)
    assert distribution.pdf(weight) == pytest.approx(slope, rel=1e-3, abs=1e-6)


@lab
@given(st.floats(0.1, 30))
def test_two_modes_appear_at_beta_two(beta):
    """The density of w has a dip at ½ if and only if the variance of its logit, β²/2, exceeds two."""
    density = one_head_weight(beta, 2).pdf([0.499, 0.5, 0.501])
    if abs(beta - 2) > 1e-2:
        assert (density[1] < min(density[0], density[2])) == (beta > 2)


def test_c_is_bimodal_and_hardly_ever_between():
    between = []
    for beta in (2.0, 20.0, 200.0):
        keys = keys_with(stretch=True, alpha=0.0)
        c = one_head(keys, MEANS, VALUES, A, B, beta)
        near = np.minimum(*(np.linalg.norm(c - VALUES[index], axis=1) for index in (A, B)))
        between.append(np.mean(near > 0.1 * np.linalg.norm(VALUES[A] - VALUES[B])))
    derived = one_head_weight(200.0, COUNT).cdf(0.9) - one_head_weight(200.0, COUNT).cdf(0.1)
    assert between[2] == pytest.approx(derived, abs=4 * np.sqrt(derived / DRAWS))
    assert between[0] > 0.7
    assert between[2] < 0.02
    np.testing.assert_allclose(between[1] / between[2], 10, rtol=0.3)  # it falls as 1/β


@settings(lab, max_examples=25)
@given(st.floats(0.01, 300), st.floats(-10, 10))
def test_moments_are_those_of_a_fine_grid(scale, location):
    distribution = LogitNormal(location, scale)
    normal = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    weights = 1 / (1 + np.exp(-np.clip(location + scale * normal, -700, 700)))
    assert distribution.mean == pytest.approx(weights.mean(), abs=2e-5)
    assert distribution.variance == pytest.approx(weights.var(), abs=2e-5)


def test_moments_without_any_noise():
    assert (LogitNormal(0.0, 0.0).mean, LogitNormal(0.0, 0.0).variance) == (0.5, 0.0)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0, 15.0, 60.0])
def test_variances_of_one_and_of_two_heads(beta):
    keys = keys_with(stretch=True, alpha=0.0)
    for heads, query, weight, derived in (
        (one_head, pair_query(MEANS, A, B, beta), one_head_weight, one_head_variance(VALUES, A, B, beta)),
        (two_heads, beta * MEANS[A], two_head_weight, two_head_variance(VALUES, A, beta)),
    ):
        sampled = heads(keys, MEANS, VALUES, A, B, beta).var(axis=0).sum()
        assert sampled == pytest.approx(derived, rel=0.05)
        of_weight = head_weights(keys, query)[:, A].var()  # c moves along one line with it, for these very draws
        assert sampled / of_weight == pytest.approx(derived / weight(beta, COUNT).variance, rel=1e-6)


def test_limits_of_the_variances():
    """One head ends in a fair coin, Var ¼; two in one that falls wrong with Φ(-√2), and counts half."""
    flip, values = flip_probability(), np.eye(COUNT)
    assert one_head_variance(values, A, B, 1e4) == pytest.approx(0.25 * 2, rel=1e-3)
    assert two_head_variance(values, A, 1e4) == pytest.approx(flip * (1 - flip) / 4 * (1 + 1 / (COUNT - 1)), rel=1e-3)


REGIME = list(product((0.5, 2, 4, 6, 9, 14, 20, 40, 90), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)))


@pytest.mark.parametrize(("beta", "alpha"), REGIME, ids=lambda value: f"{value:g}")
def test_one_head_works_where_leak_and_noise_are_small_and_nowhere_else(beta, alpha):
    c = one_head(keys_with(False, alpha, 4000), MEANS, VALUES, A, B, beta)
    error = np.sqrt(np.mean(np.sum((c - TARGET) ** 2, axis=1)))
    leak, noise = one_head_errors(VALUES, A, B, beta, alpha)
    good = 0.05 * longest(VALUES)
    if leak < good / 2 and noise < good / 2:
        assert error < good
    if leak > 2 * good or noise > 2 * good:
        assert error > good
    if beta * np.sqrt(alpha) < 0.05:
        assert error == pytest.approx(np.hypot(leak, noise), rel=0.1)
        assert noise == pytest.approx(beta * np.sqrt(alpha) / 2 * np.linalg.norm(VALUES[A] - VALUES[B]), rel=0.01)


def test_the_regime_has_all_its_corners():
    errors = [one_head_errors(VALUES, A, B, *point) for point in REGIME]
    good = 0.05 * longest(VALUES)
    works = [leak < good / 2 and noise < good / 2 for leak, noise in errors]
    assert 5 < sum(works) < len(works) - 20
    assert any(leak > 2 * good > 20 * noise for leak, noise in errors)
    assert any(noise > 2 * good > 20 * leak for leak, noise in errors)


def test_two_heads_need_no_small_beta():
    """Where β√α is above one, one head scatters; two heads only ask that √α be small."""
    keys = keys_with(stretch=False, alpha=1e-3)
    one, two = (head(keys, MEANS, VALUES, A, B, 100.0) for head in (one_head, two_heads))
    assert np.sqrt(np.mean(np.sum((one - TARGET) ** 2, axis=1))) > 0.3 * np.linalg.norm(VALUES[A] - VALUES[B])
    assert np.linalg.norm(two - TARGET, axis=1).max() < 1e-12


@lab
@given(st.floats(0.5, 30), seeds)
def test_two_heads_survive_the_stretch_unless_gamma_is_negative(beta, seed):
    keys = keys_with(stretch=True, alpha=0.0, draws=2000, seed=seed)
    gamma = keys[:, A] @ MEANS[A]
    error = np.linalg.norm(two_heads(keys, MEANS, VALUES, A, B, beta) - TARGET, axis=1)
    size = longest(VALUES) * (COUNT - 1)
    second = size * np.exp(-beta)  # what the other head, of β, misses by at most
    kept = gamma > 0
    assert below(error[kept], size * np.exp(-beta * gamma[kept]) + second, 1.0)
    others = np.delete(VALUES, A, axis=0).mean(axis=0)
    lost = (COUNT - 1) / COUNT * np.linalg.norm(VALUES[A] - others) / 2
    assert np.all(error[~kept] > lost - second - 1e-12)
    flipped = head_weights(keys, beta * MEANS[A])[:, A]
    assert np.array_equal(flipped < 1 / COUNT, ~kept)


def test_gamma_is_negative_in_eight_of_a_hundred():
    assert flip_probability() == pytest.approx(stats.norm.cdf(-np.sqrt(2)), abs=1e-12)
    assert flip_probability() == pytest.approx(0.0786, abs=5e-5)
    draws = 200_000
    keys = keys_with(stretch=True, alpha=0.0, draws=draws)
    c = attend(keys, 30.0 * MEANS[A], VALUES)  # the first of the two heads
    lost = np.linalg.norm(c - VALUES[A], axis=1) > (COUNT - 1) / COUNT * np.linalg.norm(
        VALUES[A] - np.delete(VALUES, A, axis=0).mean(axis=0)
    )
    error = np.sqrt(flip_probability() * (1 - flip_probability()) / draws)
    assert lost.mean() == pytest.approx(flip_probability(), abs=4 * error)
