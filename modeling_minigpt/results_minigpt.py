"""What a pipeline returns for each text: the answer and its chances, or the reason why there is no answer."""

import math
from collections.abc import Sequence
from typing import Any

from .answers_minigpt import Answer
from .confidence_minigpt import Scores
from .relations_minigpt import Relation
from .risk_control_minigpt import Certificate


def format_chance(chance: float) -> str:
    """Write a chance as people say it: in whole percent, and never as a certainty that it is not."""
    if chance < 0.005:
        return "0 %" if chance == 0.0 else "less than 1 %"
    if chance >= 0.995:
        return "100 %" if chance == 1.0 else "more than 99 %"
    return f"{100 * chance:.0f} %"


def rescale_scores(ranked: list[Answer], score: float) -> list[dict]:
    """Return the candidates with the first one's score, and the others' in proportion, within what it leaves."""
    # Probabilities 0.6, 0.2, 0.1 and a score of 0.8: the others keep their ratio and share 1 - 0.8 as they shared
    # 1 - 0.6, so the factor is 0.2 / 0.4 and they get 0.1 and 0.05. A score below the probability does not raise them.
    first = ranked[0].probability
    factor = min(score / first, (1.0 - score) / (1.0 - first)) if 0.0 < first < 1.0 else 0.0
    scores = [score, *(answer.probability * factor for answer in ranked[1:])]
    return [{"answer": answer.text, "score": score} for answer, score in zip(ranked, scores, strict=True)]


def explain_abstention(scores: Scores, threshold: float | Certificate | str) -> tuple[str | None, str | None]:
    """Return which probability is too low, "known" or "correct", and the reason; both are None if none is too low.

    Args:
        threshold: what the score must reach; a certificate, whose thresholds each chance must reach; or a text that
            says why there is no certificate, so that no answer is given.
    """
    if isinstance(threshold, str):
        return None, threshold
    known, correct = scores.pair
    if isinstance(threshold, Certificate):
        is_known = known >= threshold.known_threshold
        if is_known and correct >= threshold.correct_threshold:
            return None, None
        wanted = threshold.correct_threshold
    else:
        if scores.score >= threshold:
            return None, None
        is_known = known >= correct  # the smaller one is what the score lacks most
        wanted = threshold
    if scores.known is None or scores.correct is None:
        return None, f"not sure enough: {scores.score:.3f}, the threshold is {wanted:.3f}"
    if is_known:
        known_of = "I know of this person" if scores.known >= 0.5 else "I may know of this person"
        return "correct", f"{known_of} but am not sure ({format_chance(scores.correct)})"
    chance = format_chance(scores.known)
    if scores.known < 0.5:
        return "known", f"I have probably never read about this person ({chance} that I have)"
    return "known", f"I have probably read about this person, but that is not sure enough ({chance})"


def answer_result(
    relation: Relation,
    name: str,
    matched_name: str | None,
    ranked: Sequence[Sequence],
    scores: Scores,
    calibrated: bool,
    threshold: float | Certificate | str,
    top_k: int,
) -> dict[str, Any]:
    """Return the result for a name that was asked about: its best answer, or none where that is not sure enough.

    Args:
        threshold: as `explain_abstention` takes it.
    """
    best = [Answer(*answer) for answer in ranked[:top_k]]  # the library makes plain tuples of them
    # NaN is neither a probability nor valid JSON.
    is_number = all(math.isfinite(value) for value in (*scores.pair, scores.score))
    failed = None
    if not is_number:
        scores = Scores(None, None, 0.0)
        reason: str | None = "the model computes something that is not a number"
    elif not best[0].text:
        reason = "the model answers with nothing"
    else:
        failed, reason = explain_abstention(scores, threshold)
    return {
        "question": relation.format(name),
        "answer": None if reason else best[0].text,
        **scores._asdict(),
        "abstained": reason is not None,
        "candidates": rescale_scores(best, scores.score) if is_number else [],
        "calibrated": calibrated,
        "reason": reason,
        "failed": failed,
        "relation": relation.name,
        "matched_name": matched_name,
    }


def refusal_result(text: Any, reason: str, calibrated: bool) -> dict[str, Any]:
    """Return the result for what cannot be asked."""
    return {
        "question": text,
        "answer": None,
        **Scores(None, None, 0.0)._asdict(),
        "abstained": True,
        "candidates": [],
        "calibrated": calibrated,
        "reason": reason,
        "failed": None,
        "relation": None,
        "matched_name": None,
    }


def describe_result(result: dict[str, Any]) -> str:
    """Return a result as people read it: the answer and its chance, or "I don't know", why, and the likeliest guess.

    `Rome (97 % that this is right)`
    `I don't know (5 % that I have read about this person; I would have guessed Rome)`
    """
    if not result["abstained"]:
        meaning = "that this is right" if result["calibrated"] else "by the model's uncalibrated probability"
        return f"{result['answer']} ({format_chance(result['score'])} {meaning})"
    parts = [result["reason"]]
    if result["failed"] is not None:
        parts = [f"{format_chance(result['known'])} that I have read about this person"]
        if result["failed"] == "correct":
            parts.append(f"{format_chance(result['correct'])} that I would be right")
    if result["candidates"] and result["candidates"][0]["answer"]:
        parts.append(f"I would have guessed {result['candidates'][0]['answer']}")
    return f"I don't know ({'; '.join(parts)})"
