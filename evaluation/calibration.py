"""Calibrate a finished model's two chances on people who were held out of its training, and certify thresholds.

Each relation is calibrated by itself: a model may know where people were born, and guess where they studied.

The calibration people and the strangers, made-up ones and a quarter of the withheld, are each split into two halves:

    fitting        fits both heads: `known` on these people against strangers, `correct` on the right answers about
                   these people against the wrong ones. The heads would overrate themselves here, so this half is
                   scored by cross-fitting: each fold by heads fitted on the other four. Those scores choose the pairs
                   of thresholds to test.
    certification  tests them, with the heads of the fitting half.

Last, Platt scaling (Platt 1999) turns each head's logits into probabilities. It is fitted on the scores of both
halves, none of which is by a head that was fitted on that person. It does not change their order, nor what is tested.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from configuration.errors import UserError
from data_scripts.person_splits import hash_number
from data_scripts.questions import Question
from evaluation.answers import exact_matches
from evaluation.processes import cut_batches, map_batches
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import confidence_features, feature_names, prompt_templates
from modeling_minigpt.pipeline_minigpt import ClosedBookPipeline
from modeling_minigpt.questions_minigpt import normalise
from modeling_minigpt.relations_minigpt import Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, CertificationError

BATCH = 64  # people measured together
MIN_OF_EACH = 2  # right answers, and strangers, without which nothing can be fitted
MIN_WRONG = 5  # wrong answers, without which nothing shows how they differ from right ones
MIN_FOR_SLOPE = 5  # right answers, and wrong ones; with fewer, a fitted slope would be noise
FOLDS = 5
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # C of the logistic models, chosen by cross-validation
CALIBRATION_QUARTER = 4  # one in this many of the withheld people is a stranger to calibrate on


class CalibrationError(UserError, ValueError):
    """Too little to calibrate on; the message says what."""


def head_features(relation: Relation) -> dict[str, list[str]]:
    """Return the names of the features that each head uses, any of `feature_names`."""
    # There are only some dozens of wrong answers to fit `correct` on, so fewer features generalise better. On the
    # calibration people of cs224n the answer's probabilities after the question and after the first prompt had an
    # AUROC of 0.880, all features 0.860 (cross-validation, three models).
    asking_most = list(prompt_templates(relation))[:2]
    return {"known": feature_names(relation), "correct": [f"{label}: answer" for label in asking_most]}


def split_withheld(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Return the withheld people to calibrate on, a quarter by the hash of the name, and those to evaluate on."""
    is_first = [hash_number(f"calibration {question.name}") % CALIBRATION_QUARTER == 0 for question in questions]
    pairs = list(zip(questions, is_first, strict=True))
    return [question for question, first in pairs if first], [question for question, first in pairs if not first]


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


def fit_logistic(features: np.ndarray, target: np.ndarray, balanced: bool = False) -> tuple[np.ndarray, float]:
    """Fit a logistic regression; return its weights, (F,), and its bias.

    The penalty is chosen by cross-validation if each class has at least `FOLDS` rows, else it is the strongest.

    Args:
        features: (N, F).
        target: the boolean labels, (N,).
        balanced: whether both classes have the same total weight.
    """
    # sklearn takes a second to import, so a run that only trains does not import it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    model = LogisticRegression(C=PENALTIES[0], max_iter=1000, class_weight="balanced" if balanced else None)
    if min(target.sum(), (~target).sum()) >= FOLDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        # With balanced classes the probabilities are not those of the data, so only the order is scored.
        search = GridSearchCV(model, {"C": PENALTIES}, scoring="roc_auc" if balanced else "neg_log_loss", cv=folds)
        model = search.fit(scaled, target).best_estimator_
    else:
        model.fit(scaled, target)
    weights = model.coef_[0] / scaler.scale_
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)


def cross_fit(features: np.ndarray, target: np.ndarray, balanced: bool = False) -> np.ndarray:
    """Return each row's logit, (N,), under a logistic regression fitted on the other folds."""
    scores = np.zeros(len(features))
    # Stratified: the positives, then the negatives, are dealt out to the folds in turn.
    order = np.argsort(~target, kind="stable")
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = np.setdiff1d(order, test)
        if target[train].all() or not target[train].any():
            continue  # nothing to separate: 0 for all
        weights, bias = fit_logistic(features[train], target[train], balanced)
        scores[test] = features[test] @ weights + bias
    return scores


def fit_platt(scores: np.ndarray, right: np.ndarray, balanced: bool = False) -> tuple[float, float]:
    """Return slope and shift under which the logistic function of a score is the chance to be right.

    The targets are Platt's (1999, section 2.2), a little inside 0 and 1, so that a few sure answers do not become
    certainties. Where nearly all answers are right, or wrong, nothing shows how the chance rises with the score: the
    slope stays 1, and the shift makes the mean chance that of the targets.

    Args:
        balanced: whether right ones and others weigh the same, as if they were equally frequent.
    """
    from sklearn.linear_model import LogisticRegression

    hits = right.sum()
    misses = (~right).sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    if min(hits, misses) < MIN_FOR_SLOPE:
        return 1.0, find_shift(scores, 0.5 if balanced else float(target.mean()))
    share = np.where(right, 0.5 / hits, 0.5 / misses) * len(right) if balanced else np.ones(len(right))
    model = LogisticRegression(C=1e4)
    labels = np.repeat([True, False], len(scores))
    model.fit(
        np.tile(scores, 2)[:, None], labels, sample_weight=np.concatenate([target * share, (1 - target) * share])
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def find_shift(scores: np.ndarray, mean: float) -> float:
    """Return what must be added to scores for the mean of their logistic function to be `mean`, by bisection."""
    logit = math.log(mean / (1.0 - mean))
    # The shifts if all scores were the highest one, or the lowest one; the solution is between them.
    low = logit - float(scores.max())
    high = logit - float(scores.min())
    for _ in range(60):
        middle = (low + high) / 2
        is_low = torch.from_numpy(scores + middle).sigmoid().mean().item() < mean
        low, high = (middle, high) if is_low else (low, middle)
    return (low + high) / 2


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return the logistic function of scores."""
    return torch.from_numpy(scores).sigmoid().numpy()


def fit_head(
    names: Sequence[str],
    fitting: tuple[np.ndarray, np.ndarray],
    rest: tuple[np.ndarray, np.ndarray],
    balanced: bool = False,
) -> tuple[Head, np.ndarray, np.ndarray]:
    """Fit a head; return it with its probabilities on the fitting rows, by cross-fitting, (N,), and on the rest, (M,).

    Args:
        names: of the features.
        fitting, rest: features, (N, F) and (M, F), with their boolean labels, (N,) and (M,). The rest is only used in
            Platt scaling.
        balanced: whether both classes have the same total weight.

    Raises:
        CalibrationError: the higher scores were wrong more often.
    """
    features, target = fitting
    sums = cross_fit(features, target, balanced) if (~target).sum() >= MIN_WRONG else np.zeros(len(target))
    every = np.concatenate([target, rest[1]])
    # With too few wrong answers, or if the order fails on held-out folds, everybody gets the same probability.
    if not sums.any() or sums[target].mean() <= sums[~target].mean():
        chance = 0.5 if balanced else (every.sum() + 1) / (len(every) + 2)
        head = Head({}, math.log(chance / (1.0 - chance)))
        own = head.probabilities(torch.from_numpy(features), names).numpy()
    else:
        weights, bias = fit_logistic(features, target, balanced)
        sums = np.concatenate([sums, rest[0] @ weights + bias])
        slope, shift = fit_platt(sums, every, balanced)
        if slope <= 0.0:
            raise CalibrationError("the surer answers were wrong more often, so nothing can be calibrated")
        own = sigmoid(slope * sums[: len(target)] + shift)
        head = Head(dict(zip(names, (slope * weights).tolist(), strict=True)), slope * bias + shift)
    # Scores of people who ask are compared with these, so the head itself computes them: alike to the last bit.
    return head, own, head.probabilities(torch.from_numpy(rest[0]), names).numpy()


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
        CalibrationError: the fitting half has no two right answers or strangers, a feature is not a number, or the
            surer answers were wrong more often.
    """
    asked = {question.name: question for question in questions}
    names = readable(pipeline, list(asked), relation)
    strangers = unknown_names(pipeline, readable(pipeline, strangers, relation))
    answers, known = measure(pipeline, names, relation, shared)
    right = np.array(exact_matches(answers, [asked[name] for name in names]), dtype=bool)
    _, strange = measure(pipeline, strangers, relation, shared)
    what = pipeline.find_facts(relation).relation
    check_finite(known, what)
    check_finite(strange, what)
    halves = list(zip(split_halves(len(names), seed), split_halves(len(strangers), seed), strict=True))
    check_enough(right[halves[0][0]], len(halves[0][1]))
    return certify(fit_heads(what, known, right, strange, halves))


def fit_heads(
    relation: Relation, known: np.ndarray, right: np.ndarray, strange: np.ndarray, halves: Sequence[tuple]
) -> Confidence:
    """Return a confidence without a certificate.

    Args:
        relation: what was asked for.
        known, strange: features of known people and of strangers, (N, F) and (M, F).
        right: which answers about the known people are right, (N,).
        halves: the numbers of the known people and of the strangers in the fitting and in the certification half.
    """
    columns = feature_names(relation)
    chosen = head_features(relation)
    at = {head: [columns.index(name) for name in names] for head, names in chosen.items()}
    exists = [np.repeat([True, False], [len(people), len(others)]) for people, others in halves]
    everybody = [np.concatenate([known[people], strange[others]])[:, at["known"]] for people, others in halves]
    parts = list(zip(everybody, exists, strict=True))
    known_head, *known_chances = fit_head(chosen["known"], parts[0], parts[1], balanced=True)
    parts = [(known[people][:, at["correct"]], right[people]) for people, _ in halves]
    correct_head, *correct_chances = fit_head(chosen["correct"], parts[0], parts[1])
    scores = []
    for (people, others), sure_known, sure_correct in zip(halves, known_chances, correct_chances, strict=True):
        # The second head was fitted on no strangers, so they need no cross-fitting.
        features = torch.from_numpy(strange[others])
        strange_correct = correct_head.probabilities(features, columns).tolist()
        own, others_known = sure_known[: len(people)].tolist(), sure_known[len(people) :].tolist()
        rows = list(zip(own, sure_correct.tolist(), right[people].tolist(), strict=True))
        scores.append(CalibrationScores(rows, list(zip(others_known, strange_correct, strict=True))))
    return Confidence(known_head, correct_head, *scores)


def check_finite(features: np.ndarray, relation: Relation) -> None:
    """Raise CalibrationError where a feature, (N, F), of anybody is not a number."""
    broken = ~np.isfinite(features)
    if broken.any():
        name = feature_names(relation)[int(broken.any(0).argmax())]
        raise CalibrationError(
            f"the feature {name!r} of {int(broken.any(1).sum())} of {len(features)} people is not a finite number"
        )


def check_enough(right: np.ndarray, strangers: int) -> None:
    """Raise CalibrationError if the fitting half has too few right answers or strangers.

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
    """Return the names that the pipeline would not replace by another spelling, from the training texts."""
    return [name for name in names if pipeline.names.match(normalise(name)) is None]


def split_halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers below `count`, shuffled, as two halves."""
    shuffled = random.Random(f"halves {seed}").sample(range(count), count)
    return shuffled[: count // 2], shuffled[count // 2 :]
