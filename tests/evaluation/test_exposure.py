"""How often training showed what is asked for, and what comes of that."""

import pytest

from data_scripts.questions import question_about
from evaluation.exposure import count_exposures, exposure_rows
from modeling_minigpt.answers_minigpt import Answer

QUESTIONS = [question_about("Ada Stone", "Rome"), question_about("Bo Nagy", "Oslo")]
DOCUMENTS = [
    "Ada Stone. Born in Rome .",
    "Ada Stone. She met Cyd Moss .",
    "Cyd Moss. Moss left Rome .",
    "Eva. From Oslo, Romeo .",
]
TRAIN = [question_about("Dee Finn", "Rome"), question_about("Eva Lund", "Romeo")]


def test_exposures_count_documents_and_training_answers():
    assert count_exposures(QUESTIONS, DOCUMENTS, TRAIN) == {"person": [2, 0], "place": [3, 1], "both": [1, 0]}


def test_rows_hold_each_model_s_accuracy_and_confidence():
    counts = {"person": [0, 1, 1, 40], "place": [3, 2, 5, 15]}
    answers = [Answer("Rome", score) for score in (0.2, 0.4, 0.6, 1.0)]
    models = {"pretrained": (answers, [False, True, False, True]), "none": (answers, [False] * 4)}
    rows = exposure_rows(counts, models)
    assert [(row["seen"], row["times"], row["questions"]) for row in rows] == [
        ("person", "never", 1),
        ("person", "once", 2),
        ("person", "16 or more", 1),
        ("place", "2 – 3", 2),
        ("place", "4 – 15", 2),
    ]
    assert rows[1]["pretrained"] == {"accuracy": 0.5, "confidence": pytest.approx(0.5)}
    assert rows[2]["none"] == {"accuracy": 0.0, "confidence": 1.0}
