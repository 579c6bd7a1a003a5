"""Random numbers that are named, not drawn: number k of an example in an epoch, for whole arrays of them at once.

A counter-based generator (Salmon et al. 2011): SplitMix64 (Steele, Lea and Flood 2014, figure 17), whose k-th output
is a hash of its seed plus k times a constant. NumPy's own generators start for one example at a time, which takes
longer than corrupting it.
"""

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(state: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output for each state; uint64 in and out, wrapping around."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def output(state: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return output `number` (from 0) of the generators that start from each state; shapes broadcast."""
    return mix(state + GAMMA * (np.atleast_1d(number).astype(np.uint64) + np.uint64(1)))


def generators(seed: int, epochs: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Return the states (N,) of the generators of examples (N,) in epochs (N,)."""
    return output(output(mix(np.array([seed % 2**64], np.uint64)), epochs), examples)


def uniform(states: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return number `number` of each generator, uniform in [0, 1)."""
    return (output(states, number) >> np.uint64(11)) * 2.0**-53


def below(limit: np.ndarray | int, states: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return number `number` of each generator as an integer in [0, limit)."""
    return (uniform(states, number) * limit).astype(np.int64)
