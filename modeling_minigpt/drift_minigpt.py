"""Detect drift: log the scores of the questions asked, and compare them with those of the calibration set.

A calibration is valid only for people like those it was fitted on. `minigpt ask --log FILE` appends a line for each
question, without the name and the answer:

    {"relation": "birthplace", "known": 0.97, "correct": 0.82, "answered": true}
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .confidence_minigpt import Confidence

MIN_LOGGED = 30  # questions; fewer are not compared
ALARM = 0.01  # p-value below which drift is reported
SAME = 1e-9  # difference up to which two scores are equal: they are computed in batches, which round differently


def log_line(result: dict) -> str:
    """Return what is logged of a pipeline's result, one line of JSON."""
    values = {name: result[name] for name in ("relation", "known", "correct")}
    return json.dumps({**values, "answered": not result["abstained"]})


def read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the logged pairs (known, correct) by relation; empty lines and questions without scores are left out.

    Raises:
        ValueError: a line is not in the format of `log_line`; the message has its number.
        OSError: the file cannot be read.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: wanted text in UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            relation, *pair = (values[name] for name in ("relation", "known", "correct"))
            if None in pair:
                continue
            if not isinstance(relation, str) or not all(type(one) is float and 0.0 <= one <= 1.0 for one in pair):
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            wanted = "wanted a relation and known and correct in [0, 1], as minigpt ask --log writes"
            raise ValueError(f"{path}:{number}: {wanted}, found {line!r:.80}") from error
        found.setdefault(relation, []).append((pair[0], pair[1]))
    return found


def ks_p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the p-value of the two-sample Kolmogorov–Smirnov test.

    It uses the asymptotic distribution (Numerical Recipes, 3rd edition, section 14.3.3), which is accurate from about
    ten values per sample. Values that differ by no more than `SAME` are equal.
    """
    first = torch.tensor(one, dtype=torch.float64).sort().values
    second = torch.tensor(other, dtype=torch.float64).sort().values
    every = torch.cat([first, second]).sort().values
    # The samples are compared above each group of equal values, not inside it.
    every = every[torch.cat([every.diff() > SAME, torch.ones(1, dtype=torch.bool)])]
    shares = [torch.searchsorted(part, every, right=True).float() / len(part) for part in (first, second)]
    distance = (shares[0] - shares[1]).abs().max().item()
    size = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (size + 0.12 + 0.11 / size) * distance
    if scaled < 0.3:  # the series converges too slowly, and its sum is 1 to 5 digits
        return 1.0
    terms = (2.0 * (-1) ** (k - 1) * math.exp(-2.0 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def describe_drift(confidence: Confidence, logged: Iterable[tuple[float, float]]) -> str:
    """Compare the scores of questions that were asked with those of the calibration, in one line.

    People whose `known` is below its threshold (0.5 if none is certified) look like strangers and are only counted.
    For the others, `correct` is compared with that of the calibration people above the same threshold.
    """
    pairs = list(logged)
    if confidence.known is None:
        return "cannot be said: the calibration has one score for both questions"
    if len(pairs) < MIN_LOGGED:
        return f"cannot be said of {len(pairs)} questions, wanted {MIN_LOGGED}"
    certificate = confidence.certificate
    lowest = 0.5 if certificate is None else certificate.known_threshold
    calibrated = [(known, correct) for known, correct, _ in confidence.certification.known]
    asked_sure, own_sure = ([correct for known, correct in part if known >= lowest] for part in (pairs, calibrated))
    strange = 1.0 - len(asked_sure) / len(pairs)
    own_strange = 1.0 - len(own_sure) / max(1, len(calibrated))
    text = (
        f"{strange:.0%} of {len(pairs)} questions asked look like strangers ({own_strange:.0%} of the calibration's "
        "people do)"
    )
    if min(len(asked_sure), len(own_sure)) < MIN_LOGGED:
        return f"{text}; the other {len(asked_sure)} are too few to compare"
    chance = ks_p_value(asked_sure, own_sure)
    if chance < ALARM:
        return f"{text}; the others are not like those of the calibration (p = {chance:.1g}): calibrate again"
    return f"{text}; the others are like those of the calibration (p = {chance:.2f})"
