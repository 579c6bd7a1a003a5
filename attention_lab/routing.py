"""Self-attention whose keys, queries and values come from the same x: what it can return, and how to build it.

Question (e). Without matrices (v = k = q = x) an output is a convex combination of the inputs, which rules much out.
With them anything goes: `construct_qkv` lets each position read any position and return any vector. Pure NumPy.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from attention_lab.heads import attend, copy_bound, copy_margin

WORST_CONDITION = 1e10  # of inputs; beyond it rounding spoils what the matrices return
A, B, C, D = range(4)  # the rows of u


class Matrices(NamedTuple):
    """The maps of one head: q_i = Q x_i, k_i = K x_i, v_i = V x_i, each (·, d)."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


def self_attend(inputs: ArrayLike, matrices: Matrices | None = None) -> np.ndarray:
    """Return c (n, e) of inputs x (n, d), every position reading all; without matrices v = k = q = x."""
    inputs = np.asarray(inputs, dtype=float)
    queries, keys, values = (inputs @ matrix.T for matrix in matrices) if matrices else (inputs, inputs, inputs)
    return attend(keys[None], queries, values[None])


def dual_basis(inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return y (n, d) with y_i·x_j = 1 if i = j else 0, and the orthonormal p (n, d) that are nearest to the x.

    With the singular values x = U S Wᵀ, y = U S⁻¹ Wᵀ (the transposed pseudo-inverse) and p = U Wᵀ (the polar factor).

    Raises:
        ValueError: the inputs (n, d) are linearly dependent, or so nearly that rounding would decide.
    """
    inputs = np.asarray(inputs, dtype=float)
    if inputs.ndim != 2 or not inputs.size or not np.isfinite(inputs).all():
        raise ValueError(f"inputs must be n finite vectors of width d, found shape {inputs.shape}")
    count, width = inputs.shape
    left, sizes, right = np.linalg.svd(inputs, full_matrices=False)
    if count > width or sizes[-1] * WORST_CONDITION <= sizes[0]:
        raise ValueError(
            f"inputs must be linearly independent: the singular values of these {count} of width {width} "
            f"are {sizes[0]:.3g} to {0.0 if count > width else sizes[-1]:.3g}"
        )
    return (left / sizes) @ right, left @ right


def linear_map(inputs: ArrayLike, images: ArrayLike) -> np.ndarray:
    """Return Σ_i z_i y_iᵀ (e, d), which takes each x_i to z_i, images (n, e), and what is orthogonal to all to 0."""
    return np.asarray(images, dtype=float).T @ dual_basis(inputs)[0]


def read_routes(
    count: int, routes: Mapping[int, ArrayLike] | ArrayLike, sources: Mapping[int, int] | Sequence[int] | None
) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """Return wanted outputs by position and the position each is read from; ValueError where they contradict."""
    wanted = {
        int(position): np.asarray(output, dtype=float)
        for position, output in (routes.items() if isinstance(routes, Mapping) else enumerate(routes))
    }
    chosen = dict(sources.items() if isinstance(sources, Mapping) else enumerate([] if sources is None else sources))
    chosen = {position: chosen.get(position, position) for position in wanted}
    if strange := sorted({*wanted, *chosen.values()} - set(range(count))):
        raise ValueError(f"there are positions 0 to {count - 1}, found {strange[0]}")
    if len(shapes := {output.shape for output in wanted.values()}) != 1 or len(*shapes) != 1:
        raise ValueError("routes must name at least one output, all of one width")
    held: dict[int, int] = {}
    for position, source in chosen.items():
        first = held.setdefault(source, position)
        if not np.array_equal(wanted[first], wanted[position]):
            raise ValueError(f"positions {first} and {position} both read position {source} but want other outputs")
    return wanted, chosen


def construct_qkv(
    inputs: ArrayLike,
    routes: Mapping[int, ArrayLike] | ArrayLike,
    sources: Mapping[int, int] | Sequence[int] | None = None,
    margin: float = 30.0,
) -> Matrices:
    """Build matrices of outer products with c_i ≈ routes[i] for linearly independent inputs.

    K = Σ_j p_j y_jᵀ, Q = margin·Σ_i p_s(i) y_iᵀ and V = Σ_i c_i y_s(i)ᵀ with y and p of `dual_basis`: then
    k_j·q_i = margin·[j = s(i)], so position i copies v_s(i), its wanted output, and misses it by at most
    2·max|v|·(n - 1)·exp(-margin) (`copy_bound`). `certify` checks that on any matrices.

    Args:
        inputs: x (n, d).
        routes: the wanted output (e,) of each position, or of some by number; the others are free.
        sources: the position s(i) that i reads, by default i itself. Two may read the same one if they want the same.
        margin: in nats, k_s(i)·q_i over all other k_j·q_i.

    Raises:
        ValueError: dependent inputs, positions that do not exist, or outputs that contradict each other.
    """
    inputs = np.asarray(inputs, dtype=float)
    dual, directions = dual_basis(inputs)
    wanted, chosen = read_routes(len(inputs), routes, sources)
    query = np.zeros((len(inputs), inputs.shape[1]))
    values = np.zeros((len(inputs), len(next(iter(wanted.values())))))
    for position, source in chosen.items():
        query[position] = margin * directions[source]
        values[source] = wanted[position]
    return Matrices(query=query.T @ dual, key=directions.T @ dual, value=values.T @ dual)


def certify(
    matrices: Matrices,
    inputs: ArrayLike,
    routes: Mapping[int, ArrayLike] | ArrayLike,
    sources: Mapping[int, int] | Sequence[int] | None = None,
) -> dict[int, float]:
    """Return for each routed position a bound on |c_i - routes[i]|, from the scores that the matrices really give.

    |c_i - c| ≤ |c_i - v_s(i)| + |v_s(i) - c|: the first by `copy_bound` with the margin found, the second as found. So
    it holds however the matrices were made and rounded; matrices that route otherwise get a large bound.
    """
    inputs = np.asarray(inputs, dtype=float)
    wanted, chosen = read_routes(len(inputs), routes, sources)
    queries, keys, values = (inputs @ matrix.T for matrix in matrices)
    return {
        position: float(
            copy_bound(values, copy_margin(keys, queries[position], source))
            + np.linalg.norm(values[source] - wanted[position])
        )
        for position, source in chosen.items()
    }


def hull_distance(points: ArrayLike, target: ArrayLike) -> float:
    """Return the distance from a target (d,) to the convex hull of points (n, d).

    No head whose values are these points comes nearer, whatever its keys and queries are: its weights are a convex
    combination. Non-negative least squares, with a heavy last row for Σ α_i = 1.
    """
    points = np.asarray(points, dtype=float)
    target = np.asarray(target, dtype=float)
    heavy = 1e6 * max(1.0, np.abs(points).max(), np.abs(target).max())
    system = np.vstack([points.T, np.full(len(points), heavy)])
    weights, _ = nnls(system, np.append(target, heavy))
    return float(np.linalg.norm(weights / weights.sum() @ points - target))


def question_vectors(beta: float, width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return u_a … u_d (4, d), orthogonal and of norm β, and the question's inputs, (3, d).

    x_1 = u_d + u_b, x_2 = u_a, x_3 = u_c + u_b, in rows 0 to 2.
    """
    u = beta * np.eye(4, width)
    return u, np.stack([u[D] + u[B], u[A], u[C] + u[B]])


def question_routes(u: np.ndarray) -> dict[int, np.ndarray]:
    """Return what is asked for: c_1 ≈ u_b - u_c and c_2 ≈ u_b."""
    return {0: u[B] - u[C], 1: u[B]}


def question_matrices(u: np.ndarray) -> Matrices:
    """Return a solution in outer products of the u, (d, d) each, with margin β² for positions 1 and 2.

    K = I. Q takes u_a to u_d, so x_2 reads x_1, and u_d to u_c, so x_1 reads x_3. V keeps u_b and turns u_c round, so
    v_1 = u_b and v_3 = u_b - u_c.
    """
    square = u[A] @ u[A]
    query = (np.outer(u[D], u[A]) + np.outer(u[C], u[D])) / square
    value = (np.outer(u[B], u[B]) - np.outer(u[C], u[C])) / square
    return Matrices(query=query, key=np.eye(u.shape[1]), value=value)


def report_matrices(u: np.ndarray, inputs: np.ndarray) -> Matrices:
    """Return the construction that the practical's published report prints.

    V: x_1 → u_b, x_2 → u_d, x_3 → u_b - u_c; Q and K: x_1 → u_a, x_2 → u_b, x_3 → u_c. Each position reads itself, so
    c_1 ≈ u_b, c_2 ≈ u_d and c_3 ≈ u_b - u_c, which is not what was asked for.
    """
    both = linear_map(inputs, u[[A, B, C]])
    return Matrices(query=both, key=both, value=linear_map(inputs, np.stack([u[B], u[D], u[B] - u[C]])))
