"""What `confidence_signals` compares: measures of an answer, of a name's states, and heads fitted on other people."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.calibration import BATCH, fit_logistic
from evaluation.trust_metrics import auroc, coverage_at_precision
from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt.answers_minigpt import encode_prompts
from modeling_minigpt.features_minigpt import answer_features

FOLDS = 5
RARE = 1e-4  # a probability below this counts as this
RIDGE = 1e-3  # added to the covariance of states, as a share of its mean variance


def margin(answer: str, candidates: dict[str, float]) -> float:
    """Return how much more probable an answer is than the next candidate, in nats."""
    rest = max((share for place, share in candidates.items() if place != answer), default=0.0)
    return float(np.log(candidates[answer] + RARE) - np.log(rest + RARE))


@torch.inference_mode()
def name_states(pipeline: ClosedBookPipeline, names: list[str]) -> np.ndarray:
    """Return the last layer's hidden state at the last token of each name in its question, (N, C)."""
    states = [np.zeros((0, pipeline.model.config.hidden_size))]
    relation = pipeline.find_facts().relation
    after = len(pipeline.tokenizer(relation.templates[0].suffix + pipeline.tokenizer.mask_token)["input_ids"])
    for first in range(0, len(names), BATCH):
        questions = [relation.format(name) for name in names[first : first + BATCH]]
        batch = encode_prompts(pipeline.tokenizer, questions, pipeline.model.device)
        outputs = pipeline.model(**batch, output_hidden_states=True)
        states.append(outputs.hidden_states[-1][:, -1 - after].cpu().double().numpy())
    return np.concatenate(states)


def mean_probability(
    ways: Sequence[tuple[ClosedBookPipeline, str]], names: Sequence[str], answers: Sequence[str]
) -> np.ndarray:
    """Return the mean probability of each name's answer, (N,), over ways to ask: pipelines with their templates."""
    total = np.zeros(len(names))
    for pipeline, template in ways:
        for first in range(0, len(names), BATCH):
            some = slice(first, first + BATCH)
            prompts = [template.replace("{name}", name) for name in names[some]]
            said = answer_features(pipeline.model, pipeline.tokenizer, prompts, answers[some])["answer"]
            total[some] += said.cpu().double().exp().numpy()
    return total / len(ways)


def typicality(states: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return minus the Mahalanobis distance of states (N, C) from the mean of known ones, (N,).

    Lee et al. 2018 (arXiv 1807.03888), section 2.1, with one class.
    """
    centered = known - known.mean(0)
    covariance = centered.T @ centered / max(1, len(known) - 1)
    covariance += RIDGE * max(np.trace(covariance), 1e-12) / len(covariance) * np.eye(len(covariance))
    away = states - known.mean(0)
    return -np.sqrt(np.einsum("nc,nc->n", away, np.linalg.solve(covariance, away.T).T))


def cross_validate(fit, known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of known people and strangers, each by `fit(known, right, strangers)` on the other folds."""
    scores = [np.zeros(len(known)), np.zeros(len(strangers))]
    splits = [KFold(FOLDS, shuffle=True, random_state=0).split(part) for part in (known, strangers)]
    for (train, test), (stranger_train, stranger_test) in zip(*splits, strict=True):
        score = fit(known[train], right[train], strangers[stranger_train])
        scores[0][test] = score(known[test])
        scores[1][stranger_test] = score(strangers[stranger_test])
    return scores[0], scores[1]


def fit_known(known: np.ndarray, right: np.ndarray, strangers: np.ndarray):
    """Fit the first head: who is known?"""
    exists = np.repeat([True, False], [len(known), len(strangers)])
    weights, bias = fit_logistic(np.concatenate([known, strangers]), exists, balanced=True)
    return lambda signals: signals @ weights + bias


def fit_correct(known: np.ndarray, right: np.ndarray, strangers: np.ndarray):
    """Fit the second head: which answers about known people are right?"""
    if right.all() or not right.any():
        return lambda signals: np.zeros(len(signals))
    weights, bias = fit_logistic(known, right)
    return lambda signals: signals @ weights + bias


def fit_probe(known: np.ndarray, right: np.ndarray, strangers: np.ndarray):
    """Fit a logistic probe of hidden states that separates known people from strangers."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=2000))
    model.fit(np.concatenate([known, strangers]), [True] * len(known) + [False] * len(strangers))
    return model.decision_function


def judge(known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> dict[str, float]:
    """Return a signal's metrics; it may have any scale."""
    ranks = np.unique(np.concatenate([known, strangers]), return_inverse=True)[1]
    ranks = ranks / max(1, ranks.max())
    known, strangers = ranks[: len(known)], ranks[len(known) :]
    sure = known > np.quantile(strangers, 0.95)
    return {
        "auroc_correct": auroc(known[right], known[~right]),
        "auroc_made_up": auroc(known, strangers),
        "coverage_at_precision_90": coverage_at_precision(known, right, 0.9),
        "coverage_at_5_percent_of_strangers": float(sure.mean()),
    }
