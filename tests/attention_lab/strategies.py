"""What the laboratory's property tests draw: heads of any small size, orthonormal keys, independent inputs."""

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# The same examples in every run and nothing kept between runs; a busy machine's time is no failure.
lab = settings(deadline=None, derandomize=True, database=None, max_examples=80)

seeds = st.integers(0, 2**32 - 1)


def vectors(count, width, size):
    """Vectors (count, width) with entries up to `size`: ties, zeros and repetitions come up often."""
    whole = st.integers(-int(size), int(size)).map(float)
    return arrays(float, (count, width), elements=st.floats(-size, size, width=32, allow_subnormal=False) | whole)


@st.composite
def any_head(draw, size=40.0):
    """Keys (n, d), query (d,), values (n, e) and one of the n."""
    count, width, out = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    keys, query = draw(vectors(count, width, size)), draw(vectors(1, width, size))[0]
    return keys, query, draw(vectors(count, out, size)), draw(st.integers(0, count - 1))


@st.composite
def orthonormal(draw, least=2):
    """Orthonormal vectors (n, d), d ≥ n ≥ `least`, in any directions."""
    count = draw(st.integers(least, 7))
    rng = np.random.default_rng(draw(seeds))
    return np.linalg.qr(rng.standard_normal((count + draw(st.integers(0, 2)), count)))[0].T


@st.composite
def independent(draw):
    """Linearly independent vectors (n, d) that are not too near to being dependent."""
    count = draw(st.integers(1, 6))
    found = draw(vectors(count, count + draw(st.integers(0, 3)), 9.0))
    sizes = np.linalg.svd(found, compute_uv=False)
    assume(sizes[-1] > 1e-4 * max(1.0, sizes[0]))
    return found


def below(error, bound, scale, rounding=1e-9):
    """Tell whether an error is within a bound, but for rounding in numbers of the size `scale`."""
    return bool(np.all(error <= bound * (1 + rounding) + rounding * scale + 1e-300))
