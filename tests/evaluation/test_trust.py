"""What a run says of its model's chances: metrics, table and plots."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.trust import EvaluatedAnswers, JudgedAnswer, confidence_metrics, reliability_bins, trade
from evaluation.trust_metrics import balanced_weights
from evaluation.trust_plots import plot_groups, plot_reliability, plot_risk, plot_trust
from evaluation.trust_report import ROWS, threshold_line, trust_section, trust_table
from modeling_minigpt.confidence_minigpt import Confidence, Head, Scores
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.evaluation.drawing import draw, legend_texts

CERTIFICATE = Certificate(0.5, 0.8, 0.1, 0.05, 0.95, 200, 100, 4, 500, 10)
HALF = CalibrationScores([(0.9, 0.9, True)] * 60 + [(0.6, 0.5, False)] * 20, [(0.1, 0.9)] * 95 + [(0.7, 0.9)] * 5)
HEAD = Head({}, 0.0)
CONFIDENCE = Confidence(HEAD, HEAD, HALF, HALF, CERTIFICATE)
POPULAR = ["London", "Paris"]


def judged(text, known, correct):
    """Return an answer of a calibrated model."""
    return JudgedAnswer(text, Scores(known, correct, known * correct))


ANSWERS = [
    judged("Rome", 0.9, 0.9),
    judged("Oslo", 0.8, 0.85),
    judged("London", 0.9, 0.3),
    judged("London", 0.4, 0.95),
]
RIGHT = [True, True, False, True]
MADE_UP = [
    judged("London", 0.1, 0.9),
    judged("Paris", 0.25, 0.9),
    judged("Rome", 0.05, 0.9),
    judged("London", 0.1, 0.9),
]
WITHHELD = [judged("Rome", 0.85, 0.9), judged("Rome", 0.1, 0.1)]
ASKED = EvaluatedAnswers(ANSWERS, RIGHT, MADE_UP, WITHHELD, CONFIDENCE)
PLAIN = EvaluatedAnswers([JudgedAnswer(one.text, Scores(None, None, 0.5)) for one in ANSWERS[:2]], [True, True])


def test_each_head_is_compared_with_what_it_says_something_of():
    trust = confidence_metrics(ASKED, POPULAR)
    assert trust["accuracy"] == 0.75
    assert trust["auroc_correct"] == 1.0  # by the chance to be right, not by the product, which has 0.72 < 0.38 > 0.27
    assert trust["auroc_made_up"] == 1.0
    assert trust["auroc_withheld"] == pytest.approx((1 + 1 + 2 + 2) / 8)
    assert trust["popular_share_on_strangers"] == 0.5
    assert (trust["made_up"], trust["withheld"]) == (4, 2)
    assert trust["brier"] == pytest.approx((0.1**2 + 0.15**2 + 0.3**2 + 0.05**2) / 4)
    assert 0.0 <= trust["ece_known_interval"][0] <= trust["ece_known"]
    assert set(trust["reliability"]) == {"known", "correct"}
    json.dumps(trust, allow_nan=False)


def test_both_thresholds_decide_who_gets_an_answer():
    trust = confidence_metrics(ASKED, POPULAR)
    assert (trust["threshold_known"], trust["threshold_correct"]) == (0.5, 0.8)
    assert (trust["answered"], trust["answered_right"]) == (0.5, 1.0)
    assert (trust["made_up_answered"], trust["withheld_answered"]) == (0.0, 0.5)
    line = threshold_line(trust)
    assert line.startswith(
        "At the certified thresholds (known 0.500, correct 0.800): 50.0 % answered, 100.0 % of that"
    )
    assert line.endswith("0.0 % of made-up and 50.0 % of withheld people get an answer")


def test_without_heads_strangers_errors_or_thresholds_what_cannot_be_known_is_a_dash(tmp_path):
    trust = confidence_metrics(PLAIN, POPULAR)
    unknown = {key for key in ROWS if trust[key] is None}
    assert unknown == {
        "auroc_correct", "auroc_made_up", "auroc_withheld", "ece_known", "ece_correct", "threshold_known",
        "threshold_correct", "answered", "answered_right", "made_up_answered", "withheld_answered",
        "popular_share_on_strangers",
    }  # fmt: skip
    assert trust_table(trust).count("| – |") == len(unknown)
    assert "not calibrated" in trust_table(trust)
    assert "The model is not calibrated, so it answers every question by “I don't know”" in threshold_line(trust)
    plot_trust(PLAIN, trust, tmp_path / "trust.png")


def test_one_score_for_both_questions_answers_for_both():
    former = Confidence(None, HEAD, HALF, HALF, Certificate(0.0, 0.6, 0.1, 0.05, 0.95, 200, 100, 4, 500, 10))
    answers = [JudgedAnswer("Rome", Scores(None, None, score)) for score in (0.9, 0.7, 0.4)]
    strangers = [JudgedAnswer("Rome", Scores(None, None, score)) for score in (0.65, 0.1)]
    trust = confidence_metrics(EvaluatedAnswers(answers, [True, True, False], strangers, (), former), POPULAR)
    assert (trust["auroc_correct"], trust["auroc_made_up"]) == (1.0, pytest.approx(5 / 6))
    assert (trust["answered"], trust["made_up_answered"]) == (pytest.approx(2 / 3), 0.5)
    assert (trust["ece_known"], trust["ece_correct"]) == (None, None)


def test_the_trade_answers_more_the_more_strangers_may_be_answered():
    rows = trade(CONFIDENCE)
    for risk in (0.05, 0.1, 0.2):
        answered = [row["answered"] or 0.0 for row in rows if row["risk"] == risk]
        assert answered == sorted(answered)
    at = {(row["risk"], row["stranger_rate"]): row["answered"] for row in rows}
    assert at[0.1, 0.05] == 0.75
    assert at[0.1, 0.01] is None  # 5 of 100 strangers look like known people, so it cannot be shown


def test_the_table_has_every_metric_and_the_plots_are_drawn(tmp_path):
    trust = confidence_metrics(ASKED, POPULAR)
    table = trust_table(trust)
    assert len(table.splitlines()) == 2 + len(ROWS)
    assert "confidence, calibrated" in table
    assert "| 0.800 |" in table
    low, high = trust["ece_correct_interval"]
    assert f"({low:.3f} – {high:.3f})" in table
    plot_trust(ASKED, trust, tmp_path / "trust.png")
    assert (tmp_path / "trust.png").read_bytes().startswith(b"\x89PNG")


def test_each_bin_has_its_questions_and_the_interval_of_what_came_true():
    chances = np.array([0.1] * 10 + [0.9] * 10)
    true = np.array([1.0] + [0.0] * 9 + [1.0] * 10)
    bins = reliability_bins(chances, true, np.ones(20))
    assert sum(bins["questions"]) == 20
    low, high = bins["interval"][-1]
    assert low < bins["true"][-1] == pytest.approx(high) == 1.0
    # Eleven known people weigh as much as nine strangers; 1 of 10 is 0.0179 to 0.4042 by itself.
    weighted = reliability_bins(chances, true, balanced_weights(true.astype(bool)))
    assert weighted["questions"] == [10, 10]  # equal scores are in one bin
    assert weighted["true"][0] == pytest.approx((1 / 11) / (1 / 11 + 9 / 9))
    assert weighted["interval"][0] == pytest.approx([0.0147, 0.3569], abs=1e-4)


def test_the_certified_thresholds_are_marked_on_the_curve_of_risk_and_coverage():
    axes = draw(plot_risk, ASKED, confidence_metrics(ASKED, POPULAR))
    assert "certified risk: 10 %" in legend_texts(axes)
    assert "certified thresholds:\n2 answers, 0.0 % wrong" in legend_texts(axes)
    (mark,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (None, "no threshold is certified"),
        (replace(CERTIFICATE, known_threshold=1.0), "the thresholds answer nothing"),
    ],
)
def test_the_curve_says_why_no_threshold_is_marked(certificate, text):
    asked = EvaluatedAnswers(ANSWERS, RIGHT, MADE_UP, WITHHELD, Confidence(HEAD, HEAD, HALF, HALF, certificate))
    axes = draw(plot_risk, asked, confidence_metrics(asked, POPULAR))
    assert text in legend_texts(axes)
    assert not [line for line in axes.lines if line.get_marker() == "D"]


def test_reliability_is_drawn_with_bin_counts_and_intervals():
    trust = confidence_metrics(ASKED, POPULAR)
    axes = draw(plot_reliability, trust["reliability"])
    assert "correct: 4 bins of 1" in legend_texts(axes)
    assert len([bars for bars in axes.containers if bars.has_yerr]) == 2


def test_every_group_has_its_own_colour_dashes_and_count():
    axes = draw(plot_groups, ASKED)
    assert legend_texts(axes) == ["known: 4", "made-up: 4", "withheld: 2", "threshold: 0.500"]
    styles = {(patch.get_edgecolor(), patch.get_linestyle()) for patch in axes.patches}
    assert len({color for color, _ in styles}) == len({dashes for _, dashes in styles}) == 3


def test_results_of_one_head_still_read():
    trust = confidence_metrics(ASKED, POPULAR)
    counts = {"people": 100, "answered": 58, "wrong": 0, "strangers": 1000, "strangers_answered": 37}
    trust["certificate"] = {"threshold": 0.9, "risk": 0.1, "stranger_rate": 0.05, "confidence": 0.95, **counts}
    for key in ("ece_known", "ece_correct", "threshold_known"):
        del trust[key]
    text = "\n".join(trust_section(trust))
    assert "Certified on people whose questions were held out of training: with 95 % confidence" in text
    assert "| expected calibration error of the chance to be known | – |" in text
