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


def equal_mass_numbers(scores: np.ndarray, weights: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return the number of each score's bin, (N,), of bins with about equal weights.

    Equal scores are in one bin, that in which the middle of their weight falls, so the bins depend on no order. Of
    1, 2, 2, 2, 7 with weight 1 each the middles are at 0.1, 0.5 and 0.9 of the weight: bins 0, 5 and 9 of 10.

    Args:
        scores, weights: (N,).
    """
    values, group = np.unique(scores, return_inverse=True)
    mass = np.bincount(group, weights=weights, minlength=len(values))
    middle = (mass.cumsum() - mass / 2) / mass.sum()
    # Rounded: where a middle falls between two bins, it depends on no order of the additions either.
    number = np.floor(np.round(middle * bins, 9)).astype(int).clip(0, bins - 1)
    return number[group]


def equal_mass_bins(
    scores: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean score, the accuracy and the share of the weight of each bin, (B,), at about equal weights.

    The arguments are (N,); the bins are those of `equal_mass_numbers`, some of which are empty where many scores are
    equal. Bins of equal width would be nearly empty where scores are rare, and the accuracy of one or two answers is
    noise.
    """
    number = equal_mass_numbers(scores, weights, bins)
    mass = np.bincount(number, weights=weights, minlength=bins)
    filled = np.maximum(mass, 1e-300)
    means = np.bincount(number, weights=weights * scores, minlength=bins) / filled
    shares = np.bincount(number, weights=weights * right, minlength=bins) / filled
    return means, shares, mass / weights.sum()


def balanced_weights(flags: np.ndarray) -> np.ndarray:
    """Return weights under which true and false flags, (N,), weigh the same together."""
    return np.where(flags, 0.5 / max(1, flags.sum()), 0.5 / max(1, (~flags).sum()))


def expected_calibration_error(
    scores: Sequence[float], right: Sequence[bool], weights: np.ndarray | None = None, draws: int = 500
) -> tuple[float, float, float]:
    """Return the mean distance of confidence from accuracy over bins of equal mass, and the ends of its 95 % interval.

    Guo et al. 2017, section 2, with bins that hold equally many answers (Nixon et al. 2019, arXiv 1904.01685, section
    4.3). The interval is that of `error_interval`; a seed makes it the same each time, in any order of the answers.

    Args:
        weights: of the answers, (N,); equal ones when None.
        draws: samples with replacement that show how the gaps of the bins vary (Efron 1979).
    """
    columns = [np.asarray(scores, dtype=float), np.asarray(right, dtype=float)]
    columns.append(np.ones(len(columns[0])) if weights is None else weights)
    order = np.lexsort(columns[::-1])
    chances, came_true, weight = (column[order] for column in columns)
    number = equal_mass_numbers(chances, weight)
    excess = weight * (chances - came_true)
    rng = np.random.default_rng(0)

    def bin_gaps(rows: np.ndarray) -> np.ndarray:
        # Summed, not averaged, over a bin: the gap of the means times the bin's share of the weight.
        return np.bincount(number[rows], weights=excess[rows], minlength=number.max() + 1) / weight[rows].sum()

    count = len(chances)
    gaps = bin_gaps(np.arange(count))
    samples = np.stack([bin_gaps(rng.integers(0, count, count)) for _ in range(draws)])
    mass = np.bincount(number, weights=weight) / weight.sum()
    return float(np.abs(gaps).sum()), *error_interval(gaps, mass, samples - gaps)


def error_interval(gaps: np.ndarray, mass: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a calibration error, the sum of the sizes of the bins' gaps.

    Noise in a gap adds to its size, whatever its sign, so the estimate is too high on average, and a bootstrap sample
    of it has that bias twice: its percentiles may lie above the true error and above the estimate. Instead the
    interval has each error at which the estimate is between the 2.5th and the 97.5th percentile of error plus noise
    (a test inverted, Neyman 1937). What the estimate does not say is how an error is shared out among the bins: both
    the gaps that were found, scaled, and gaps of one size are tried. The upper end is at least the error that noise
    alone shows, as in Feldman and Cousins 1998 (section IV B). The estimate is always inside.

    Args:
        gaps: confidence less accuracy, times the bin's mass, (B,).
        mass: the shares of the weight, (B,).
        noise: of the gaps, a row for each sample, (S, B).
    """
    error = np.abs(gaps).sum()
    scales = np.linspace(0.0, 3.0, 121)
    smallest = 1.0
    largest = 1.0
    for shape in (gaps, np.where(gaps < 0, -mass, mass) * error):
        found = np.abs(scales[:, None, None] * shape + noise).sum(-1)  # (scales, S)
        low, high = np.quantile(found, (0.025, 0.975), axis=-1)
        smallest = scales[high >= error - 1e-12].min(initial=smallest)
        largest = scales[low <= error + 1e-12].max(initial=largest)
    by_noise = float(np.quantile(np.abs(noise).sum(-1), 0.975))
    return float(smallest * error), min(1.0, max(float(largest * error), by_noise))


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
