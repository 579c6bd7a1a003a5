"""Shares of right answers with their intervals: of all questions, by how popular their people are, by any range."""

import math
from collections.abc import Sequence

import numpy as np

from evaluation.trust_metrics import equal_mass_numbers

BINS = 5
Z = 1.959964  # of 95 %


def wilson_interval(correct: int, total: int) -> list[float] | None:
    """Return the 95 % interval of a share (Wilson 1927); None where there are no questions.

    Unlike p ± 1.96 √(p (1 - p) / n) it has a width where none or all are right: 0 of 20 is 0 to 16 %.
    """
    if not total:
        return None
    share = correct / total
    scale = 1 + Z**2 / total
    middle = (share + Z**2 / (2 * total)) / scale
    reach = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2)) / scale
    return [max(0.0, middle - reach), min(1.0, middle + reach)]


def count_right(right: Sequence[bool]) -> dict:
    """Return `{"total", "correct", "accuracy", "interval"}`; the last two are None where there are no questions."""
    total = len(right)
    correct = sum(right)
    accuracy = correct / total if total else None
    return {"total": total, "correct": correct, "accuracy": accuracy, "interval": wilson_interval(correct, total)}


def popularity_bins(popularity: Sequence[int | None], bins: int = BINS) -> list[list[int]]:
    """Return the positions of the questions in each bin, from the least popular people to the most popular.

    The bins have about equally many questions. Those of equal popularity are in one bin, that in which the middle of
    them falls: [0] * 7 + [7] are two bins. Questions without a popularity are in none.
    """
    known = [index for index, value in enumerate(popularity) if value is not None]
    if not known:
        return []
    values = np.array([popularity[index] for index in known])
    numbers = equal_mass_numbers(values, np.ones(len(values)), bins)
    return [[known[place] for place in np.flatnonzero(numbers == number)] for number in sorted(set(numbers.tolist()))]


def popularity_rows(popularity: Sequence[int | None], right: Sequence[bool]) -> list[dict]:
    """Return a row for each bin: `{"min", "max"}` of the popularities in it, and what `count_right` returns."""
    rows = []
    for chosen in popularity_bins(popularity):
        values = [popularity[index] for index in chosen]
        rows.append({"min": min(values), "max": max(values), **count_right([right[index] for index in chosen])})
    return rows


def contains_answer(text: str, accepted: Sequence[str]) -> bool:
    """Return whether an answer has an accepted one in it, as PopQA counts (Mallen et al. 2023, section 4.1).

    "Rome, Italy" has "Rome" in it. The accepted answer may begin in upper or lower case, or be all in lower case.
    """
    return any(form in text for answer in accepted if answer for form in (answer, answer.lower(), answer.capitalize()))
