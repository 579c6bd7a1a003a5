"""Orders of examples: each example once, another order for each epoch, seed and stream, and no pattern."""

import numpy as np
import pytest
from scipy import stats

from data_scripts.permutations import TABLE_SIZE, keyed_permutation, permutation, permute


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1023, 1024, 1025, 4097, 100_003])
def test_every_example_has_one_place(size):
    order = keyed_permutation(np.arange(size), size, 1, 2, 3)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_an_example_is_found_without_the_places_before_it():
    whole = keyed_permutation(np.arange(5000), 5000, 0, 0, 0)
    places = np.array([4999, 17, 17, 0])
    assert np.array_equal(keyed_permutation(places, 5000, 0, 0, 0), whole[places])


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "stream", "epoch"])
def test_every_part_of_the_key_counts(other):
    one, another = (keyed_permutation(np.arange(5000), 5000, *key) for key in ((0, 0, 0), other))
    assert (one == another).sum() < 12  # one by chance


def test_few_examples_are_in_the_order_of_a_table_and_many_in_the_keyed_one():
    places = np.arange(100)
    assert np.array_equal(permute(places, TABLE_SIZE, 5, 0, 1), permutation(TABLE_SIZE, 5, 0, 1)[:100])
    size = 3_000_000_001
    found = permute(np.array([0, size - 1]), size, 5, 0, 1)
    assert np.array_equal(found, keyed_permutation(np.array([0, size - 1]), size, 5, 0, 1))
    assert (found < size).all()


def test_places_and_examples_are_independent():
    size = 2_000_001
    order = keyed_permutation(np.arange(size), size, 0, 0, 0)
    table, _, _ = np.histogram2d(np.arange(size), order, bins=32)
    assert stats.chi2_contingency(table).pvalue > 1e-4
    # Neither do neighbours stay neighbours: a step to the next place goes anywhere.
    steps = np.bincount(np.diff(order) % size * 64 // size, minlength=64)
    assert stats.chisquare(steps).pvalue > 1e-4
