"""Limits that a benchmark's results have to keep, and the exit status that says whether they do."""

from collections.abc import Sequence
from dataclasses import dataclass

from configuration.errors import show


@dataclass(frozen=True)
class Bar:
    """A limit that a result has to keep.

    Attributes:
        what: what was measured.
        found: the result; None where it could not be measured, which does not hold.
        sign: "<=" or ">=".
        limit: what `found` is compared with.
    """

    what: str
    found: float | None
    sign: str
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the result keeps the limit."""
        if self.found is None:
            return False
        return self.found <= self.limit if self.sign == "<=" else self.found >= self.limit

    def __str__(self) -> str:
        found = "failed" if self.found is None else f"{self.found:.2f}"
        return f"{'holds ' if self.holds else 'MISSED'} {self.what}: {found} {self.sign} {self.limit:g}"


def print_bars(bars: Sequence[Bar]) -> int:
    """Print every bar; return the exit status, 1 where one is missed."""
    for bar in bars:
        show(str(bar))
    return int(not all(bar.holds for bar in bars))
