"""Counter-based random numbers: SplitMix64's published values, uniform, independent, and the same in any company."""

import numpy as np
import pytest

from data_scripts.counter_random import derive_keys, integers, output, uniform


def test_outputs_are_those_of_splitmix64():
    # The first outputs for the seed 1234567, as its reference implementation in C prints them.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert output(np.array([1234567], np.uint64), np.arange(4)).tolist() == expected


def test_numbers_are_uniform_and_those_of_different_names_independent():
    states = derive_keys(0, np.repeat([0, 1], 20_000), np.tile(np.arange(20_000), 2))
    first, second = uniform(states, 0), uniform(states, 1)
    assert np.histogram(first, 10, (0, 1))[0] == pytest.approx([4000] * 10, rel=0.1)
    other_seed = uniform(derive_keys(1, np.zeros(20_000, int), np.arange(20_000)), 0)
    pairs = [(first, second), (first[:20_000], first[20_000:]), (first[:19_999], first[1:20_000])]
    for one, another in [*pairs, (first[:20_000], other_seed)]:
        assert abs(np.corrcoef(one, another)[0, 1]) < 0.03


def test_a_number_is_the_same_alone_and_among_others():
    states = derive_keys(-3, np.array([0, 7]), np.array([2, 5]))
    alone = derive_keys(-3, np.array([7]), np.array([5]))
    assert uniform(states, 9)[1] == uniform(alone, 9)[0]


def test_integers_reach_every_value_below_their_limit_and_no_other():
    states = derive_keys(0, np.zeros(300, int), np.arange(300))
    assert set(integers(3, states, 0).tolist()) == {0, 1, 2}
    assert set(integers(np.array([1]), states, 0).tolist()) == {0}
