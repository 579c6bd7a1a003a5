"""Two certified thresholds: few answers to known people are wrong, and few strangers get one.

A person gets an answer where the chance to be known and the chance that the answer is right both reach their
threshold. Which pairs of thresholds are tried, and in which order, is decided on one half of the calibration people:
from the pair with the most evidence to pairs that answer more. The other half tests them in that order until one fails
(fixed-sequence testing; Angelopoulos et al. 2021, "Learn then test", arXiv 2110.01052, section 4), and the passed pair
that answers most is certified.

A worked example, risk 0.1 and stranger rate 0.05 at confidence 0.95. If 10 % of the answers are wrong, 29 answers are
all right with probability 0.9^29 = 0.047; if 5 % of strangers are answered, none of 59 is with probability 0.95^59 =
0.048. Both are below 0.05, so 29 right answers and 59 unanswered strangers certify a pair; every failure requires more
trials. Such a probability is at most 1 - confidence exactly if the upper bound of Clopper and Pearson (1934) is at
most the allowed rate.

No correction for multiple testing is needed, neither for the two conditions nor for the many pairs. A pair that breaks
one of the conditions must pass the test of that condition, which has probability 0.05 at most, whatever the other test
says (the intersection-union test; Berger 1982, "Multiparameter hypothesis testing and acceptance sampling"). In a
fixed order, a pair that breaks a condition is certified only if the first such pair passes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


class CertificationError(ValueError):
    """The data cannot support the certificate that was asked for; the message says why."""


def binomial_log_cdf(failures: torch.Tensor, trials: torch.Tensor, rate: float) -> torch.Tensor:
    """Return the log-probability of at most `failures` in `trials` at a failure rate, elementwise, (N,) in float64.

    Where it is at most log(1 - confidence), Clopper and Pearson's one-sided upper bound is at most `rate`. scipy has
    both, but is no dependency of the model package.
    """
    counts, row = trials.unique(return_inverse=True)
    n = counts.double()[:, None]  # (U, 1)
    k = torch.arange(int(failures.max()) + 1 if len(failures) else 1, dtype=torch.float64)  # (K,)
    # Summed as logarithms, since the binomials overflow.
    log_binomials = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
    terms = (log_binomials + k * math.log(rate) + (n - k) * math.log1p(-rate)).masked_fill(k > n, -math.inf)
    return terms.logcumsumexp(-1)[row, failures].clamp(max=0.0)


def format_percent(fraction: float) -> str:
    """Write a fraction as a percentage, with the digits it has."""
    return f"{100 * fraction:g} %"


@dataclass(frozen=True)
class Certificate:
    """What a pair of thresholds was certified for, and on how many people.

    Attributes:
        known_threshold, correct_threshold: a person for whom both chances reach these gets an answer.
        risk: largest fraction of the answers to known people that are wrong.
        stranger_rate: largest fraction of the strangers who get an answer; None where nothing is guaranteed of them.
        confidence: the probability, over draws of calibration people, that both hold.
        people, answered, wrong: the certification half's known people, their answers and the wrong ones among these.
        strangers, strangers_answered: the certification half's strangers, and those who got an answer.
        relation: whose calibration it is of, where it was asked for by name; its thresholds mean nothing for others.
        calibration: the digest of that calibration, as `Confidence.measured`; None in older files.
    """

    known_threshold: float
    correct_threshold: float
    risk: float
    stranger_rate: float | None
    confidence: float
    people: int
    answered: int
    wrong: int
    strangers: int
    strangers_answered: int
    relation: str | None = None
    calibration: str | None = None

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
    """Both heads' chances for calibration people.

    Attributes:
        known: of each person of the training documents, the chance to be known, the chance that the answer is right
            given that, and whether it is right.
        strangers: both chances of people who are in no document.
    """

    known: Sequence[tuple[float, float, bool]]
    strangers: Sequence[tuple[float, float]] = ()

    @cached_property
    def columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as tensors: (N, 3), right as 0 or 1, and (M, 2), in float64."""
        known = torch.tensor([tuple(map(float, row)) for row in self.known], dtype=torch.float64).view(-1, 3)
        return known, torch.tensor(list(self.strangers), dtype=torch.float64).view(-1, 2)

    def count_grid(self, known_thresholds: torch.Tensor, correct_thresholds: torch.Tensor) -> dict[str, torch.Tensor]:
        """Count answers, wrong answers and answered strangers for each pair of K and C thresholds, (K, C) each."""
        known, strangers = self.columns
        # Products of 0 and 1, summed over people: how many reach both. Exact in float32 up to 2^24 people.
        kept = (known[:, 0] >= known_thresholds[:, None]).float()  # (K, N)
        sure = (known[:, 1] >= correct_thresholds[:, None]).float()  # (C, N)
        strange = (strangers[:, 0] >= known_thresholds[:, None]).float()  # (K, M)
        strange_sure = (strangers[:, 1] >= correct_thresholds[:, None]).float()  # (C, M)
        counts = {
            "answered": kept @ sure.T,
            "wrong": kept @ (sure * (known[:, 2] == 0.0)).T,
            "strangers_answered": strange @ strange_sure.T,
        }
        return {name: count.long() for name, count in counts.items()}

    def count(self, pairs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Count the same for given pairs of thresholds, (P, 2); (P,) each."""
        return {name: count.diagonal() for name, count in self.count_grid(pairs[:, 0], pairs[:, 1]).items()}

    def describe(self, pair: Sequence[float]) -> dict[str, int]:
        """Return the counts of one pair of thresholds, and how many people there are."""
        counts = self.count(torch.tensor([pair], dtype=torch.float64))
        found = {name: int(count) for name, count in counts.items()}
        return {"people": len(self.known), "strangers": len(self.strangers), **found}


@dataclass(frozen=True)
class RiskTarget:
    """What a pair of thresholds must guarantee; the defaults are those of a model's own certificate.

    Attributes:
        risk: largest fraction of wrong ones among the answers given to known people.
        confidence: probability, over draws of the certification people, that both bounds hold.
        stranger_rate: largest fraction of strangers who may get an answer; 1 where only known people are asked about.

    Raises:
        ValueError: a fraction that is not between 0 and 1.
    """

    risk: float = 0.1
    confidence: float = 0.95
    stranger_rate: float = 0.05

    def __post_init__(self):
        for name, fraction in vars(self).items():
            if not 0.0 < fraction < 1.0 and not (name == "stranger_rate" and fraction == 1.0):
                end = "above 0 and at most 1" if name == "stranger_rate" else "between 0 and 1"
                raise ValueError(f"{name} must be {end}, found {fraction}")

    def limits_strangers(self, scores: CalibrationScores) -> bool:
        """Return whether anything is to be guaranteed of strangers."""
        return self.stranger_rate < 1.0 and len(scores.strangers) > 0

    def log_p_values(self, scores: CalibrationScores, counts: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the log p-value of each pair's counts, (P,), under the hypothesis that a condition is broken."""
        found = binomial_log_cdf(counts["wrong"], counts["answered"], self.risk)
        if not self.limits_strangers(scores):
            return found
        answered = counts["strangers_answered"]
        trials = torch.full_like(answered, len(scores.strangers))
        # The weaker evidence decides, as both conditions must hold.
        return torch.maximum(found, binomial_log_cdf(answered, trials, self.stranger_rate))

    def refusal(self, scores: CalibrationScores, pair: Sequence[float]) -> str:
        """Explain why not even the pair with the most evidence can be certified."""
        found = scores.describe(pair)
        wanted = f"at most {format_percent(self.risk)} of the answers wrong"
        seen = f"{found['wrong']} of {found['answered']} answers were wrong"
        needed = f"{self.min_trials(self.risk)} answers"
        if self.limits_strangers(scores):
            wanted += f" and at most {format_percent(self.stranger_rate)} of strangers answered"
            seen += f" and {found['strangers_answered']} of {found['strangers']} strangers were answered"
            needed += f" and {self.min_trials(self.stranger_rate)} strangers"
        return (
            f"{found['people']} calibration people cannot certify thresholds with {wanted} at "
            f"{format_percent(self.confidence)} confidence: at the safest pair, {seen} (it takes at least {needed}, "
            "more with every failure)"
        )

    def min_trials(self, allowed: float) -> int:
        """Return how many trials without a failure show that a rate is not above what is allowed."""
        # No failure in n trials has the probability (1 - allowed)^n, which must be at most 1 - confidence.
        return math.ceil(math.log(1.0 - self.confidence) / math.log1p(-allowed))


MAX_THRESHOLDS = 100  # of each head that are combined into pairs: steps of 1 % of the people, or finer


def threshold_grid(values: torch.Tensor) -> torch.Tensor:
    """Return the thresholds to combine, (T,): 0 and the distinct values, or evenly spaced quantiles of many values."""
    distinct = values.unique()
    if len(distinct) > MAX_THRESHOLDS:
        places = torch.linspace(0, len(values) - 1, MAX_THRESHOLDS, dtype=torch.float32).round().long()
        distinct = values.sort().values[places].unique()
    return torch.cat([torch.zeros(1, dtype=values.dtype), distinct]).unique()


def pair_sequence(selection: CalibrationScores, target: RiskTarget) -> torch.Tensor:
    """Return the pairs of thresholds to test, (P, 2), in their order: from the most evidence to the most answers.

    It depends on the order of the scores alone, so a rising function of a head's scores changes no pair's meaning.
    """
    known, _ = selection.columns
    grids = threshold_grid(known[:, 0]), threshold_grid(known[:, 1])
    pairs = torch.cartesian_prod(*grids)
    counts = {name: count.flatten() for name, count in selection.count_grid(*grids).items()}
    answered = counts["answered"]
    # By p-value, ties by the most answers: two stable sorts, the secondary key first.
    order = answered.argsort(descending=True, stable=True)
    order = order[target.log_p_values(selection, counts)[order].argsort(stable=True)]
    # Keep only pairs that answer more than all before them: the others have neither more evidence nor more answers.
    most = answered[order].cummax(0).values
    is_more = torch.cat([torch.ones(1, dtype=torch.bool), most[1:] > most[:-1]])
    return pairs[order[is_more]]


def threshold_for(
    selection: CalibrationScores,
    certification: CalibrationScores,
    risk: float = RiskTarget.risk,
    confidence: float = RiskTarget.confidence,
    stranger_rate: float = RiskTarget.stranger_rate,
) -> Certificate:
    """Certify the pair of thresholds that answers most people and meets a target.

    Args:
        selection: people who decide which pairs are tested; the scores should not be fitted on them.
        certification: other people, used in no training and no fit. Without strangers nothing is guaranteed of them.
        risk, confidence, stranger_rate: what is wanted, as in `RiskTarget`.

    Raises:
        ValueError: as `RiskTarget`.
        CertificationError: the data cannot support it: too few people, or too many of the highest scores are wrong.
    """
    target = RiskTarget(risk, confidence, stranger_rate)
    pairs = pair_sequence(selection, target)
    counts = certification.count(pairs)
    passes = target.log_p_values(certification, counts) <= math.log(1.0 - confidence)
    passed = int(passes.long().cumprod(0).sum())  # before the first that fails
    if not passed:
        raise CertificationError(target.refusal(certification, pairs[0].tolist()))
    # All that passed are certified together, so any of them may be taken.
    known, correct = pairs[counts["answered"][:passed].argmax()].tolist()
    guaranteed = target.stranger_rate if target.limits_strangers(certification) else None
    found = certification.describe((known, correct))
    return Certificate(
        known, correct, target.risk, guaranteed, target.confidence, relation=None, calibration=None, **found
    )
