"""Lists of different lengths in one array."""

from collections.abc import Sequence

import numpy as np


def ranges(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return `first[0], first[0] + 1, …`, `length[0]` numbers, then those of the next range, and so on."""
    return np.repeat(first - (np.cumsum(length) - length), length) + np.arange(length.sum())


class Ragged:
    """Lists of different lengths in one array: list i is `values[first[i] : first[i] + length[i]]`."""

    def __init__(self, lists: Sequence[Sequence], values: np.ndarray):
        self.length = np.array([len(one) for one in lists], np.int64)
        self.values = values
        self.first = np.cumsum(self.length) - self.length

    def places(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the values of the chosen lists as (which of these, number in its list, place in `values`), flat."""
        length = self.length[chosen]
        owner = np.repeat(np.arange(len(chosen)), length)
        return owner, ranges(np.zeros_like(length), length), ranges(self.first[chosen], length)
