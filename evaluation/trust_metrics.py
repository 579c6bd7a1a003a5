"""The metrics of confidence: does it separate right answers from wrong ones, known people from strangers, is it true?

`scores` are confidences, higher when surer; `right` says which of the same answers are right. Answers with one score
have no order among themselves, so wherever an order matters their errors are spread evenly over them.

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


def expected_calibration_error(scores: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy over bins of [0, 1] (Guo et al. 2017, section 2)."""
    from torchmetrics.functional.classification import binary_calibration_error

    target = torch.tensor(right, dtype=torch.int64)
    return binary_calibration_error(torch.tensor(scores, dtype=torch.float64), target, n_bins=bins, norm="l1").item()


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


def reliability(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return mean confidences and accuracies of the bins of [0, 1] that have any answers, (B,) each."""
    from sklearn.calibration import calibration_curve

    accuracies, confidences = calibration_curve(np.asarray(right, dtype=bool), scores, pos_label=True, n_bins=bins)
    return confidences, accuracies
