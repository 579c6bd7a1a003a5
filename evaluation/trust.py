"""Evaluate the confidence of a model: discrimination and calibration of both probabilities, with strangers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from evaluation.popularity import wilson_interval
from evaluation.trust_metrics import (
    augrc,
    aurc,
    auroc,
    balanced_weights,
    brier_score,
    coverage_at_precision,
    equal_mass_bins,
    expected_calibration_error,
)
from modeling_minigpt.confidence_minigpt import Confidence, Scores
from modeling_minigpt.results_minigpt import explain_abstention
from modeling_minigpt.risk_control_minigpt import Certificate, CertificationError

STRANGERS = 500  # made-up names that are asked for
RISKS = (0.05, 0.1, 0.2)
STRANGER_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)


class JudgedAnswer(NamedTuple):
    """A model's answer with its chances, whether the pipeline gives it or not."""

    text: str
    scores: Scores


@dataclass(frozen=True)
class EvaluatedAnswers:
    """A model's answers, with how sure it is of them.

    Attributes:
        known: to questions with known answers.
        right: which of these are right.
        made_up: about made-up people.
        withheld: about real people who were withheld from training.
        confidence: the calibration that the chances are of; None where scores are the model's own probabilities.
    """

    known: Sequence[JudgedAnswer]
    right: Sequence[bool]
    made_up: Sequence[JudgedAnswer] = ()
    withheld: Sequence[JudgedAnswer] = ()
    confidence: Confidence | None = None

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of the calibration."""
        return None if self.confidence is None else self.confidence.certificate

    @property
    def has_heads(self) -> bool:
        """Whether there are two chances; else one score stands in for both."""
        return self.confidence is not None and self.confidence.known is not None

    def chances(self, group: str, head: str) -> list[float]:
        """Return what a head says of a group, "known", "made_up" or "withheld".

        Args:
            head: "known", "correct" or "score".
        """
        values = [getattr(answer.scores, head) for answer in getattr(self, group)]
        return values if None not in values else [answer.scores.score for answer in getattr(self, group)]

    @cached_property
    def exists(self) -> tuple[list[float], list[bool]]:
        """The first head's chances of everybody, and who is known."""
        groups = {group: self.chances(group, "known") for group in ("known", "made_up", "withheld")}
        people = [chance for chances in groups.values() for chance in chances]
        return people, [index < len(self.known) for index in range(len(people))]


def fraction(flags: Sequence[bool]) -> float | None:
    """Return the share of true flags; None where there are none."""
    return sum(flags) / len(flags) if len(flags) else None


def is_answered(scores: Scores, certificate: Certificate) -> bool:
    """Return whether both chances reach a certificate's thresholds, as the pipeline decides it."""
    return explain_abstention(scores, certificate)[1] is None


def calibration_errors(asked: EvaluatedAnswers) -> dict[str, float | list[float] | None]:
    """Return each head's expected calibration error with its interval, and the Brier scores; None without two heads.

    Known people and strangers weigh the same, as they do in the first head's calibration.
    """
    found: dict[str, float | list[float] | None] = {}
    people, exists = asked.exists
    heads = {
        "known": (people, exists, balanced_weights(np.array(exists, dtype=bool))),
        "correct": (asked.chances("known", "correct"), asked.right, None),
    }
    for head, (chances, true, weights) in heads.items():
        can_be_said = asked.has_heads and (head == "correct" or not all(true))
        error, *interval = expected_calibration_error(chances, true, weights) if can_be_said else (None, None, None)
        found[f"ece_{head}"] = error
        found[f"ece_{head}_interval"] = interval if can_be_said else None
    found["brier"] = brier_score(asked.chances("known", "correct"), asked.right)
    return found


def reliability_bins(chances: np.ndarray, true: np.ndarray, weights: np.ndarray) -> dict[str, list]:
    """Return a reliability diagram's bins: "chance", "true", "questions" and "interval", the 95 % one of "true".

    Args:
        chances, true, weights: (N,); all true ones weigh the same, and so do all false ones.
    """
    means, shares, mass = equal_mass_bins(chances, true, weights)
    filled = mass > 0

    def sum_in_bins(values: np.ndarray) -> np.ndarray:
        # A mean over weights, times these, of values divided by them: the plain sum.
        return (equal_mass_bins(chances, values / weights, weights)[1] * mass * weights.sum())[filled].round()

    # Where true ones weigh w times as much as false ones, a share p of the answers is a share p w / (p w + 1 - p) of
    # the weight.
    odds = float(weights[true > 0].mean() / weights[true == 0].mean()) if 0 < true.sum() < len(true) else 1.0
    questions = sum_in_bins(np.ones(len(true))).astype(int).tolist()
    came_true = sum_in_bins(true).astype(int).tolist()
    intervals = [wilson_interval(count, total) for count, total in zip(came_true, questions, strict=True)]
    return {
        "chance": means[filled].tolist(),
        "true": shares[filled].tolist(),
        "questions": questions,
        "interval": [[p * odds / (p * odds + 1.0 - p) for p in interval] for interval in intervals],
    }


def reliability(asked: EvaluatedAnswers) -> dict[str, dict[str, list]]:
    """Return each head's reliability diagram, of `reliability_bins`.

    Without two heads there is one diagram, "correct", of the score.
    """
    people, exists = asked.exists
    right = np.array(asked.right, dtype=float)
    columns = {"correct": (asked.chances("known", "correct"), right, np.ones(len(right)))}
    if asked.has_heads and not all(exists):
        columns["known"] = (people, np.array(exists, dtype=float), balanced_weights(np.array(exists, dtype=bool)))
    return {
        head: reliability_bins(np.array(chances), true, weights) for head, (chances, true, weights) in columns.items()
    }


def trade(confidence: Confidence) -> list[dict]:
    """Return what can be certified for each risk and share of strangers: `{"risk", "stranger_rate", "answered"}`.

    "answered" is the share of the certification half's people who get an answer, None where nothing is certified.
    """
    rows = []
    for risk in RISKS:
        for stranger_rate in STRANGER_RATES:
            try:
                certificate = confidence.threshold_for(risk, stranger_rate=stranger_rate)
                answered: float | None = certificate.answered / certificate.people
            except CertificationError:
                answered = None
            rows.append({"risk": risk, "stranger_rate": stranger_rate, "answered": answered})
    return rows


def confidence_metrics(asked: EvaluatedAnswers, popular: Sequence[str]) -> dict:
    """Return the metrics of a model's confidence.

    Metrics that need thresholds are None if the model has none; those that need strangers are None if there are none.
    Right answers are ranked against wrong ones by the second head, known people against strangers by the first.

    Args:
        asked: the answers, also those below the thresholds.
        popular: the most popular answers, those that a model without knowledge falls back to.
    """
    correct = asked.chances("known", "correct")
    scores = asked.chances("known", "score")
    right = asked.right
    certificate = asked.certificate
    given: dict[str, list[bool]] = {}
    if certificate is not None:
        for group in ("known", "made_up", "withheld"):
            given[group] = [is_answered(answer.scores, certificate) for answer in getattr(asked, group)]
    answers = zip(given.get("known", ()), right, strict=certificate is not None)
    sides = {
        flag: [score for score, is_right in zip(correct, right, strict=True) if is_right == flag]
        for flag in (True, False)
    }
    known = asked.chances("known", "known")
    return {
        "calibrated": asked.confidence is not None,
        "accuracy": fraction(right),
        "auroc_correct": auroc(sides[True], sides[False]),
        "auroc_made_up": auroc(known, asked.chances("made_up", "known")),
        "auroc_withheld": auroc(known, asked.chances("withheld", "known")),
        "aurc": aurc(scores, right),
        "augrc": augrc(scores, right),
        "coverage_at_precision_90": coverage_at_precision(scores, right, 0.9),
        "coverage_at_precision_80": coverage_at_precision(scores, right, 0.8),
        **calibration_errors(asked),
        "made_up": len(asked.made_up),
        "withheld": len(asked.withheld),
        "threshold_known": None if certificate is None else certificate.known_threshold,
        "threshold_correct": None if certificate is None else certificate.correct_threshold,
        "certificate": None if certificate is None else asdict(certificate),
        "answered": fraction(given.get("known", ())),
        "answered_right": fraction([is_right for is_given, is_right in answers if is_given]),
        "made_up_answered": fraction(given.get("made_up", ())),
        "withheld_answered": fraction(given.get("withheld", ())),
        "popular_share_on_strangers": fraction([one.text in popular for one in (*asked.made_up, *asked.withheld)]),
        "reliability": reliability(asked),
        "trade": [] if asked.confidence is None else trade(asked.confidence),
    }
