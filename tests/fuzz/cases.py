"""What the fuzz tests share: numbers of cases, an end to what hangs, what a refusal looks like, mutated JSON."""

import copy
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st

SECONDS = 60  # in which any one case must end, on a busy machine too
NAMES_OUTSIDE = ["../evil", "../../etc/passwd", "/etc/passwd", "a/../../evil", "..", "evil\0", "e" * 300, "~/evil"]


def cases(number: int) -> settings:
    """Return a decorator: so many cases of a test, and ten times as many in the thorough profile."""
    return settings(max_examples=number * (10 if settings.get_current_profile_name() == "thorough" else 1))


class Hang(BaseException):
    """A case that did not end; no `except Exception` of the product may take it for an error."""


@contextmanager
def quickly(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hang where the block takes longer than it may."""

    def ring(number, frame):
        raise Hang(f"not done in {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assert_one_line(error: Exception, naming: str = "") -> str:
    """Return an error's message, which must be one line that can be printed anywhere, no essay, and name something."""
    message = str(error)
    assert message
    assert naming in message
    assert message.isprintable()
    assert len(message) < 3000
    message.encode("utf-8")
    return message


numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 10**9, 10**12, 10**20, 10**400, -(10**12), 2**31, 2**63, 2**64]),
    st.sampled_from([0.0, -0.0, 1.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]),
    st.integers(-300, 300),
)
texts = st.one_of(
    st.sampled_from(
        ["", " ", "null", "nan", ".inf", "1e999", "yes", "⁇", "□", "\0", "a\nb", "\u2028", "\ud800", "x" * 5000]
    ),
    st.sampled_from(NAMES_OUTSIDE),
    st.text(max_size=12),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def paths_of(value: object, path: tuple = ()) -> list[tuple]:
    """Return the path of every part of a JSON value, but for its whole; of long lists only the first parts."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:5]) if isinstance(value, list) else ()
    return [found for key, part in list(items)[:60] for found in ((*path, key), *paths_of(part, (*path, key)))]


def replaced(value: object, path: tuple, new: object) -> object:
    """Return a JSON value in which the part at a path is another."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def write_json(path, value: object) -> None:
    """Write JSON with all that Python's reader takes, NaN, lone surrogates and large numbers among it."""
    path.write_text(json.dumps(value), encoding="utf-8")
