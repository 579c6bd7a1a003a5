"""Can the answers be trusted? Confidence held against rightness, and against questions about people nobody knows."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.plots import new_figure, save_figure
from evaluation.tables import markdown_table, percent
from evaluation.trust_metrics import (
    augrc,
    aurc,
    auroc,
    brier_score,
    coverage_at_precision,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from modeling_minigpt.answers_minigpt import Answer

STRANGERS = 500  # made-up names that are asked for
ROWS = {  # key: what it says, and whether it is a share
    "auroc_correct": ("right answers surer than wrong ones (AUROC)", False),
    "auroc_made_up": ("people asked for surer than made-up ones (AUROC)", False),
    "coverage_at_precision_90": ("questions answered when 90 % of the answers must be right", True),
    "coverage_at_precision_80": ("questions answered when 80 % of the answers must be right", True),
    "aurc": ("area under the risk–coverage curve (AURC)", False),
    "augrc": ("area under the generalised risk–coverage curve (AUGRC)", False),
    "ece": ("expected calibration error", False),
    "brier": ("Brier score", False),
    "popular_share_on_strangers": ("made-up people said to be from one of the two most popular places", True),
}


def by_rightness(scores: Sequence[float], right: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Return the scores of the right answers and those of the wrong ones."""
    pairs = list(zip(scores, right, strict=True))
    return [score for score, is_right in pairs if is_right], [score for score, is_right in pairs if not is_right]


def judge_trust(
    answers: Sequence[Answer], right: Sequence[bool], made_up: Sequence[Answer], popular: Sequence[str]
) -> dict:
    """Return the metrics of a model's confidence, the probability of its own answer.

    Args:
        answers: to questions with known places.
        right: which of them are.
        made_up: answers to questions about made-up people.
        popular: the most popular places, those that a model without knowledge falls back to.
    """
    scores, strange = [answer.probability for answer in answers], [answer.probability for answer in made_up]
    correct, wrong = by_rightness(scores, right)
    fallen = [answer.text in popular for answer in made_up]
    return {
        "auroc_correct": auroc(correct, wrong),
        "auroc_made_up": auroc(scores, strange),
        "aurc": aurc(scores, right),
        "augrc": augrc(scores, right),
        "coverage_at_precision_90": coverage_at_precision(scores, right, 0.9),
        "coverage_at_precision_80": coverage_at_precision(scores, right, 0.8),
        "ece": expected_calibration_error(scores, right),
        "brier": brier_score(scores, right),
        "made_up": len(made_up),
        "popular_share_on_strangers": sum(fallen) / len(fallen) if fallen else None,
    }


def trust_table(trust: dict) -> str:
    """Return the metrics as a Markdown table."""
    rows = []
    for key, (label, share) in ROWS.items():
        value = trust[key]
        rows.append([label, percent(value) if share or value is None else f"{value:.3f}"])
    return markdown_table(["the probability of an answer, uncalibrated", "value"], rows)


def plot_trust(answers: Sequence[Answer], right: Sequence[bool], made_up: Sequence[Answer], path: Path) -> None:
    """Draw risk against coverage, accuracy against confidence, and the confidences of right, wrong and made-up."""
    figure, axes = new_figure(1, 3, width=11.0, height=3.4)
    scores, strange = [answer.probability for answer in answers], [answer.probability for answer in made_up]
    axes[0].plot(*risk_coverage(scores, right))
    axes[0].set(xlabel="coverage: share answered, the surest first", ylabel="risk: share of those wrong")
    confidence, accuracy, _ = zip(*reliability(scores, right), strict=True)
    axes[1].plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes[1].plot(confidence, accuracy, marker="o")
    axes[1].set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    groups = (*by_rightness(scores, right), strange)
    for label, values in zip(("right", "wrong", "made-up people"), groups, strict=True):
        axes[2].hist(values, bins=20, range=(0, 1), histtype="step", label=label)
    axes[2].set(xlabel="confidence", ylabel="questions")
    axes[2].legend(frameon=False)
    save_figure(figure, path)
