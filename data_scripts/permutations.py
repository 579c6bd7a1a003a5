"""The order of examples in an epoch: a table where they are few, a keyed bijection where they are many.

The bijection is a balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle-walking
(Black and Rogaway 2002, section 4): a result that is no example is permuted again. Any place is computed alone, so an
epoch of a billion examples needs no memory.
"""

from functools import lru_cache

import numpy as np

from data_scripts.counter_random import derive_keys, output

TABLE_SIZE = 2**20  # of the largest table: 8 MB
ROUNDS = 6  # four are enough against any statistic, with a random round function


def permute(places: np.ndarray, size: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return which examples are at these places of an epoch's order.

    Args:
        places: in [0, size); (N,).
        size: number of examples.
        seed, stream, epoch: name the order.
    """
    if size <= TABLE_SIZE:
        return permutation(size, seed, stream, epoch)[places]
    return keyed_permutation(places, size, seed, stream, epoch)


@lru_cache(maxsize=8)  # a pool needs one or two epochs of each stream
def permutation(size: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return the order of `size` examples in one epoch of one stream."""
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


def keyed_permutation(places: np.ndarray, size: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return as `permute`, without a table.

    With 11 examples a number has two halves of 2 bits, 16 values. Place 6 is the halves (1, 2). A round turns (a, b)
    into (b, a xor F(b)), which (b, c) gives back as (c xor F(b), b) whatever F is: so all rounds together are a
    bijection of the 16 values. Say they turn 6 into 13, which is no example, and 13 into 4: then example 4 is at place
    6, and at no other: going back from 4 leads to 13 and to 6, the first of them that is a place.
    """
    half = np.uint64(max(1, (size - 1).bit_length() + 1 >> 1))  # bits
    mask = (np.uint64(1) << half) - np.uint64(1)
    key = derive_keys(seed, np.array([stream]), np.array([epoch]))
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        left = found[outside] >> half
        right = found[outside] & mask
        for number in range(ROUNDS):
            # The upper bits of a number that the round and the half name together.
            hashed = output(output(key, number), right) >> (np.uint64(64) - half)
            left, right = right, left ^ hashed
        found[outside] = left << half | right
        # At most three of four values are outside, so few are permuted often.
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)
