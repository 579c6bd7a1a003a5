"""The metrics of confidence: discrimination (AUROC, risk and coverage) and calibration (ECE, Brier).

`scores` are confidences, higher when surer; `right` says which of the same answers are right. Answers with equal
scores have no order, so wherever an order matters their errors are spread evenly over them.

sklearn and torchmetrics take more than a second to load, so they are imported where they are called: a pretraining
that scores nothing does not wait for them.
"""

from collections.abc import Sequence

import numpy as np
import torch


def auroc(high: Sequence[float], low: Sequence[float]) -> float | None:
    """Return the chance that a score of `high` exceeds one of `low`, ties counting half; None where either is empty.

    Scores lie in [0, 1].
    """
    from torchmetrics.functional.classification import binary_auroc

    if not len(high) or not len(low):
        return None
    scores = torch.tensor([*high, *low], dtype=torch.float64)
    return binary_auroc(scores, torch.tensor([1] * len(high) + [0] * len(low))).item()


def equal_mass_bins(
    scores: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean score, the accuracy and the share of the weight of each bin, (…, B), at about equal weights.

    The arguments are (…, N): answers on the last axis, samples on those before it, if any. Bins of equal width would
    be nearly empty where scores are rare, and the accuracy of one or two answers is noise.
    """
    order = np.argsort(scores, axis=-1, kind="stable")
    scores, right, weights = (np.take_along_axis(part, order, -1) for part in (scores, right, weights))
    total = weights.sum(-1, keepdims=True)
    # The bin of an answer is where the middle of its weight falls.
    number = ((weights.cumsum(-1) - weights / 2) / total * bins).astype(int).clip(0, bins - 1)
    within = number[..., None, :] == np.arange(bins)[:, None]  # (…, B, N)
    mass = (within * weights[..., None, :]).sum(-1)
    filled = np.maximum(mass, 1e-300)
    means = (within * (weights * scores)[..., None, :]).sum(-1) / filled
    shares = (within * (weights * right)[..., None, :]).sum(-1) / filled
    return means, shares, mass / total


def balanced_weights(flags: np.ndarray) -> np.ndarray:
    """Return weights under which true and false flags, (N,), weigh the same together."""
    return np.where(flags, 0.5 / max(1, flags.sum()), 0.5 / max(1, (~flags).sum()))


def expected_calibration_error(
    scores: Sequence[float], right: Sequence[bool], weights: np.ndarray | None = None, draws: int = 500
) -> tuple[float, float, float]:
    """Return the mean distance of confidence from accuracy over bins of equal mass, and its 95 % interval.

    Guo et al. 2017, section 2, with bins that hold equally many answers (Nixon et al. 2019, arXiv 1904.01685, section
    4.3). The interval is of `draws` samples with replacement (Efron 1979); a seed makes it the same each time.

    Args:
        weights: of the answers, (N,); equal ones when None.
    """
    columns = [np.asarray(scores, dtype=float), np.asarray(right, dtype=float)]
    columns.append(np.ones(len(columns[0])) if weights is None else weights)
    rng = np.random.default_rng(0)

    def error(*parts: np.ndarray) -> np.ndarray:
        means, shares, mass = equal_mass_bins(*parts)
        return (np.abs(means - shares) * mass).sum(-1)

    found = []
    for first in range(0, draws, 50):  # some at a time: each is a table of bins by answers
        rows = rng.integers(0, len(columns[0]), (min(50, draws - first), len(columns[0])))
        found.append(error(*(column[rows] for column in columns)))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(error(*columns)), float(low), float(high)


def brier_score(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return the mean squared distance of the probabilities from what came true (Brier 1950)."""
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(np.asarray(right, dtype=bool), np.asarray(scores, dtype=float), pos_label=True))


def errors_by_coverage(scores: Sequence[float], right: Sequence[bool]) -> np.ndarray:
    """Return the expected number of errors among the k surest answers, for k = 1 … n."""
    values, group = np.unique(-np.asarray(scores, dtype=float), return_inverse=True)  # the surest first
    wrong = 1.0 - np.asarray(right, dtype=float)
    rates = np.bincount(group, weights=wrong, minlength=len(values)) / np.bincount(group, minlength=len(values))
    return np.cumsum(rates[np.sort(group)])


def risk_coverage(scores: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return coverages k / n and the risks there, the shares of errors among the k surest answers, (n,) each.

    Geifman and El-Yaniv 2017 (arXiv 1705.08500), section 2.
    """
    answered = np.arange(1, len(scores) + 1)
    return answered / len(scores), errors_by_coverage(scores, right) / answered


def area(values: np.ndarray) -> float:
    """Return the mean height of a curve over evenly spaced points, by the trapezoid rule."""
    return float((values[1:] + values[:-1]).mean() / 2) if len(values) > 1 else float(values[0])


def aurc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return the mean risk over the coverages 1 / n … 1; 0 is best."""
    return area(risk_coverage(scores, right)[1])


def augrc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return the mean, over those coverages, of the chance that an answer is given and wrong; 0 is best.

    Traub et al. 2024 (arXiv 2407.01032), section 3: unlike AURC it does not count the surest answers' errors most.
    """
    return area(errors_by_coverage(scores, right) / len(scores))


def coverage_at_precision(scores: Sequence[float], right: Sequence[bool], precision: float) -> float:
    """Return the largest share of answers above some threshold of which at least `precision` are right; 0 if none."""
    coverage, risk = risk_coverage(scores, right)
    ordered = np.sort(np.asarray(scores, dtype=float))[::-1]
    separable = np.append(ordered[:-1] > ordered[1:], True)  # a threshold can cut here
    reached = coverage[separable & (risk <= 1.0 - precision + 1e-12)]
    return float(reached.max(initial=0.0))
