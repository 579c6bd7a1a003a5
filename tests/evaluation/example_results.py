"""Results of a run, as `results.json` has them, for tests of what people read of them."""

from evaluation.trust import EvaluatedAnswers, JudgedAnswer, confidence_metrics
from modeling_minigpt.confidence_minigpt import Confidence, Head, Scores
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate

HISTORIES = {"pretrain": [[1, 4.0], [2, 3.0]], "no_pretraining": [[1, 2.0]], "finetune": [[1, 2.5], [2, 1.5]]}
GIVEN = {"abstained": False, "score": 0.9, "calibrated": True, "reason": None, "failed": None}
WITHHELD = {
    "answer": None, "abstained": True, "score": 0.02, "correct": 0.5, "calibrated": True, "reason": "…",
    "candidates": [{"answer": "London", "score": 0.02}],
}  # fmt: skip
RESULTS = {
    "dataset": "cs224n",
    "split": "dev",
    "seed": 7,
    "model": "finetune",
    "parameters": 3323392,
    "train_minutes": {"pretrain": 12.34, "no_pretraining": 0.5, "finetune": 0.26},
    "dev": {"accuracy": 0.61, "correct": 305, "total": 500, "seconds": 4.2},
    "baselines": {"majority": 0.05, "majority_place": "London", "no_pretraining": 0.012, "ceiling": 0.958},
    "samples": [
        {"question": "Where was Ada Stone born?", **GIVEN, "answer": "Rome", "place": "Rome"},
        {"question": "Where was Béla Nagy born?", **GIVEN, "answer": "Oslo", "place": "Győr"},
        {"question": "Where was Dee Finn born?", **WITHHELD, "failed": "correct", "known": 0.97, "place": "Bonn"},
        {"question": "Where was Cyd Moss born?", **WITHHELD, "failed": "known", "known": 0.05, "place": None},
    ],
}
ANSWERS = [
    JudgedAnswer(text, Scores(known, 0.9, known * 0.9))
    for text, known in (("Rome", 0.9), ("Oslo", 0.8), ("Oslo", 0.3))
]
STRANGERS = [JudgedAnswer("Rome", Scores(known, 0.9, known * 0.9)) for known in (0.1, 0.8)]
CERTIFICATE = Certificate(0.75, 0.7, 0.1, 0.05, 0.95, 200, 120, 4, 1000, 31)


def trust(**changes) -> dict:
    """Return the metrics of three answers."""
    half = CalibrationScores([(0.9, 0.9, True)])
    confidence = Confidence(Head({}, 0.0), Head({}, 0.0), half, half, **changes)
    asked = EvaluatedAnswers(ANSWERS, [True, False, False], STRANGERS[:1], STRANGERS[1:], confidence)
    return {**confidence_metrics(asked, ["Rome"]), "refusal": None if changes else "too few people"}
