"""Calibrated confidence in two numbers: does the model know this person, and is its answer right?

Two logistic regressions, the heads, each use a subset of the features of `features_minigpt`:

    known    the probability that the person is in the training texts; fitted on such people against strangers
    correct  the probability that the answer is right, given that; fitted on known people, right against wrong answers

Their product, `score`, is the probability that the answer is right, whether or not the person is known. `known` is
calibrated for equal numbers of known people and strangers. Both heads are fitted for each relation, on people held out
of the training questions. They are stored in the model's folder, in `confidence.json`, with those people's scores, so
that thresholds can be certified for any risk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch

from .features_minigpt import feature_names
from .fingerprint_minigpt import digest
from .relations_minigpt import BIRTHPLACE, Relation
from .risk_control_minigpt import CalibrationScores, Certificate, RiskTarget, threshold_for

CONFIDENCE_FILE = "confidence.json"
NEVER_CALIBRATED = "train.py calibrates where data.calibration_questions is set"


class Scores(NamedTuple):
    """The probabilities of one answer.

    Attributes:
        known: that the person is in the training texts; None without a calibration, or with an older one of one head.
        correct: that the answer is right, given that; None likewise.
        score: their product; without them the one score of an older calibration, or the model's own probability.
    """

    known: float | None
    correct: float | None
    score: float

    @property
    def pair(self) -> tuple[float, float]:
        """What a certificate's two thresholds are compared with."""
        # One score for both questions has only the second threshold to reach.
        return (1.0, self.score) if self.known is None or self.correct is None else (self.known, self.correct)


@dataclass(frozen=True)
class Head:
    """A logistic regression on some of the features.

    Attributes:
        weights: by feature name; any subset of `feature_names`.
        bias: added to the weighted sum.
    """

    weights: dict[str, float]
    bias: float

    def probabilities(self, features: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        """Return the chances of a batch, (B,), from its features, (B, F), whose columns have these names."""
        columns = [names.index(name) for name in self.weights]
        weights = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        return (features[:, columns] @ weights + self.bias).sigmoid()


@dataclass(frozen=True)
class Confidence:
    """Two fitted heads, and the thresholds below which the model abstains.

    Attributes:
        known: predicts whether a person is in the training texts; None in an older calibration, which has one head.
        correct: predicts whether the answer is right, given that; in an older calibration, the one head for both.
        selection, certification: scores of the two halves of the calibration people, for `threshold_for`.
        certificate: the thresholds with their guarantee; None if none could be certified.
        refusal: why none could be certified.
        fingerprint: digests of the model and the relation that it was fitted for, by `fingerprint_minigpt`.
    """

    known: Head | None
    correct: Head
    selection: CalibrationScores
    certification: CalibrationScores
    certificate: Certificate | None = None
    refusal: str | None = None
    fingerprint: dict[str, str] | None = None

    @cached_property
    def measured(self) -> str:
        """A short digest of what was measured, by which certificates of this calibration are known."""
        # Of numbers alone, which a file gives back exactly; not of the fingerprint, which is added when it is saved.
        heads = [
            None if head is None else [{name: float(one) for name, one in head.weights.items()}, float(head.bias)]
            for head in (self.known, self.correct)
        ]
        halves = [part.tolist() for half in (self.selection, self.certification) for part in half.columns]
        return digest(heads, halves)[:16]

    def probabilities(
        self, features: torch.Tensor, relation: Relation = BIRTHPLACE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the chances to be known and, given that, to be right, (B,) each, from features (B, F).

        With one head the first are 1. NaN where a feature that a head uses is not a number.
        """
        names = feature_names(relation)
        correct = self.correct.probabilities(features, names)
        known = torch.ones_like(correct) if self.known is None else self.known.probabilities(features, names)
        return known, correct

    def scores(self, features: torch.Tensor, relation: Relation = BIRTHPLACE) -> list[Scores]:
        """Return what is said of each answer of a batch, from features (B, F)."""
        pairs = zip(*(chances.tolist() for chances in self.probabilities(features, relation)), strict=True)
        if self.known is None:
            return [Scores(None, None, correct) for _, correct in pairs]
        return [Scores(known, correct, known * correct) for known, correct in pairs]

    def threshold_for(
        self,
        risk: float = RiskTarget.risk,
        confidence: float = RiskTarget.confidence,
        stranger_rate: float = RiskTarget.stranger_rate,
    ) -> Certificate:
        """Certify the thresholds that answer most and meet a target; CertificationError where none can be."""
        certificate = threshold_for(self.selection, self.certification, risk, confidence, stranger_rate)
        return replace(certificate, calibration=self.measured)


def describe_promise(certificate: Certificate | None, calibrated: bool, refusal: str | None) -> str:
    """Say in one sentence what is certified, or that nothing is, why, and what follows from that.

    Args:
        certificate: of the model or the relation, if any.
        calibrated: whether its scores are calibrated.
        refusal: why there is no certificate or no calibration, where that is known.
    """
    if certificate is not None:
        return f"certified on people whose questions were held out of training: {certificate}"
    lack = "no threshold is certified" if calibrated else "the model is not calibrated"
    reason = refusal or NEVER_CALIBRATED
    return f"{lack}, so it answers every question by “I don't know” unless threshold=0 is given: {reason}"
