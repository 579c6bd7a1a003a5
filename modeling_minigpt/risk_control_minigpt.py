"""A threshold with a guarantee: at most so many of the answers above it are wrong, and so few strangers get one.

The threshold is picked on one half of the calibration people and certified on the other, by exact binomial bounds
(Clopper and Pearson 1934). The selection half names its safest threshold and so fixes an order, from there down; the
certification half follows that order until a threshold fails, so that the last that held is certified at the full
confidence (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then test", arXiv 2110.01052, section 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch


class CertificationError(ValueError):
    """The data cannot support the guarantee that was asked for; the message says why."""


@lru_cache(maxsize=100_000)
def clopper_pearson_upper(failures: int, trials: int, confidence: float) -> float:
    """Return the rate that is not exceeded, with this confidence, where `failures` of `trials` failed.

    The one-sided bound of Clopper and Pearson: the rate at which so few failures have the probability 1 - confidence.
    """
    if failures >= trials:
        return 1.0
    k, n = torch.arange(failures + 1, dtype=torch.float64), torch.tensor(trials, dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)  # log of the binomial coefficients
    low, high = failures / trials, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        so_few = torch.logsumexp(ways + k * math.log(rate) + (n - k) * math.log1p(-rate), dim=0).exp().item()
        low, high = (rate, high) if so_few > 1.0 - confidence else (low, rate)
    return high


def written(share: float) -> str:
    """Write a share as a percentage, with the digits it has."""
    return f"{100 * share:g} %"


@dataclass(frozen=True)
class Certificate:
    """What a threshold was certified for, and on whom.

    Attributes:
        threshold: scores from here on are answered.
        risk: largest share of the answers to known people that are wrong.
        stranger_rate: largest share of the strangers who get an answer; None where none were there to certify on.
        confidence: the chance, over draws of calibration people, that each of the two holds.
        people, answered, wrong: the certification half's known people, their answers and the wrong ones among these.
        strangers, strangers_answered: the certification half's strangers, and those who got an answer.
    """

    threshold: float
    risk: float
    stranger_rate: float | None
    confidence: float
    people: int
    answered: int
    wrong: int
    strangers: int
    strangers_answered: int

    def __str__(self) -> str:
        text = (
            f"with {written(self.confidence)} confidence at most {written(self.risk)} of the answers are wrong "
            f"({self.wrong} of {self.answered} were, among {self.people} people)"
        )
        if self.stranger_rate is not None:
            text += (
                f", and at most {written(self.stranger_rate)} of strangers get one "
                f"({self.strangers_answered} of {self.strangers} did)"
            )
        return text


@dataclass(frozen=True)
class CalibrationScores:
    """Calibration people, with how sure the answers to them are.

    Attributes:
        known: score and rightness of each answer to a person of whom the model was told.
        strangers: scores of answers about people of whom it was not.
    """

    known: Sequence[tuple[float, bool]]
    strangers: Sequence[float] = ()

    def count(self, threshold: float) -> dict[str, int]:
        """Return a certificate's counts at a threshold."""
        rights = [right for score, right in self.known if score >= threshold]
        return {
            "people": len(self.known),
            "answered": len(rights),
            "wrong": len(rights) - sum(rights),
            "strangers": len(self.strangers),
            "strangers_answered": sum(score >= threshold for score in self.strangers),
        }


@dataclass(frozen=True)
class RiskTarget:
    """What is wanted of a threshold; the attributes are a certificate's."""

    risk: float
    confidence: float
    stranger_rate: float

    def __post_init__(self):
        for name, share in vars(self).items():
            if not 0.0 < share < 1.0:
                raise ValueError(f"{name} must be between 0 and 1, found {share}")

    def excess(self, scored: CalibrationScores, threshold: float) -> float:
        """Return the larger of the two bounds over what is allowed; at most 1 where the threshold holds."""
        found = scored.count(threshold)
        wrong = clopper_pearson_upper(found["wrong"], found["answered"], self.confidence) / self.risk
        if not scored.strangers:
            return wrong
        answered = clopper_pearson_upper(found["strangers_answered"], found["strangers"], self.confidence)
        return max(wrong, answered / self.stranger_rate)

    def refusal(self, scored: CalibrationScores, threshold: float) -> str:
        """Say why not even the safest threshold can be certified."""
        found = scored.count(threshold)
        wanted = f"at most {written(self.risk)} of the answers wrong"
        seen = f"{found['wrong']} of {found['answered']} answers were wrong"
        needed = f"{self.needed(self.risk)} answers"
        if scored.strangers:
            wanted += f" and at most {written(self.stranger_rate)} of strangers answered"
            seen += f" and {found['strangers_answered']} of {found['strangers']} strangers were answered"
            needed += f" and {self.needed(self.stranger_rate)} strangers"
        return (
            f"{found['people']} calibration people cannot certify a threshold with {wanted} at "
            f"{written(self.confidence)} confidence: at {threshold:.3f}, {seen} (it takes at least {needed}, more "
            "with every failure)"
        )

    def needed(self, allowed: float) -> int:
        """Return how many trials without a failure would show that a rate is not above what is allowed."""
        return math.ceil(math.log(1.0 - self.confidence) / math.log1p(-allowed))


def threshold_for(
    selection: CalibrationScores,
    certification: CalibrationScores,
    risk: float = 0.1,
    confidence: float = 0.95,
    stranger_rate: float = 0.05,
) -> Certificate:
    """Return a threshold at which both promises hold, with its certificate: the last of the order that does.

    Args:
        selection: people to pick by; the scores may have been made with their help.
        certification: other people, who took no part in training nor in making the scores. Without strangers
            nothing is promised of them.
        risk: largest share of wrong ones among the answers given to known people.
        confidence: chance, over draws of the certification people, that a promise holds; of each promise for itself.
        stranger_rate: largest share of strangers who may get an answer.

    Raises:
        ValueError: a share that is not between 0 and 1.
        CertificationError: the data cannot support it: too few people, or too many of the sure answers are wrong.
    """
    promise = RiskTarget(risk, confidence, stranger_rate)
    scores = sorted({score for score, _ in selection.known}, reverse=True)
    safest = min(scores, key=lambda score: promise.excess(selection, score), default=1.0)
    threshold = None
    for score in (score for score in scores if score <= safest):
        if promise.excess(certification, score) > 1.0:
            break
        threshold = score
    if threshold is None:
        raise CertificationError(promise.refusal(certification, safest))
    promised = stranger_rate if certification.strangers else None
    return Certificate(threshold, risk, promised, confidence, **certification.count(threshold))
