"""A certified threshold: a bounded share of the answers above it are wrong, and a bounded share of strangers get one.

The threshold is selected on one half of the calibration people and certified on the other, by exact binomial bounds
(Clopper and Pearson 1934). The selection half chooses its safest threshold and so fixes a sequence, from there down;
the certification half follows that sequence until a threshold fails. The last one that passed is certified at the full
confidence, however many were tried (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then test",
arXiv 2110.01052, section 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch


class CertificationError(ValueError):
    """The data cannot support the certificate that was asked for; the message says why."""


@lru_cache(maxsize=100_000)
def clopper_pearson_upper(failures: int, trials: int, confidence: float) -> float:
    """Bound a failure rate from above, with this confidence, after `failures` in `trials` (Clopper and Pearson 1934).

    The one-sided bound is the rate at which that few failures have the probability 1 - confidence. It is found by
    bisection of the binomial distribution in logarithms: scipy, which has it, is no dependency of the model package.
    """
    if failures >= trials:
        return 1.0
    # P(at most k failures) falls as the rate rises. No failure in 59 trials: (1 - rate)^59 = 0.05 at rate 0.0495, so
    # with 95 % confidence the rate is below 5 %. Terms are summed as logarithms, since the binomials overflow.
    k = torch.arange(failures + 1, dtype=torch.float64)
    n = torch.tensor(trials, dtype=torch.float64)
    log_binomials = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    low = failures / trials
    high = 1.0
    for _ in range(50):  # halves the interval to less than the spacing of float64
        rate = (low + high) / 2
        cdf = torch.logsumexp(log_binomials + k * math.log(rate) + (n - k) * math.log1p(-rate), dim=0).exp().item()
        low, high = (rate, high) if cdf > 1.0 - confidence else (low, rate)
    return high  # the safe end


def format_percent(fraction: float) -> str:
    """Write a fraction as a percentage, with the digits it has."""
    return f"{100 * fraction:g} %"


@dataclass(frozen=True)
class Certificate:
    """What a threshold was certified for, and on how many people.

    Attributes:
        threshold: scores from here on are answered.
        risk: largest fraction of the answers to known people that are wrong.
        stranger_rate: largest fraction of the strangers who get an answer; None if there were none to certify on.
        confidence: the probability, over draws of calibration people, that each of the two holds.
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
            f"with {format_percent(self.confidence)} confidence at most {format_percent(self.risk)} of the answers "
            f"are wrong ({self.wrong} of {self.answered} were, among {self.people} people)"
        )
        if self.stranger_rate is not None:
            text += (
                f", and at most {format_percent(self.stranger_rate)} of strangers get one "
                f"({self.strangers_answered} of {self.strangers} did)"
            )
        return text


@dataclass(frozen=True)
class CalibrationScores:
    """Scores of the answers to calibration people.

    Attributes:
        known: score of each answer to a person of the training documents, and whether it is right.
        strangers: scores of answers about people who are in no document.
    """

    known: Sequence[tuple[float, bool]]
    strangers: Sequence[float] = ()

    def count(self, threshold: float) -> dict[str, int]:
        """Count what a certificate says of a threshold."""
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
    """What a threshold must guarantee; the defaults are those of every certificate that asks for nothing else.

    Attributes:
        risk: largest fraction of wrong ones among the answers given to known people.
        confidence: probability, over draws of the certification people, that a bound holds; of each bound for itself.
        stranger_rate: largest fraction of strangers who may get an answer.

    Raises:
        ValueError: a fraction that is not between 0 and 1.
    """

    risk: float = 0.1
    confidence: float = 0.95
    stranger_rate: float = 0.05

    def __post_init__(self):
        for name, fraction in vars(self).items():
            if not 0.0 < fraction < 1.0:
                raise ValueError(f"{name} must be between 0 and 1, found {fraction}")

    def bound_ratio(self, scores: CalibrationScores, threshold: float) -> float:
        """Return the larger of the two bounds over what is allowed; at most 1 where the threshold meets the target."""
        found = scores.count(threshold)
        # Above 1, a bound exceeds what is allowed. Both must hold, so the larger ratio decides.
        wrong = clopper_pearson_upper(found["wrong"], found["answered"], self.confidence) / self.risk
        if not scores.strangers:
            return wrong
        answered = clopper_pearson_upper(found["strangers_answered"], found["strangers"], self.confidence)
        return max(wrong, answered / self.stranger_rate)

    def refusal(self, scores: CalibrationScores, threshold: float) -> str:
        """Explain why not even the safest threshold can be certified."""
        found = scores.count(threshold)
        wanted = f"at most {format_percent(self.risk)} of the answers wrong"
        seen = f"{found['wrong']} of {found['answered']} answers were wrong"
        needed = f"{self.min_trials(self.risk)} answers"
        if scores.strangers:
            wanted += f" and at most {format_percent(self.stranger_rate)} of strangers answered"
            seen += f" and {found['strangers_answered']} of {found['strangers']} strangers were answered"
            needed += f" and {self.min_trials(self.stranger_rate)} strangers"
        return (
            f"{found['people']} calibration people cannot certify a threshold with {wanted} at "
            f"{format_percent(self.confidence)} confidence: at {threshold:.3f}, {seen} (it takes at least {needed}, "
            "more with every failure)"
        )

    def min_trials(self, allowed: float) -> int:
        """Return how many trials without a failure show that a rate is not above what is allowed."""
        # No failure in n trials has the probability (1 - allowed)^n, which must be at most 1 - confidence.
        return math.ceil(math.log(1.0 - self.confidence) / math.log1p(-allowed))


def threshold_for(
    selection: CalibrationScores,
    certification: CalibrationScores,
    risk: float = RiskTarget.risk,
    confidence: float = RiskTarget.confidence,
    stranger_rate: float = RiskTarget.stranger_rate,
) -> Certificate:
    """Certify the lowest threshold that meets a target: the last of the sequence that does.

    Args:
        selection: people to select by; the scores may have been fitted on them.
        certification: other people, used in no training and no fit. Without strangers nothing is guaranteed of them.
        risk, confidence, stranger_rate: what is wanted, as in `RiskTarget`.

    Raises:
        ValueError: as `RiskTarget`.
        CertificationError: the data cannot support it: too few people, or too many of the highest scores are wrong.
    """
    target = RiskTarget(risk, confidence, stranger_rate)
    scores = sorted({score for score, _ in selection.known}, reverse=True)
    # The selection half may be used in any way, as it certifies nothing.
    safest = min(scores, key=lambda score: target.bound_ratio(selection, score), default=1.0)
    threshold = None
    # Scores above the safest threshold are skipped: too few answers are above them for a bound to hold. Each threshold
    # is tested only after all before it passed, so the chance that any false one passes is that of the first false
    # one alone: no correction for the number of tests is needed.
    for score in (score for score in scores if score <= safest):
        if target.bound_ratio(certification, score) > 1.0:
            break
        threshold = score
    if threshold is None:
        raise CertificationError(target.refusal(certification, safest))
    guaranteed = target.stranger_rate if certification.strangers else None
    return Certificate(threshold, target.risk, guaranteed, target.confidence, **certification.count(threshold))
