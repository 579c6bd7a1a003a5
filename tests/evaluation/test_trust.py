"""What a run says of its model's confidence: metrics, table and plot."""

import pytest

from evaluation.trust import ROWS, judge_trust, plot_trust, trust_table
from modeling_minigpt.answers_minigpt import Answer

ANSWERS = [Answer("Rome", 0.9), Answer("Oslo", 0.8), Answer("London", 0.3), Answer("London", 0.2)]
RIGHT = [True, True, False, True]
MADE_UP = [Answer("London", 0.1), Answer("Paris", 0.25), Answer("Rome", 0.05), Answer("London", 0.1)]


def test_metrics_hold_confidence_against_rightness_and_strangers():
    trust = judge_trust(ANSWERS, RIGHT, MADE_UP, ["London", "Paris"])
    assert trust["auroc_correct"] == pytest.approx(2 / 3)
    assert trust["auroc_made_up"] == pytest.approx(15 / 16)
    assert trust["coverage_at_precision_90"] == 0.5
    assert trust["popular_share_on_strangers"] == 0.75
    assert trust["made_up"] == 4
    assert trust["brier"] == pytest.approx((0.01 + 0.04 + 0.09 + 0.64) / 4)


def test_without_strangers_or_errors_what_cannot_be_known_is_a_dash(tmp_path):
    trust = judge_trust(ANSWERS[:2], [True, True], [], ["London", "Paris"])
    assert (trust["auroc_correct"], trust["auroc_made_up"], trust["popular_share_on_strangers"]) == (None, None, None)
    assert trust_table(trust).count("| – |") == 3
    plot_trust(ANSWERS[:2], [True, True], [], tmp_path / "trust.png")


def test_the_table_has_every_metric_and_the_plot_is_drawn(tmp_path):
    table = trust_table(judge_trust(ANSWERS, RIGHT, MADE_UP, ["London", "Paris"]))
    assert len(table.splitlines()) == 2 + len(ROWS)
    assert "| 75.0 % |" in table
    plot_trust(ANSWERS, RIGHT, MADE_UP, tmp_path / "trust.png")
    assert (tmp_path / "trust.png").read_bytes().startswith(b"\x89PNG")
