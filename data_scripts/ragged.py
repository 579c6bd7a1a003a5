"""Lists of different lengths in one array."""

import numpy as np


def ranges(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return `first[0], first[0] + 1, …`, `length[0]` numbers, then those of the next range, and so on."""
    # first = [7, 2], length = [3, 2]: range i begins at output [0, 3], so subtracting that from `first` gives [7, -1];
    # repeated, [7, 7, 7, -1, -1], plus the output positions [0, 1, 2, 3, 4], makes [7, 8, 9, 2, 3].
    end = np.cumsum(length)
    return np.repeat(first - (end - length), length) + np.arange(end[-1] if len(end) else 0)


class Ragged:
    """Lists of different lengths in one array: list i is `values[first[i] : first[i] + length[i]]`.

    [[a, b], [], [c]] has the lengths [2, 0, 1], the firsts [0, 2, 2] and the values [a, b, c]. Lists may share values.
    """

    def __init__(self, first: np.ndarray, length: np.ndarray, values: np.ndarray):
        self.first = first
        self.length = length
        self.values = values

    @classmethod
    def one_after_the_other(cls, length: np.ndarray, values: np.ndarray) -> "Ragged":
        """Return lists of these lengths that fill `values` in their order."""
        return cls(np.cumsum(length) - length, length, values)

    def places(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the values of the chosen lists as (which of these, number in its list, place in `values`), flat.

        Of the lists above, those chosen by [2, 0] give ([0, 1, 1], [0, 0, 1], [2, 0, 1]).
        """
        length = self.length[chosen]
        owner = np.repeat(np.arange(len(chosen)), length)
        return owner, ranges(np.zeros_like(length), length), ranges(self.first[chosen], length)
