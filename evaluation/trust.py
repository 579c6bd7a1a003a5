"""Can the answers be trusted? Confidence compared with what is right, and on questions about unknown people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from evaluation.plots import new_figure, save_figure
from evaluation.tables import markdown_table, number, percent
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
from modeling_minigpt.risk_control_minigpt import Certificate

STRANGERS = 500  # made-up names that are asked for
ROWS = {  # key: what it says, and whether it is a share
    "auroc_correct": ("right answers surer than wrong ones (AUROC)", False),
    "auroc_made_up": ("people asked for surer than made-up ones (AUROC)", False),
    "auroc_withheld": ("people asked for surer than real ones who were withheld (AUROC)", False),
    "coverage_at_precision_90": ("questions answered when 90 % of the answers must be right", True),
    "coverage_at_precision_80": ("questions answered when 80 % of the answers must be right", True),
    "aurc": ("area under the risk–coverage curve (AURC)", False),
    "augrc": ("area under the generalised risk–coverage curve (AUGRC)", False),
    "ece": ("expected calibration error", False),
    "brier": ("Brier score", False),
    "threshold": ("threshold", False),
    "answered": ("questions answered at the threshold", True),
    "answered_right": ("right among those", True),
    "made_up_answered": ("made-up people given an answer at the threshold", True),
    "withheld_answered": ("withheld people given an answer at the threshold", True),
    "popular_share_on_strangers": ("answers about strangers that are one of the two most popular answers", True),
}


@dataclass(frozen=True)
class EvaluatedAnswers:
    """A model's answers, with how sure it is of them.

    Attributes:
        known: to questions with known answers.
        right: which of these are right.
        made_up: about made-up people.
        withheld: about real people who were withheld from training.
        calibrated: whether the probabilities are calibrated.
        certificate: the threshold below which the model would have abstained, if any.
    """

    known: Sequence[Answer]
    right: Sequence[bool]
    made_up: Sequence[Answer] = ()
    withheld: Sequence[Answer] = ()
    calibrated: bool = False
    certificate: Certificate | None = None

    @cached_property
    def scores(self) -> dict[str, list[float]]:
        """The confidences: of each kind of answer, and of the right and the wrong ones among the known."""
        kinds = ("known", "made_up", "withheld")
        groups = {kind: [answer.probability for answer in getattr(self, kind)] for kind in kinds}
        pairs = list(zip(groups["known"], self.right, strict=True))
        groups["right"] = [score for score, is_right in pairs if is_right]
        groups["wrong"] = [score for score, is_right in pairs if not is_right]
        return groups


def fraction(flags: Sequence[bool]) -> float | None:
    """Return the share of true flags; None where there are none."""
    return sum(flags) / len(flags) if len(flags) else None


def confidence_metrics(asked: EvaluatedAnswers, popular: Sequence[str]) -> dict:
    """Return the metrics of a model's confidence.

    What depends on a threshold is None where the model has none, and what depends on strangers where none were asked
    about.

    Args:
        asked: the answers; none of them withheld because the confidence was low.
        popular: the most popular answers, those that a model without knowledge falls back to.
    """
    scores = asked.scores["known"]
    right = asked.right
    strangers = [*asked.made_up, *asked.withheld]
    certificate = asked.certificate
    threshold = None if certificate is None else certificate.threshold

    def answered(group: str) -> float | None:
        return None if threshold is None else fraction([score >= threshold for score in asked.scores[group]])

    given = [is_right for score, is_right in zip(scores, right, strict=True) if score >= (threshold or 0.0)]
    return {
        "calibrated": asked.calibrated,
        "accuracy": fraction(right),
        "auroc_correct": auroc(asked.scores["right"], asked.scores["wrong"]),
        "auroc_made_up": auroc(scores, asked.scores["made_up"]),
        "auroc_withheld": auroc(scores, asked.scores["withheld"]),
        "aurc": aurc(scores, right),
        "augrc": augrc(scores, right),
        "coverage_at_precision_90": coverage_at_precision(scores, right, 0.9),
        "coverage_at_precision_80": coverage_at_precision(scores, right, 0.8),
        "ece": expected_calibration_error(scores, right),
        "brier": brier_score(scores, right),
        "made_up": len(asked.made_up),
        "withheld": len(asked.withheld),
        "threshold": threshold,
        "certificate": None if certificate is None else asdict(certificate),
        "answered": answered("known"),
        "answered_right": None if threshold is None else fraction(given),
        "made_up_answered": answered("made_up"),
        "withheld_answered": answered("withheld"),
        "popular_share_on_strangers": fraction([answer.text in popular for answer in strangers]),
    }


def trust_table(trust: dict) -> str:
    """Return the metrics as a Markdown table."""
    rows = []
    for key, (label, is_share) in ROWS.items():
        rows.append([label, (percent if is_share else number)(trust[key])])
    return markdown_table(
        ["confidence, calibrated" if trust["calibrated"] else "confidence, not calibrated", ""], rows
    )


def plot_trust(asked: EvaluatedAnswers, path: Path) -> None:
    """Draw risk against coverage, accuracy against confidence, and the confidences of right, wrong and strangers."""
    figure, axes = new_figure(1, 3, width=11.0, height=3.4)
    scores = asked.scores["known"]
    axes[0].plot(*risk_coverage(scores, asked.right))
    axes[0].set(xlabel="coverage: share answered, the surest first", ylabel="risk: share of those wrong")
    axes[1].plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes[1].plot(*reliability(scores, asked.right), marker="o")
    axes[1].set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    labels = {"right": "right", "wrong": "wrong", "made_up": "made-up people", "withheld": "withheld people"}
    for group, label in labels.items():
        if asked.scores[group]:
            axes[2].hist(asked.scores[group], bins=20, range=(0, 1), histtype="step", label=label)
    if asked.certificate is not None:
        axes[2].axvline(asked.certificate.threshold, color="0.7", linestyle="--", label="threshold")
    axes[2].set(xlabel="confidence", ylabel="questions")
    axes[2].legend(frameon=False)
    save_figure(figure, path)
