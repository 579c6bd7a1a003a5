"""One attention head on paper: when it copies a value, and how it averages two. Pure NumPy.

A head maps a query q (d,), keys k_i (n, d) and values v_i (n, e) to c = Σ α_i v_i (e,) with α = softmax(k_i·q). Scores
k_i·q are in nats and not scaled. All functions take leading dimensions too. Questions (a) and (b) of section 2 of
Stanford's CS224N assignment 5, which the practical took over.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax


def head_scores(keys: ArrayLike, query: ArrayLike) -> np.ndarray:
    """Return k_i·q, (..., n), of keys (..., n, d) and a query (..., d); ValueError unless they are equally wide."""
    keys = np.asarray(keys, dtype=float)
    query = np.asarray(query, dtype=float)
    if keys.ndim < 2 or query.ndim < 1 or keys.shape[-1] != query.shape[-1]:
        raise ValueError(f"keys and query must be equally wide, found shapes {keys.shape} and {query.shape}")
    return np.einsum("...nd,...d->...n", keys, query)


def head_weights(keys: ArrayLike, query: ArrayLike) -> np.ndarray:
    """Return α = softmax(k_i·q), (..., n), which sums to one whatever the size of the scores."""
    return softmax(head_scores(keys, query), axis=-1)


def attend(keys: ArrayLike, query: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Return c = Σ α_i v_i, (..., e).

    Args:
        keys: (..., n, d).
        query: (..., d).
        values: (..., n, e).

    Raises:
        ValueError: keys and query of unequal width, or not as many values as keys.
    """
    weights = head_weights(keys, query)
    values = np.asarray(values, dtype=float)
    if values.ndim < 2 or values.shape[-2] != weights.shape[-1]:
        raise ValueError(f"wanted {weights.shape[-1]} values, one per key, found shape {values.shape}")
    return np.einsum("...n,...ne->...e", weights, values)


def longest(values: ArrayLike) -> np.ndarray:
    """Return max_i |v_i|, (...), of values (..., n, e)."""
    return np.linalg.norm(values, axis=-1).max(axis=-1)


def copy_margin(keys: ArrayLike, query: ArrayLike, index: int) -> np.ndarray:
    """Return k_j·q - max_{i≠j} k_i·q, (...), in nats, for j = `index`; infinite where there is no other key."""
    scores = head_scores(keys, query)
    others = np.delete(scores, index, axis=-1)
    return scores[..., index] - others.max(axis=-1, initial=-np.inf)


def copy_bound(values: ArrayLike, margin: ArrayLike) -> np.ndarray:
    """Return the most by which c can miss v_j: |c - v_j| ≤ 2·max|v|·(n - 1)·exp(-margin), for any margin.

    Each other weight is at most exp(-margin) of v_j's, which is at most 1, and moves c by at most |v_i - v_j|.
    """
    values = np.asarray(values, dtype=float)
    with np.errstate(over="ignore"):  # an infinite bound says nothing, and is right
        return 2.0 * longest(values) * (values.shape[-2] - 1) * np.exp(-np.asarray(margin, dtype=float))


def pair_query(keys: ArrayLike, a: int, b: int, beta: float) -> np.ndarray:
    """Return q = β(k_a + k_b), (d,), which averages v_a and v_b where the keys (n, d) are orthonormal."""
    keys = np.asarray(keys, dtype=float)
    return beta * (keys[a] + keys[b])


def pair_weight(beta: float, count: int) -> float:
    """Return the weight of v_a, and of v_b, under `pair_query`: e^β / (2e^β + n - 2), n = `count` orthonormal keys."""
    return 1.0 / (2.0 + (count - 2) * np.exp(-beta))


def pair_error(values: ArrayLike, a: int, b: int, beta: float) -> np.ndarray:
    """Return c - ½(v_a + v_b), (e,), under `pair_query` and orthonormal keys, exactly.

    The n - 2 other values share (n - 2) / (2e^β + n - 2) of the weight, about ½(n - 2)e^{-β}, and pull c that far
    towards their mean.
    """
    values = np.asarray(values, dtype=float)
    others = np.delete(values, [a, b], axis=0)
    middle = (values[a] + values[b]) / 2
    leak = len(others) * np.exp(-beta) / (2.0 + len(others) * np.exp(-beta))
    return leak * (others.mean(axis=0) - middle) if len(others) else np.zeros_like(middle)
