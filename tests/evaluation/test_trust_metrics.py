"""Metrics of confidence against slow definitions, at their ends, and with ties."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.trust import reliability_bins
from evaluation.trust_metrics import (
    augrc,
    aurc,
    auroc,
    balanced_weights,
    brier_score,
    coverage_at_precision,
    equal_mass_bins,
    expected_calibration_error,
    risk_coverage,
)

POINTS = np.linspace(1, 12, 1101)  # where a curve over 12 answers is read to take its mean
PERFECT = ([0.9, 0.8, 0.7, 0.2, 0.1], [True, True, True, False, False])


def draw(seed, ties=False, count=12):
    """Draw scores and rightness that have something to do with each other."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    scores = np.round(scores, 1) if ties else scores
    return scores.tolist(), (rng.random(count) < scores).tolist()


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_the_share_of_pairs_in_order(seed, ties):
    scores, right = draw(seed, ties)
    high, low = ([s for s, r in zip(scores, right, strict=True) if r == kind] for kind in (True, False))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(high, low)]
    assert auroc(high, low) == pytest.approx(np.mean(pairs))


def test_auroc_of_nobody_is_unknown():
    assert auroc([], [0.5]) is None
    assert auroc([0.5], []) is None


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_means_over_random_orders_of_ties(seed):
    scores, right = draw(seed, ties=True)
    rng, risks, joint = np.random.default_rng(0), [], []
    for _ in range(4000):
        order = sorted(range(12), key=lambda index: (-scores[index], rng.random()))
        errors = np.cumsum([not right[index] for index in order])
        risks.append(np.interp(POINTS, np.arange(1, 13), errors / np.arange(1, 13)).mean())
        joint.append(np.interp(POINTS, np.arange(1, 13), errors / 12).mean())
    assert aurc(scores, right) == pytest.approx(np.mean(risks), abs=5e-3)
    assert augrc(scores, right) == pytest.approx(np.mean(joint), abs=5e-3)


@pytest.fixture(scope="module")
def torch_uncertainty():
    """Return torch-uncertainty's own file of these metrics; the package itself would ask for lightning and timm."""
    package = importlib.util.find_spec("torch_uncertainty")
    if package is None:
        pytest.skip("torch-uncertainty is not installed; it has no release for this Python")
    path = Path(package.origin).parent / "metrics" / "classification" / "risk_coverage.py"
    spec = importlib.util.spec_from_file_location("risk_coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
def test_areas_and_coverages_are_torch_uncertainty_s(torch_uncertainty, seed):
    scores, right = draw(seed, count=150)
    confidence = [0.5 + score / 2 for score in scores]  # of the likelier of two classes
    ours = {
        torch_uncertainty.AURC(): aurc(confidence, right),
        torch_uncertainty.AUGRC(): augrc(confidence, right),
        torch_uncertainty.CovAtxRisk(0.1): coverage_at_precision(confidence, right, 0.9),
        torch_uncertainty.CovAtxRisk(0.2): coverage_at_precision(confidence, right, 0.8),
    }
    for metric, value in ours.items():
        metric.update(torch.tensor(confidence), torch.tensor(right).long())
        theirs = metric.compute().nan_to_num(0.0).item()  # theirs is NaN where no coverage will do
        assert value == pytest.approx(theirs, abs=1e-6), type(metric).__name__


def test_a_perfect_order_errs_only_where_it_must():
    coverage, risk = risk_coverage(*PERFECT)
    assert coverage.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert risk == pytest.approx([0, 0, 0, 0.25, 0.4])
    assert aurc(*PERFECT) == pytest.approx((0.125 + 0.325) / 4)
    assert augrc(*PERFECT) == pytest.approx((0.1 + 0.3) / 4)
    scores, right = PERFECT
    assert aurc(scores[::-1], right) > aurc(scores, right)
    assert augrc(scores[::-1], right) > augrc(scores, right)


def test_coverage_at_a_precision_takes_all_of_equal_scores_or_none():
    assert coverage_at_precision(*PERFECT, 0.9) == 0.6
    assert coverage_at_precision(*PERFECT, 0.75) == 0.8
    assert coverage_at_precision(*PERFECT, 0.5) == 1.0
    assert coverage_at_precision([0.5] * 4, [True, True, True, False], 0.9) == 0.0
    assert coverage_at_precision([0.9, 0.8], [False, False], 0.9) == 0.0


def test_true_probabilities_are_calibrated_and_boasts_are_not():
    rng = np.random.default_rng(0)
    scores = rng.random(5_000)
    right = rng.random(5_000) < scores
    error, low, high = expected_calibration_error(scores, right, draws=100)
    assert low == 0.0 < error < 0.03
    assert high < 0.04
    assert brier_score(scores, right) == pytest.approx(1 / 6, abs=0.01)
    boast = expected_calibration_error([1.0] * 4, [True, False, False, False])
    assert boast[0] == pytest.approx(0.75)
    assert boast[1] < 0.75 < boast[2]
    assert brier_score([1.0] * 4, [True, False, False, False]) == pytest.approx(0.75)


def test_the_interval_covers_the_error_of_as_many_answers():
    """Scores too high by 0.2: the interval has that, whatever the draw."""
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.4, 1.0, 400)
    right = rng.random(400) < scores - 0.2
    error, low, high = expected_calibration_error(scores, right)
    assert low < 0.2 < high
    assert high - low < 0.15
    assert expected_calibration_error(scores, right) == (error, low, high)


@pytest.mark.parametrize("true_error", [0.0, 0.03])
@pytest.mark.parametrize("kind", ["spread", "constant"])
def test_the_interval_has_the_true_error_in_most_samples_and_its_own_estimate_in_all(kind, true_error):
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = rng.beta(8, 2, 500) * 0.9 if kind == "spread" else np.full(500, 0.92)
        right = rng.random(500) < scores + true_error
        error, low, high = expected_calibration_error(scores, right, draws=200)
        assert low <= error <= high
        assert high < 0.15
        covered += low <= true_error <= high
    assert covered >= 54


@pytest.mark.parametrize("right", [[True] * 4, [True, False] * 2, [False]], ids=["right", "even", "one"])
def test_a_few_answers_that_look_calibrated_do_not_show_that_they_are(right):
    error, low, high = expected_calibration_error([np.mean(right)] * len(right), right)
    assert error == low == 0.0
    assert high == (0.5 if len(set(right)) > 1 else 0.0)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_calibration_does_not_depend_on_the_order_of_the_answers(decimals):
    rng = np.random.default_rng(2)
    scores = rng.random(338).round(decimals)
    right = rng.random(338) < scores
    weights = balanced_weights(right)
    found = expected_calibration_error(scores, right, weights)
    diagram = reliability_bins(scores, right.astype(float), weights)
    for _ in range(5):
        order = rng.permutation(338)
        assert expected_calibration_error(scores[order], right[order], weights[order]) == found
        shuffled = reliability_bins(scores[order], right[order].astype(float), weights[order])
        assert shuffled["questions"] == diagram["questions"]
        assert shuffled["true"] == pytest.approx(diagram["true"])


def test_equal_scores_are_in_one_bin():
    scores = np.repeat([0.2, 0.9, 0.95], [1, 8, 1])
    means, shares, mass = equal_mass_bins(scores, np.arange(10) % 2, np.ones(10), bins=5)
    assert mass == pytest.approx([0.1, 0.0, 0.8, 0.0, 0.1])
    assert means == pytest.approx([0.2, 0.0, 0.9, 0.0, 0.95])
    assert shares == pytest.approx([0.0, 0.0, 0.5, 0.0, 1.0])
    assert expected_calibration_error([0.96] * 25, np.arange(25) > 0)[0] == pytest.approx(0.0)


def test_bins_have_equal_mass_wherever_the_scores_are():
    scores = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.9])
    right = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    means, shares, mass = equal_mass_bins(scores, right, np.ones(6), bins=3)
    assert mass == pytest.approx([1 / 3] * 3)
    assert means == pytest.approx([0.015, 0.035, 0.475])
    assert shares == pytest.approx([0.0, 0.5, 1.0])
    heavy = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 5.0])
    _, _, mass = equal_mass_bins(scores, right, heavy, bins=2)
    assert mass == pytest.approx([0.5, 0.5])


def test_balanced_weights_make_both_sides_equal():
    weights = balanced_weights(np.array([True, False, False, False]))
    assert weights == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6])


def test_a_model_that_is_always_right_or_always_wrong_can_be_scored():
    assert brier_score([0.9, 0.7], [True, True]) == pytest.approx(0.05)
    assert brier_score([0.9, 0.7], [False, False]) == pytest.approx(0.65)
    means, shares, _ = equal_mass_bins(np.array([0.9, 0.8]), np.zeros(2), np.ones(2), bins=1)
    assert (means, shares) == (pytest.approx([0.85]), pytest.approx([0.0]))
