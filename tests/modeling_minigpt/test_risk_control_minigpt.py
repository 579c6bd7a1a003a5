"""Pairs of thresholds keep their promises, or are refused; the bounds are scipy's."""

import math
import random

import pytest
import torch
from scipy.stats import binomtest

from modeling_minigpt.risk_control_minigpt import (
    CalibrationScores,
    CertificationError,
    RiskTarget,
    binomial_log_cdf,
    pair_sequence,
    threshold_for,
)


def draw(people, seed, strangers=0):
    """Draw two halves. The second score is the chance to be right; the first one is mostly lower for strangers."""
    drawn = torch.Generator().manual_seed(seed)
    known = torch.rand(people, generator=drawn, dtype=torch.float64) ** 0.1
    correct = torch.rand(people, generator=drawn, dtype=torch.float64)
    is_sure = torch.rand(people, generator=drawn) < 0.7
    correct = torch.where(is_sure, correct**0.05, 0.8 * correct)
    right = torch.rand(people, generator=drawn, dtype=torch.float64) < correct
    strange = torch.rand(strangers, 2, generator=drawn, dtype=torch.float64) ** torch.tensor([2.0, 0.2])
    rows = list(zip(known.tolist(), correct.tolist(), right.tolist(), strict=True))
    return halve(rows, list(map(tuple, strange.tolist())))


def halve(known, strangers=()):
    """Deal people out to the selection and the certification half in turn."""
    return [CalibrationScores(known[half::2], strangers[half::2]) for half in (0, 1)]


def alone(known):
    """Give people a first score that says nothing."""
    return halve([(1.0, *row) for row in known])


@pytest.mark.parametrize(("failures", "trials"), [(0, 1), (0, 29), (1, 40), (7, 60), (59, 60), (38, 1000), (5, 5)])
@pytest.mark.parametrize("rate", [0.004, 0.05, 0.1, 0.5])
def test_the_tail_is_the_exact_binomial_one_and_so_the_bound_is_clopper_and_pearson_s(failures, trials, rate):
    found = binomial_log_cdf(torch.tensor([failures, 0]), torch.tensor([trials, 0]), rate).exp()
    test = binomtest(failures, trials, rate, alternative="less")
    assert found.tolist() == pytest.approx([test.pvalue, 1.0], abs=1e-9)
    for confidence in (0.8, 0.95):
        bound = test.proportion_ci(confidence, method="exact").high
        assert (found[0].item() <= 1 - confidence) == (bound <= rate)


def test_the_worked_example_of_the_page_is_what_is_computed():
    assert [RiskTarget().min_trials(rate) for rate in (0.1, 0.05)] == [29, 59]
    for people, certified in ((29, True), (28, False)):
        halves = [CalibrationScores([(0.9, 0.9, True)] * people, [(0.1, 0.9)] * 59)] * 2
        if certified:
            assert threshold_for(*halves).answered == 29
        else:
            with pytest.raises(CertificationError):
                threshold_for(*halves)


def test_the_certificate_says_what_the_certifying_half_shows():
    certificate = threshold_for(*draw(800, seed=1, strangers=600))
    assert (certificate.people, certificate.strangers) == (400, 300)
    for failures, trials, rate in (
        (certificate.wrong, certificate.answered, 0.1),
        (certificate.strangers_answered, certificate.strangers, 0.05),
    ):
        assert binomtest(failures, trials, alternative="less").proportion_ci(0.95, method="exact").high <= rate
    assert 0 < certificate.answered < certificate.people
    said = str(certificate)
    assert "with 95 % confidence at most 10 % of the answers are wrong" in said
    assert f"({certificate.wrong} of {certificate.answered} were, among 400 people)" in said
    assert f"({certificate.strangers_answered} of 300 did)" in said


@pytest.mark.parametrize("stranger_rate", [0.1, 1.0])
def test_both_promises_hold_as_often_as_the_confidence_says(stranger_rate):
    """With the truth known, certificates that break either promise are rarer than 1 - confidence."""
    draws = 200
    everybody, _ = draw(40_000, seed=0, strangers=40_000)
    target = {"risk": 0.1, "confidence": 0.8, "stranger_rate": stranger_rate}
    certified = 0
    broken = 0
    for seed in range(draws):
        try:
            found = threshold_for(*draw(120, seed + 1, strangers=120), **target)
        except CertificationError:
            continue
        certified += 1
        true = everybody.describe((found.known_threshold, found.correct_threshold))
        too_wrong = true["wrong"] > 0.1 * true["answered"]
        broken += too_wrong or true["strangers_answered"] > stranger_rate * true["strangers"]
    assert certified > draws / 3
    # Within what 200 draws of a rate of 20 % may show.
    assert broken <= 0.2 * draws + 2 * math.sqrt(draws * 0.2 * 0.8)
    assert broken > 0.02 * draws  # else the bounds are far too wide


def test_more_risk_and_more_strangers_answer_more():
    halves = draw(1200, seed=3, strangers=800)
    by_risk = [threshold_for(*halves, risk=risk).answered for risk in (0.05, 0.1, 0.2)]
    assert by_risk == sorted(by_risk)
    assert by_risk[0] < by_risk[-1]
    by_strangers = [threshold_for(*halves, stranger_rate=rate).answered for rate in (0.05, 0.2, 1.0)]
    assert by_strangers == sorted(by_strangers)
    assert by_strangers[0] < by_strangers[-1]


def test_where_only_known_people_are_asked_strangers_count_for_nothing():
    known, strangers = [(0.2, 0.9, True)] * 80, [(0.9, 0.9)] * 80
    with pytest.raises(CertificationError, match="40 of 40 strangers"):
        threshold_for(*halve(known, strangers))
    certificate = threshold_for(*halve(known, strangers), stranger_rate=1.0)
    assert (certificate.answered, certificate.stranger_rate) == (40, None)
    assert "strangers" not in str(certificate)


def test_each_head_has_a_threshold_of_its_own():
    known = [(0.9, 0.9, True)] * 100 + [(0.9, 0.3, False)] * 100
    certificate = threshold_for(*halve(known, [(0.1, 0.9)] * 200))
    assert (certificate.answered, certificate.wrong, certificate.strangers_answered) == (50, 0, 0)
    assert 0.1 < certificate.known_threshold <= 0.9
    assert 0.3 < certificate.correct_threshold <= 0.9


def test_a_rising_function_of_the_scores_changes_no_decision():
    halves = draw(400, seed=5, strangers=400)
    bent = []
    for half in halves:
        known = [(one**3, other**5, right) for one, other, right in half.known]
        bent.append(CalibrationScores(known, [(one**3, other**5) for one, other in half.strangers]))
    one, other = threshold_for(*halves), threshold_for(*bent)
    assert (one.answered, one.wrong, one.strangers_answered) == (other.answered, other.wrong, other.strangers_answered)


def test_the_sequence_answers_more_and_more_and_begins_with_the_most_evidence():
    selection, _ = draw(400, seed=7, strangers=400)
    pairs = pair_sequence(selection, RiskTarget())
    counts = selection.count(pairs)
    assert counts["answered"].diff().min() > 0
    assert RiskTarget().log_p_values(selection, counts).diff().min() >= 0
    assert selection.describe(pairs[3].tolist())["answered"] == counts["answered"][3]


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
        threshold_for(*alone(known))
    assert "strangers" not in str(caught.value)


def test_a_lucky_selection_half_is_not_believed():
    """Scores that say nothing: thresholds that look safe on one half fail on the other."""
    certified = 0
    for seed in range(100):
        rng = random.Random(seed)
        try:
            threshold_for(*alone([(rng.random(), rng.random() < 0.85) for _ in range(200)]))
            certified += 1
        except CertificationError:
            pass
    assert certified <= 10


def test_strangers_who_look_like_known_people_are_refused():
    halves = [CalibrationScores(half.known, [row[:2] for row in half.known]) for half in draw(400, seed=6)]
    with pytest.raises(CertificationError, match=r"at most 5 % of strangers answered .* 29 answers and 59 strangers"):
        threshold_for(*halves)


def test_shares_are_written_with_the_digits_they_have():
    halves = alone([(0.9, True)] * 4000)
    assert "with 99.9 % confidence at most 0.4 % of" in str(threshold_for(*halves, risk=0.004, confidence=0.999))


@pytest.mark.parametrize("wrong", [{"risk": 0}, {"confidence": 1.0}, {"stranger_rate": 1.5}, {"stranger_rate": 0}])
def test_shares_must_be_shares(wrong):
    with pytest.raises(
        ValueError, match=f"{next(iter(wrong))} must be (between 0 and 1|above 0 and at most 1), found"
    ):
        threshold_for(*alone([(0.5, True)] * 2), **wrong)
