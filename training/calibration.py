"""Calibrate a finished model's confidence on people who were held out of its training, and certify a threshold.

The calibration people and made-up ones are dealt into two halves. The first fits the weights of the signals and picks
the threshold. The second certifies it, and fits the last step, which makes a probability of the weighted sum (Platt
1999) and so leaves the order of the answers, and what was picked, as they were.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_scripts.bios_folder import name_in
from modeling_minigpt.confidence_minigpt import SIGNALS, Confidence, find_signals
from modeling_minigpt.guarantee_minigpt import GuaranteeError, Scored
from modeling_minigpt.pipeline_minigpt import BirthplacePipeline
from training.data import Pairs

STRANGER_WEIGHT = 2.0  # of all strangers together in the fit, beside 1 of all known people
BATCH = 64  # people measured together


class CalibrationError(ValueError):
    """Too little to calibrate on; the message says what."""


def measure(pipeline: BirthplacePipeline, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the pipeline's best answer for each name, and its signals, (N, signals) in the order of `SIGNALS`."""
    answers, signals = [], [np.zeros((0, len(SIGNALS)))]
    for first in range(0, len(names), BATCH):
        some = names[first : first + BATCH]
        ranked = pipeline.rank(some)
        signals.append(find_signals(pipeline.model, pipeline.tokenizer, some, ranked).numpy())
        answers += [candidates[0].text for candidates in ranked]
    return answers, np.concatenate(signals)


def fit_order(known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights of the signals and a bias that part right answers from wrong ones and from strangers' answers.

    Args:
        known, strangers: signals, (N, S) and (M, S).
        right: which of the known people's answers are right, (N,).
    """
    features = np.concatenate([known, strangers])
    target = np.concatenate([right, np.zeros(len(strangers), dtype=bool)])
    weight = np.concatenate(
        [np.ones(len(known)), np.full(len(strangers), STRANGER_WEIGHT * len(known) / len(strangers))]
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features, target, logisticregression__sample_weight=weight)
    scaler, logistic = model[0], model[1]
    weights = logistic.coef_[0] / scaler.scale_
    return weights, float(logistic.intercept_[0] - weights @ scaler.mean_)


def calibrate(pipeline: BirthplacePipeline, pairs: Pairs, strangers: Sequence[str], seed: int = 0) -> Confidence:
    """Return a confidence for the pipeline's answers.

    Args:
        pairs: questions, with their places, about people who are in documents but in no training question.
        strangers: names of people of whom the model was told nothing.
        seed: names the draw of the halves.

    Raises:
        CalibrationError: a half has no right or no wrong answers, or there are no strangers.
    """
    answers, known = measure(pipeline, [name_in(question) for question, _ in pairs])
    right = np.array([answer == place.strip() for answer, (_, place) in zip(answers, pairs, strict=True)], dtype=bool)
    _, strange = measure(pipeline, strangers)
    halves = [deal(len(pairs), seed), deal(len(strangers), seed)]
    fitting, fitting_strangers = halves[0][0], halves[1][0]
    for wanted, count in (
        ("right answers", right[fitting].sum()),
        ("wrong answers", (~right[fitting]).sum()),
        ("strangers", len(fitting_strangers)),
    ):
        if count < 2:
            raise CalibrationError(f"{count} {wanted} to {len(fitting)} people to calibrate on, wanted 2 at least")
    weights, bias = fit_order(known[fitting], right[fitting], strange[fitting_strangers])
    rest = halves[0][1]
    if right[rest].all() or not right[rest].any():
        raise CalibrationError(f"all answers to {len(rest)} people are alike, right or wrong")
    platt = LogisticRegression(C=1e4).fit((known[rest] @ weights + bias)[:, None], right[rest])
    slope, shift = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0.0:
        raise CalibrationError("surer answers were wrong more often; there is nothing to calibrate")
    weights, bias = slope * weights, slope * bias + shift
    confidence = Confidence(dict(zip(SIGNALS, weights.tolist(), strict=True)), bias, Scored([]), Scored([]))
    scores, strange_scores = (
        [round(score, 6) for score in confidence.probabilities(torch.from_numpy(part)).tolist()]
        for part in (known, strange)
    )
    picking, certifying = (
        Scored([(scores[index], bool(right[index])) for index in of_known], [strange_scores[i] for i in of_strangers])
        for of_known, of_strangers in zip(*halves, strict=True)
    )
    confidence = replace(confidence, picking=picking, certifying=certifying)
    try:
        return replace(confidence, certificate=confidence.threshold_for())
    except GuaranteeError as error:
        return replace(confidence, refusal=str(error))


def deal(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers below `count` in two halves, drawn."""
    drawn = random.Random(f"halves {seed}").sample(range(count), count)
    return drawn[: count // 2], drawn[count // 2 :]
