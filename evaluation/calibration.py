"""Calibrate a finished model's confidence on people who were held out of its training, and certify a threshold.

Each relation is calibrated by itself: a model may know where people were born, and guess where they studied.

The calibration people and the made-up ones are each split into two halves. The first fits the weights of the signals
and picks the threshold. The second certifies it, and fits the last step, which turns the weighted sum into a
probability (Platt 1999): the order of the answers, and so what was picked, stays as it was.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from configuration.errors import UserError
from data_scripts.questions import Question
from evaluation.answers import exact_matches
from evaluation.processes import cut_batches, map_batches
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_minigpt import Confidence, confidence_features, feature_names
from modeling_minigpt.pipeline_minigpt import ClosedBookPipeline
from modeling_minigpt.questions_minigpt import normalise
from modeling_minigpt.risk_control_minigpt import CalibrationScores, CertificationError

STRANGER_WEIGHT = 2.0  # of all strangers together in the fit, beside 1 of all known people
BATCH = 64  # people measured together
MIN_OF_EACH = 2  # right answers, and strangers, without which nothing can be fitted
MIN_FOR_SLOPE = 5  # right answers, and wrong ones; fewer are where they are by chance


class CalibrationError(UserError, ValueError):
    """Too little to calibrate on; the message says what."""


def rank_and_measure(
    pipeline: ClosedBookPipeline, names: Sequence[str], relation: str | None = None, shared: bool = False
) -> tuple[list[list[Answer]], np.ndarray]:
    """Return the ranked answers for each name, and the best one's features, (N, F) in the order of `feature_names`.

    Args:
        relation: the name of what is asked for; the pipeline's first when None.
        shared: whether every process of a run calls this with the same arguments; each then does a part of the work.
    """
    asked = pipeline.find_facts(relation).relation

    def measure_batch(batch: Sequence[str]) -> tuple[list[list[Answer]], np.ndarray]:
        found = pipeline.rank(batch, relation=asked.name)
        return found, confidence_features(pipeline.model, pipeline.tokenizer, batch, found, asked).numpy()

    measured = map_batches(measure_batch, cut_batches(names, BATCH), shared)
    ranked = [answers for found, _ in measured for answers in found]
    return ranked, np.concatenate([np.zeros((0, len(feature_names(asked)))), *(signals for _, signals in measured)])


def measure(
    pipeline: ClosedBookPipeline, names: Sequence[str], relation: str | None = None, shared: bool = False
) -> tuple[list[str], np.ndarray]:
    """Return the pipeline's best answer for each name, and its signals; the arguments are `rank_and_measure`'s."""
    ranked, signals = rank_and_measure(pipeline, names, relation, shared)
    return [candidates[0].text for candidates in ranked], signals


def fit_ranker(known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights of the signals and a bias that separate right answers from wrong ones, if any, and strangers'.

    Args:
        known, strangers: signals, (N, S) and (M, S).
        right: which of the known people's answers are right, (N,).
    """
    from sklearn.linear_model import LogisticRegression  # loads for a second: not where only a model is trained
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([known, strangers])
    target = np.concatenate([right, np.zeros(len(strangers), dtype=bool)])
    weight = np.concatenate(
        [np.ones(len(known)), np.full(len(strangers), STRANGER_WEIGHT * len(known) / len(strangers))]
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features, target, logisticregression__sample_weight=weight)
    scaler, logistic = model
    weights = logistic.coef_[0] / scaler.scale_
    return weights, float(logistic.intercept_[0] - weights @ scaler.mean_)


def fit_platt(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return slope and shift under which the logistic function of a score is the chance to be right.

    The targets are Platt's (1999, section 2.2), a little inside 0 and 1, so that a few sure answers do not become
    certainties. Where nearly all answers are right, or wrong, nothing shows how the chance rises with the score: the
    slope stays 1, and the shift makes the mean chance that of the targets.
    """
    from sklearn.linear_model import LogisticRegression

    hits = right.sum()
    misses = (~right).sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    if min(hits, misses) < MIN_FOR_SLOPE:
        return 1.0, find_shift(scores, float(target.mean()))
    model = LogisticRegression(C=1e4)
    labels = np.repeat([True, False], len(scores))
    model.fit(np.tile(scores, 2)[:, None], labels, sample_weight=np.concatenate([target, 1 - target]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def find_shift(scores: np.ndarray, mean: float) -> float:
    """Return what must be added to scores for the mean of their logistic function to be `mean`, by bisection."""
    logit = math.log(mean / (1.0 - mean))
    # Were all scores the highest or the lowest one, this would be it; the truth lies between.
    low = logit - float(scores.max())
    high = logit - float(scores.min())
    for _ in range(60):
        middle = (low + high) / 2
        is_low = torch.from_numpy(scores + middle).sigmoid().mean().item() < mean
        low, high = (middle, high) if is_low else (low, middle)
    return (low + high) / 2


def calibrate(
    pipeline: ClosedBookPipeline,
    questions: Sequence[Question],
    strangers: Sequence[str],
    seed: int = 0,
    relation: str | None = None,
    shared: bool = False,
) -> Confidence:
    """Return a confidence for the pipeline's answers to the questions of one relation.

    Args:
        questions: of that relation, about people who are in documents but in no training question; names that the
            pipeline cannot read, and so does not answer, are left out.
        strangers: names of people in no text that the model has read.
        seed: which halves; the same seed gives the same ones.
        relation: its name; the pipeline's first when None.
        shared: whether every process of a run calls this with the same arguments; each then does a part of the work.

    Raises:
        CalibrationError: the first half has no two right answers or strangers, or the surer answers were wrong more
            often in the second.
    """
    asked = {question.name: question for question in questions}
    names = readable(pipeline, list(asked), relation)
    strangers = unknown_names(pipeline, readable(pipeline, strangers, relation))
    answers, known = measure(pipeline, names, relation, shared)
    right = np.array(exact_matches(answers, [asked[name] for name in names]), dtype=bool)
    _, strange = measure(pipeline, strangers, relation, shared)
    fitting, rest = split_halves(len(names), seed)
    fitting_strangers, rest_strangers = split_halves(len(strangers), seed)
    check_enough(right[fitting], len(fitting_strangers))
    weights, bias = fit_ranker(known[fitting], right[fitting], strange[fitting_strangers])
    slope, shift = fit_platt(known[rest] @ weights + bias, right[rest])
    if slope <= 0.0:
        raise CalibrationError("the surer answers were wrong more often, so nothing can be calibrated")
    weights = slope * weights
    bias = slope * bias + shift
    what = pipeline.find_facts(relation).relation
    weights = dict(zip(feature_names(what), weights.tolist(), strict=True))
    confidence = Confidence(weights, bias, CalibrationScores([]), CalibrationScores([]))
    scores = confidence.probabilities(torch.from_numpy(known), what).tolist()
    strange_scores = confidence.probabilities(torch.from_numpy(strange), what).tolist()
    selection, certification = (
        CalibrationScores(
            [(scores[index], bool(right[index])) for index in of_known], [strange_scores[i] for i in of_strangers]
        )
        for of_known, of_strangers in ((fitting, fitting_strangers), (rest, rest_strangers))
    )
    return certify(replace(confidence, selection=selection, certification=certification))


def check_enough(right: np.ndarray, strangers: int) -> None:
    """Raise CalibrationError where one half of the people is too little to fit anything.

    Args:
        right: which of that half's answers are right, (N,).
        strangers: how many strangers are in that half.
    """
    # No wrong answers are needed: what a model that knows everybody must learn is who is a stranger.
    counts = {"right answers": right.sum(), "strangers": strangers}
    if lacking := [what for what, count in counts.items() if count < MIN_OF_EACH]:
        found = ", ".join(f"{count} {what}" for what, count in counts.items())
        raise CalibrationError(
            f"too few {lacking[0]} to calibrate on: {found} among {len(right)} people, one half, wanted "
            f"{MIN_OF_EACH} of each"
        )


def certify(confidence: Confidence) -> Confidence:
    """Return a confidence with the certificate that its calibration people support, or the reason why they do not."""
    try:
        return replace(confidence, certificate=confidence.threshold_for())
    except CertificationError as error:
        return replace(confidence, refusal=str(error))


def readable(pipeline: ClosedBookPipeline, names: Sequence[str], relation: str | None = None) -> list[str]:
    """Return the names that the pipeline can read, among all that may be asked under a relation."""
    reasons = pipeline.preprocess(names, relation)["reasons"]
    return [name for name, reason in zip(names, reasons, strict=True) if reason is None]


def unknown_names(pipeline: ClosedBookPipeline, names: Sequence[str]) -> list[str]:
    """Return the names that are no other spelling of a name of training, under which the pipeline would ask."""
    return [name for name in names if pipeline.names.match(normalise(name)) is None]


def split_halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers below `count`, shuffled, as two halves."""
    shuffled = random.Random(f"halves {seed}").sample(range(count), count)
    return shuffled[: count // 2], shuffled[count // 2 :]
