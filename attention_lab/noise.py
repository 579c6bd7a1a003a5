"""Heads whose keys are noisy, k_i ~ N(μ_i, Σ_i) with orthonormal μ_i: what one head and two heads return. Pure NumPy.

Questions (c) and (d). Where only one key varies, by a factor γ ~ N(1, ½) of its mean, each weight is the logistic
function of a normal variable, so its whole distribution is known, and with it the variance of c.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from attention_lab.heads import attend, pair_error, pair_query

STRETCH = 0.5  # the variance of γ


def isotropic(means: ArrayLike, alpha: float) -> np.ndarray:
    """Return Σ_i = αI for each of the means (n, d), (n, d, d)."""
    count, width = np.shape(means)
    return np.broadcast_to(alpha * np.eye(width), (count, width, width)).copy()


def stretched(means: ArrayLike, a: int, alpha: float) -> np.ndarray:
    """Return Σ_a = αI + ½ μ_a μ_aᵀ and αI for the others, (n, d, d): k_a ≈ γ μ_a, γ ~ N(1, ½), for small α."""
    covariances = isotropic(means, alpha)
    mean = np.asarray(means, dtype=float)[a]
    covariances[a] += STRETCH * np.outer(mean, mean)
    return covariances


def draw_keys(means: ArrayLike, covariances: ArrayLike, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw keys (draws, n, d), each k_i ~ N(μ_i, Σ_i) on its own; singular covariances are welcome.

    Args:
        means: (n, d).
        covariances: (n, d, d).

    Raises:
        ValueError: a covariance is not symmetric or has a negative eigenvalue.
    """
    means = np.asarray(means, dtype=float)
    covariances = np.asarray(covariances, dtype=float)
    if covariances.shape != (*means.shape, means.shape[-1]):
        raise ValueError(f"means of shape {means.shape} want a covariance each, found shape {covariances.shape}")
    for index, covariance in enumerate(covariances):
        if not np.allclose(covariance, covariance.T):
            raise ValueError(f"covariance {index} is not symmetric")
    variances, directions = np.linalg.eigh(covariances)  # (n, d), (n, d, d)
    for index, least in enumerate(variances.min(axis=-1)):
        if least < -1e-10 * max(1.0, variances[index].max()):
            raise ValueError(f"covariance {index} is not positive semidefinite: an eigenvalue is {least:.3g}")
    rounding = np.finfo(float).eps * means.shape[-1] * variances.max(axis=-1, keepdims=True)
    roots = directions * np.sqrt(np.where(variances > rounding, variances, 0.0))[:, None, :]  # (n, d, d)
    return means + np.einsum("nde,bne->bnd", roots, rng.standard_normal((draws, *means.shape)))


def one_head(keys: ArrayLike, means: ArrayLike, values: ArrayLike, a: int, b: int, beta: float) -> np.ndarray:
    """Return c, (..., e), of keys (..., n, d) for the query q = β(μ_a + μ_b), which knows the means alone."""
    return attend(keys, pair_query(means, a, b, beta), values)


def two_heads(keys: ArrayLike, means: ArrayLike, values: ArrayLike, a: int, b: int, beta: float) -> np.ndarray:
    """Return c, (..., e), the mean of two heads with the queries q_1 = βμ_a and q_2 = βμ_b."""
    means = np.asarray(means, dtype=float)
    return (attend(keys, beta * means[a], values) + attend(keys, beta * means[b], values)) / 2


@dataclass(frozen=True)
class LogitNormal:
    """The distribution of w = σ(x), x ~ N(location, scale²): a weight of a head.

    With location 0 it has two modes if and only if scale² > 2.
    """

    location: float
    scale: float

    def cdf(self, weight: ArrayLike) -> np.ndarray:
        """Return P(w ≤ weight)."""
        return norm.cdf(logit(weight), self.location, self.scale)

    def pdf(self, weight: ArrayLike) -> np.ndarray:
        """Return the density at a weight in (0, 1)."""
        weight = np.asarray(weight, dtype=float)
        return norm.pdf(logit(weight), self.location, self.scale) / (weight * (1.0 - weight))

    def expect(self, function) -> float:
        """Return E f(w), by quadrature over x within ten standard deviations."""
        if self.scale == 0.0:
            return float(function(expit(self.location)))
        low = self.location - 10 * self.scale
        high = self.location + 10 * self.scale
        bounds = np.unique(np.clip([low, -30.0, -3.0, 0.0, 3.0, 30.0, high], low, high))  # σ is steep around 0
        return sum(
            quad(lambda x: function(expit(x)) * norm.pdf(x, self.location, self.scale), start, end, limit=200)[0]
            for start, end in pairwise(bounds)
        )

    @property
    def mean(self) -> float:
        """E w."""
        return self.expect(lambda weight: weight)

    @property
    def variance(self) -> float:
        """Var w; ¼ where w is 0 or 1 with even chances."""
        mean = self.mean
        return self.expect(lambda weight: (weight - mean) ** 2)


def pair_share(beta: float, alpha: float, stretch: bool = False) -> LogitNormal:
    """Return the distribution of α_a / (α_a + α_b) under one head: exact, for any α.

    Its logit is k_a·q - k_b·q ~ N(0, 4αβ²), as |q|² = 2β²; a stretched k_a adds ½β². So it stays near ½ only
    while β√α ≪ 1, and with the stretch only while β ≪ 1, where a head averages everything.
    """
    return LogitNormal(0.0, beta * np.sqrt(4.0 * alpha + (STRETCH if stretch else 0.0)))


def one_head_weight(beta: float, count: int) -> LogitNormal:
    """Return the distribution of α_a under one head with k_a = γμ_a and all other keys (n = `count`) at their means.

    α_a = σ(βγ - ln(e^β + n - 2)), exactly; up to e^{-β} terms that is σ(β(γ - 1)).
    """
    return LogitNormal(-np.log1p((count - 2) * np.exp(-beta)), beta * np.sqrt(STRETCH))


def two_head_weight(beta: float, count: int) -> LogitNormal:
    """Return the distribution of α_a in the head q_1 = βμ_a, under the same keys: σ(βγ - ln(n - 1)), exactly."""
    return LogitNormal(beta - np.log(count - 1), beta * np.sqrt(STRETCH))


def flip_probability() -> float:
    """Return P(γ < 0) = Φ(-√2), about 7.9 %: the key points away, and the head q_1 reads everything but v_a."""
    return float(norm.cdf(-1.0 / np.sqrt(STRETCH)))


def one_head_variance(values: ArrayLike, a: int, b: int, beta: float) -> float:
    """Return E|c - Ec|² of one head with k_a = γμ_a: Var(α_a)·|v_a - r|², exactly.

    r = (e^β v_b + Σ_{i≠a,b} v_i) / (e^β + n - 2) is what the head reads where it does not read v_a.
    """
    values = np.asarray(values, dtype=float)
    others = np.delete(values, [a, b], axis=0)
    rest = (values[b] + np.exp(-beta) * others.sum(axis=0)) / (1.0 + len(others) * np.exp(-beta))
    return one_head_weight(beta, len(values)).variance * float(np.sum((values[a] - rest) ** 2))


def two_head_variance(values: ArrayLike, a: int, beta: float) -> float:
    """Return E|c - Ec|² of the mean of two heads with k_a = γμ_a: ¼ Var(α_a)·|v_a - mean_{i≠a} v_i|², exactly."""
    values = np.asarray(values, dtype=float)
    rest = np.delete(values, a, axis=0).mean(axis=0)
    return two_head_weight(beta, len(values)).variance * float(np.sum((values[a] - rest) ** 2)) / 4


def one_head_errors(values: ArrayLike, a: int, b: int, beta: float, alpha: float) -> tuple[float, float]:
    """Return what keeps one head under Σ = αI from ½(v_a + v_b): the leak and the noise, as lengths.

    The leak is `pair_error`, about ½(n - 2)e^{-β}; the noise is the standard deviation of `pair_share` times
    |v_a - v_b|, about ½β√α|v_a - v_b|. One head works where both are small: ln n ≪ β ≪ 1/√α.
    """
    values = np.asarray(values, dtype=float)
    leak = float(np.linalg.norm(pair_error(values, a, b, beta)))
    noise = float(np.sqrt(pair_share(beta, alpha).variance) * np.linalg.norm(values[a] - values[b]))
    return leak, noise
