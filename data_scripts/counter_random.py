"""Counter-based random numbers: number k of an example in an epoch, for whole arrays of examples at once.

The generator is SplitMix64 (Steele, Lea and Flood 2014, figure 17), used as Salmon et al. (2011) propose: its k-th
output is a hash of its key plus k times a constant, so any number is computed without those before it. NumPy's own
generators are seeded one example at a time, which takes longer than corrupting the example.
"""

import numpy as np

# 2^64 over the golden ratio, made odd: its multiples visit every 64-bit state and lie far apart.
GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(state: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output for each state; uint64 in and out, wrapping around."""
    # Shifts, xors and odd factors are invertible, so no two states share an output.
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def output(key: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return output `number` (from 0) of the generator with each key; shapes broadcast."""
    return mix(key + GAMMA * (np.atleast_1d(number).astype(np.uint64) + np.uint64(1)))


def derive_keys(seed: int, epochs: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Return the keys (N,) of the generators of examples (N,) in epochs (N,)."""
    # seed → key of the run; its output `epoch` → key of the epoch; its output `example` → key of the example.
    return output(output(mix(np.array([seed % 2**64], np.uint64)), epochs), examples)


def uniform(keys: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return number `number` of each generator, uniform in [0, 1)."""
    # The upper 53 bits, as many as a float64 has digits: every result is exact, and 1 is never reached.
    return (output(keys, number) >> np.uint64(11)) * 2.0**-53


def integers(limit: np.ndarray | int, keys: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return number `number` of each generator as an integer in [0, limit)."""
    return (uniform(keys, number) * limit).astype(np.int64)
