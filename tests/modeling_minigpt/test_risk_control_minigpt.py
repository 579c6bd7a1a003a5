"""Thresholds keep their promises, or are refused; the bounds are scipy's."""

import random

import pytest
from scipy.stats import binomtest

from modeling_minigpt.risk_control_minigpt import (
    CalibrationScores,
    CertificationError,
    clopper_pearson_upper,
    threshold_for,
)


def draw(people, seed, strangers=()):
    """Draw two halves: scores, most of them high, and rightness. A score is the chance to be right."""
    rng = random.Random(seed)
    scores = [rng.random() ** 0.05 if rng.random() < 0.7 else 0.8 * rng.random() for _ in range(people)]
    return halve([(score, rng.random() < score) for score in scores], strangers)


def halve(known, strangers=()):
    """Deal people out to the selection and the certification half in turn."""
    return [CalibrationScores(known[half::2], strangers[half::2]) for half in (0, 1)]


@pytest.mark.parametrize(("failures", "trials"), [(0, 1), (0, 29), (1, 40), (7, 60), (59, 60), (38, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_bound_is_clopper_and_pearson_s(failures, trials, confidence):
    interval = binomtest(failures, trials, alternative="less").proportion_ci(confidence, method="exact")
    assert clopper_pearson_upper(failures, trials, confidence) == pytest.approx(interval.high, abs=1e-9)


@pytest.mark.parametrize("trials", [0, 1, 5])
def test_where_all_failed_nothing_is_excluded(trials):
    assert clopper_pearson_upper(trials, trials, 0.95) == 1.0


def test_the_certificate_tells_what_the_certifying_half_shows():
    strangers = [random.Random(index).random() ** 4 for index in range(600)]
    certificate = threshold_for(*draw(400, seed=1, strangers=strangers))
    assert certificate.people == 200
    assert certificate.strangers == 300
    assert clopper_pearson_upper(certificate.wrong, certificate.answered, 0.95) <= 0.1
    assert clopper_pearson_upper(certificate.strangers_answered, certificate.strangers, 0.95) <= 0.05
    assert 0 < certificate.answered < certificate.people
    told = str(certificate)
    assert "with 95 % confidence at most 10 % of the answers are wrong" in told
    assert f"({certificate.wrong} of {certificate.answered} were, among 200 people)" in told
    assert f"({certificate.strangers_answered} of 300 did)" in told


def test_the_promise_is_kept_as_often_as_the_confidence_says():
    """With true risk known, thresholds that break the promise are rarer than 1 - confidence."""
    trials, broken, certified = 100, 0, 0
    everybody, _ = draw(40_000, seed=0)
    for seed in range(trials):
        try:
            threshold = threshold_for(*draw(200, seed + 1), confidence=0.8).threshold
        except CertificationError:
            continue
        certified += 1
        found = everybody.count(threshold)
        broken += found["wrong"] > 0.1 * found["answered"]
    assert certified > trials / 2
    assert broken <= 0.2 * trials
    assert broken > 0  # else the bounds are far too wide


def test_more_risk_answers_more():
    halves = draw(600, seed=3)
    thresholds = [threshold_for(*halves, risk=risk).threshold for risk in (0.1, 0.15, 0.2)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


def test_strangers_raise_the_threshold():
    strangers = [random.Random(index).random() for index in range(400)]
    alone, with_strangers = (threshold_for(*draw(400, 4, who)) for who in ((), strangers))
    assert with_strangers.threshold > alone.threshold
    assert (alone.stranger_rate, alone.strangers) == (None, 0)
    assert "strangers" not in str(alone)


@pytest.mark.parametrize(
    "known",
    [
        pytest.param([], id="nobody"),
        pytest.param([(0.9, True)] * 40, id="too-few"),
        pytest.param([(0.9, True), (0.9, True), (0.9, False), (0.9, False)] * 100, id="wrong-too-often"),
        pytest.param([(n / 400, n < 300) for n in range(400)], id="sure-and-wrong"),
    ],
)
def test_what_the_data_cannot_support_is_refused(known):
    with pytest.raises(
        CertificationError, match=r"calibration people cannot .*it takes at least 29 answers, more"
    ) as caught:
        threshold_for(*halve(known))
    assert "strangers" not in str(caught.value)


def test_a_lucky_picking_half_is_not_believed():
    """Scores that say nothing: thresholds that look safe on one half fail on the other."""
    certified = 0
    for seed in range(100):
        rng = random.Random(seed)
        try:
            threshold_for(*halve([(rng.random(), rng.random() < 0.85) for _ in range(200)]))
            certified += 1
        except CertificationError:
            pass
    assert certified <= 8


def test_strangers_who_cannot_be_told_apart_are_refused():
    selection, certification = draw(400, seed=6)
    selection, certification = (
        CalibrationScores(half.known, [score for score, _ in half.known]) for half in (selection, certification)
    )
    with pytest.raises(CertificationError, match=r"at most 5 % of strangers answered .* 29 answers and 59 strangers"):
        threshold_for(selection, certification)


def test_shares_are_written_with_the_digits_they_have():
    halves = halve([(0.9, True)] * 4000)
    assert "with 99.9 % confidence at most 0.4 % of" in str(threshold_for(*halves, risk=0.004, confidence=0.999))


@pytest.mark.parametrize("wrong", [{"risk": 0}, {"confidence": 1.0}, {"stranger_rate": 1.5}])
def test_shares_must_be_shares(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be between 0 and 1"):
        threshold_for(CalibrationScores([(0.5, True)]), CalibrationScores([(0.5, True)]), **wrong)
