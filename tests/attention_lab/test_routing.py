"""Question (e): what self-attention cannot return without matrices, and that the solver's return what is wanted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_lab.heads import attend, copy_bound
from attention_lab.routing import (
    A,
    B,
    C,
    D,
    Matrices,
    certify,
    construct_qkv,
    dual_basis,
    hull_distance,
    linear_map,
    question_matrices,
    question_routes,
    question_vectors,
    report_matrices,
    self_attend,
)
from tests.attention_lab.strategies import below, independent, lab, seeds, vectors

SOURCES = {0: 2, 1: 0}  # which positions `question_matrices` reads
betas = st.floats(1.5, 8)


def lengths(rows):
    return np.linalg.norm(rows, axis=-1)


def rotated(u, inputs, seed):
    """Turn both by one random rotation: nothing may depend on the axes."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((u.shape[1], u.shape[1])))[0]
    return u @ turn, inputs @ turn


@lab
@given(betas, seeds)
def test_without_matrices_the_second_output_is_its_own_input(beta, seed):
    u, inputs = rotated(*question_vectors(beta, 6), seed)
    bound = copy_bound(inputs, beta**2)
    assert below(lengths(self_attend(inputs)[1] - u[A]), bound, 1e-3)
    for added in (C, D):
        changed = inputs.copy()
        changed[1] += u[added]
        scores = changed @ changed[1]
        np.testing.assert_allclose(np.sort(scores), [0.0, beta**2, 2 * beta**2], atol=1e-9)
        assert scores.argmax() == 1  # x_2 still reads itself
        assert below(lengths(self_attend(changed)[1] - changed[1]), copy_bound(changed, beta**2), 1e-3)


@lab
@given(betas, st.sampled_from([None, C, D]), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_no_queries_and_keys_bring_an_output_of_these_values_to_u_b(beta, added, shares):
    u, inputs = question_vectors(beta)
    if added is not None:
        inputs[1] += u[added]
    distance = hull_distance(inputs, u[B])
    assert distance == pytest.approx(beta * np.sqrt(0.4 if added is None else 0.5))
    weights = np.array(shares) + 1e-6
    mixed = weights / weights.sum() @ inputs
    assert lengths(mixed - u[B]) > distance - 1e-9


@lab
@given(vectors(4, 3, 20.0), st.lists(st.floats(0, 1), min_size=4, max_size=4), vectors(1, 3, 20.0))
def test_hull_distance_is_zero_inside_and_attained(points, shares, target):
    weights = (np.array(shares) + 0.01) / (np.array(shares) + 0.01).sum()
    assert hull_distance(points, weights @ points) < 1e-3
    distance = hull_distance(points, target[0])
    assert distance <= lengths(points - target[0]).min() + 1e-3  # corners belong to the hull
    for direction in np.vstack([np.eye(3), -np.eye(3)]):  # a plane between target and hull: no point can be nearer
        assert distance >= ((points - target[0]) @ direction).min() - 1e-3


@lab
@given(betas, seeds)
def test_the_questions_solution_in_outer_products(beta, seed):
    u, inputs = rotated(*question_vectors(beta, 5), seed)
    routes, matrices = question_routes(u), question_matrices(u)
    bound = copy_bound(np.stack([u[B], 0 * u[B], u[B] - u[C]]), beta**2)
    outputs, certified = self_attend(inputs, matrices), certify(matrices, inputs, routes, SOURCES)
    for position, wanted in routes.items():
        error = lengths(outputs[position] - wanted)
        assert below(error, bound, 1e-3)
        assert below(error, certified[position], 1e-3)
        assert certified[position] == pytest.approx(bound, rel=1e-6, abs=1e-9)


@lab
@given(betas, seeds)
def test_the_reports_matrices_route_elsewhere(beta, seed):
    u, inputs = rotated(*question_vectors(beta, 5), seed)
    matrices = report_matrices(u, inputs)
    for place, image in enumerate(u[[A, B, C]]):
        np.testing.assert_allclose(matrices.query @ inputs[place], image, atol=1e-9)
        np.testing.assert_allclose(matrices.key @ inputs[place], image, atol=1e-9)
    given_routes = np.stack([u[B], u[D], u[B] - u[C]])
    outputs, certified = self_attend(inputs, matrices), certify(matrices, inputs, given_routes)
    assert below(lengths(outputs - given_routes), np.array(list(certified.values())), 1e-3)
    assert max(certified.values()) < 1.001 * copy_bound(given_routes, beta**2) + 1e-9
    misses = {0: beta, 1: np.sqrt(2) * beta}  # of what the question asks for: |u_c|, and |u_d - u_b|
    for position, wanted in question_routes(u).items():
        assert lengths(outputs[position] - wanted) == pytest.approx(
            misses[position], abs=2 * max(certified.values()) + 1e-9
        )
        assert certify(matrices, inputs, question_routes(u))[position] > 0.99 * misses[position]


@lab
@given(independent(), st.data())
def test_the_solver_brings_any_outputs_to_any_independent_inputs(inputs, data):
    count = len(inputs)
    routes = data.draw(vectors(count, data.draw(st.integers(1, 4)), 9.0))
    sources = np.array(data.draw(st.permutations(range(count))))
    margin = data.draw(st.floats(1, 60))
    matrices = construct_qkv(inputs, routes, sources, margin)
    errors, certified = lengths(self_attend(inputs, matrices) - routes), certify(matrices, inputs, routes, sources)
    bound = copy_bound(routes, margin)
    assert below(errors, bound, 1e3)
    assert below(errors, np.array([certified[i] for i in range(count)]), 1e3)
    assert below(np.array(list(certified.values())), bound, 1e3, rounding=1e-8)
    if count > 1:  # nothing is left of the error but what the other values weigh
        scores = (inputs @ matrices.key.T) @ (inputs @ matrices.query.T).T
        wanted = np.zeros((count, count))
        wanted[list(sources), range(count)] = margin
        np.testing.assert_allclose(scores, wanted, atol=1e-5)


@lab
@given(independent(), st.data())
def test_many_positions_may_read_one(inputs, data):
    count, source = len(inputs), data.draw(st.integers(0, len(inputs) - 1))
    routes = np.repeat(data.draw(vectors(1, 3, 9.0)), count, axis=0)
    outputs = self_attend(inputs, construct_qkv(inputs, routes, [source] * count))
    assert below(lengths(outputs - routes), copy_bound(routes, 30.0), 1e3)


def test_some_positions_may_be_left_free():
    u, inputs = question_vectors(3.0)
    for sources in (None, SOURCES):
        matrices = construct_qkv(inputs, question_routes(u), sources)
        outputs = self_attend(inputs, matrices)
        np.testing.assert_allclose(outputs[0], u[B] - u[C], atol=1e-11)
        np.testing.assert_allclose(outputs[1], u[B], atol=1e-11)
        read = (inputs @ matrices.key.T) @ (matrices.query @ inputs[0])
        assert read.argmax() == (0 if sources is None else 2)
    assert [matrix.shape for matrix in construct_qkv(inputs, {1: [1.0, 2.0]})] == [(4, 4), (4, 4), (2, 4)]


@lab
@given(independent(), st.data())
def test_maps_and_dual_vectors(inputs, data):
    dual, directions = dual_basis(inputs)
    np.testing.assert_allclose(dual @ inputs.T, np.eye(len(inputs)), atol=1e-6)
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(inputs)), atol=1e-9)
    images = data.draw(vectors(len(inputs), 2, 9.0))
    np.testing.assert_allclose(inputs @ linear_map(inputs, images).T, images, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "routes", "sources", "message"),
    [
        ([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]], np.eye(2), None, "linearly independent: the singular values of these 2"),
        (np.ones((3, 2)), np.eye(3), None, "linearly independent: .* these 3 of width 2"),
        (np.zeros((2, 2)), np.eye(2), None, "linearly independent"),
        ([[1.0, np.nan], [0.0, 1.0]], np.eye(2), None, "finite vectors"),
        (np.eye(2), {2: [1.0]}, None, "positions 0 to 1, found 2"),
        (np.eye(2), {0: [1.0]}, {0: 5}, "positions 0 to 1, found 5"),
        (np.eye(2), {0: [1.0], 1: [2.0]}, {0: 1, 1: 1}, "positions 0 and 1 both read position 1"),
        (np.eye(2), {}, None, "at least one output"),
        (np.eye(2), {0: [1.0], 1: [2.0, 3.0]}, None, "all of one width"),
        (np.eye(2), [1.0, 2.0], None, "all of one width"),
    ],
)
def test_what_cannot_be_solved_is_refused(inputs, routes, sources, message):
    with pytest.raises(ValueError, match=message):
        construct_qkv(np.array(inputs), routes, sources)


def test_self_attention_is_attention_position_by_position():
    rng = np.random.default_rng(3)
    inputs, matrices = rng.standard_normal((4, 5)), Matrices(*rng.standard_normal((3, 5, 5)))
    queries, keys, values = (inputs @ matrix.T for matrix in matrices)
    expected = [attend(keys, query, values) for query in queries]
    np.testing.assert_allclose(self_attend(inputs, matrices), expected)
