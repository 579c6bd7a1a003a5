"""What a run says of its model's confidence: metrics, table and plot."""

import pytest

from evaluation.trust import ROWS, EvaluatedAnswers, confidence_metrics, plot_trust, trust_table
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.risk_control_minigpt import Certificate

ANSWERS = [Answer("Rome", 0.9), Answer("Oslo", 0.8), Answer("London", 0.3), Answer("London", 0.2)]
RIGHT = [True, True, False, True]
MADE_UP = [Answer("London", 0.1), Answer("Paris", 0.25), Answer("Rome", 0.05), Answer("London", 0.1)]
WITHHELD = [Answer("Rome", 0.85), Answer("Rome", 0.1)]
CERTIFICATE = Certificate(0.8, 0.1, 0.05, 0.95, 200, 100, 4, 500, 10)
ASKED = EvaluatedAnswers(ANSWERS, RIGHT, MADE_UP, WITHHELD, calibrated=True, certificate=CERTIFICATE)
POPULAR = ["London", "Paris"]


def test_metrics_hold_confidence_against_rightness_and_strangers():
    trust = confidence_metrics(ASKED, POPULAR)
    assert trust["accuracy"] == 0.75
    assert trust["auroc_correct"] == pytest.approx(2 / 3)
    assert trust["auroc_made_up"] == pytest.approx(15 / 16)
    assert trust["auroc_withheld"] == pytest.approx((2 + 1 + 1 + 1) / 8)
    assert trust["coverage_at_precision_90"] == 0.5
    assert trust["popular_share_on_strangers"] == 0.5
    assert (trust["made_up"], trust["withheld"]) == (4, 2)
    assert trust["brier"] == pytest.approx((0.01 + 0.04 + 0.09 + 0.64) / 4)


def test_the_threshold_decides_who_gets_an_answer():
    trust = confidence_metrics(ASKED, POPULAR)
    assert trust["threshold"] == trust["certificate"]["threshold"] == 0.8
    assert (trust["answered"], trust["answered_right"]) == (0.5, 1.0)
    assert (trust["made_up_answered"], trust["withheld_answered"]) == (0.0, 0.5)


def test_without_strangers_errors_or_threshold_what_cannot_be_known_is_a_dash(tmp_path):
    trust = confidence_metrics(EvaluatedAnswers(ANSWERS[:2], [True, True]), POPULAR)
    unknown = {key for key in ROWS if trust[key] is None}
    assert unknown == {
        "auroc_correct", "auroc_made_up", "auroc_withheld", "threshold", "answered", "answered_right",
        "made_up_answered", "withheld_answered", "popular_share_on_strangers",
    }  # fmt: skip
    assert trust_table(trust).count("| – |") == len(unknown)
    assert "not calibrated" in trust_table(trust)
    plot_trust(EvaluatedAnswers(ANSWERS[:2], [True, True]), tmp_path / "trust.png")


def test_the_table_has_every_metric_and_the_plot_is_drawn(tmp_path):
    table = trust_table(confidence_metrics(ASKED, POPULAR))
    assert len(table.splitlines()) == 2 + len(ROWS)
    assert "confidence, calibrated" in table
    assert "| 0.800 |" in table
    plot_trust(ASKED, tmp_path / "trust.png")
    assert (tmp_path / "trust.png").read_bytes().startswith(b"\x89PNG")
