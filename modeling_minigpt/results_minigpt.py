"""What a pipeline returns for each text: the answer and its score, or the reason why there is none."""

from collections.abc import Sequence
from typing import Any

from .answers_minigpt import Answer
from .relations_minigpt import Relation


def rescale_scores(ranked: list[Answer], score: float) -> list[dict]:
    """Return the candidates with the first one's score, and the others' in proportion, within what it leaves."""
    # Probabilities 0.6, 0.2, 0.1 and a score of 0.8: the others keep their ratio and share 1 - 0.8 as they shared
    # 1 - 0.6, so the factor is 0.2 / 0.4 and they get 0.1 and 0.05. A score below the probability does not raise them.
    first = ranked[0].probability
    factor = min(score / first, (1.0 - score) / (1.0 - first)) if 0.0 < first < 1.0 else 0.0
    scores = [score, *(answer.probability * factor for answer in ranked[1:])]
    return [{"answer": answer.text, "score": score} for answer, score in zip(ranked, scores, strict=True)]


def answer_result(
    relation: Relation,
    name: str,
    matched_name: str | None,
    ranked: Sequence[Sequence],
    score: float,
    calibrated: bool,
    threshold: float,
    top_k: int,
) -> dict[str, Any]:
    """Return the result for a name that was asked about: its best answer, or none where that is not sure enough."""
    best = [Answer(*answer) for answer in ranked[:top_k]]  # the library makes plain tuples of them
    reason = None
    if not best[0].text:
        reason = "the model answers with nothing"
    elif not score >= threshold:  # NaN is not sure either
        reason = f"not sure enough: {score:.3f}, the threshold is {threshold:.3f}"
    return {
        "question": relation.format(name),
        "answer": None if reason else best[0].text,
        "score": score,
        "abstained": reason is not None,
        "candidates": rescale_scores(best, score),
        "calibrated": calibrated,
        "reason": reason,
        "relation": relation.name,
        "matched_name": matched_name,
    }


def refusal_result(text: Any, reason: str, calibrated: bool) -> dict[str, Any]:
    """Return the result for what cannot be asked."""
    return {
        "question": text,
        "answer": None,
        "score": 0.0,
        "abstained": True,
        "candidates": [],
        "calibrated": calibrated,
        "reason": reason,
        "relation": None,
        "matched_name": None,
    }
