"""Scoring a sample of the questions, and what is said of several accepted answers."""

import random
from types import SimpleNamespace

from data_scripts.questions import question_about
from evaluation.relation_scores import (
    accuracy,
    ask_pipeline,
    choose_questions,
    sample_answers,
    surest_right,
    surest_wrong,
)
from evaluation.trust import EvaluatedAnswers, JudgedAnswer
from modeling_minigpt.confidence_minigpt import Confidence, Head, Scores
from modeling_minigpt.relations_minigpt import Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate

STUDIED = Relation("studied", "Where did {name} study?")
QUESTIONS = [question_about(f"Person {number}", "Rome") for number in range(50)]


def test_a_sample_is_of_the_same_people_in_every_order_and_for_every_relation():
    chosen = choose_questions(QUESTIONS, 10)
    assert len(chosen) == 10
    assert [question for question in QUESTIONS if question in chosen] == chosen
    shuffled = random.Random(0).sample(QUESTIONS, len(QUESTIONS))
    assert set(choose_questions(shuffled, 10)) == set(chosen)
    others = [question_about(question.name, "Oslo", relation=STUDIED) for question in QUESTIONS]
    assert [question.name for question in choose_questions(others, 10)] == [question.name for question in chosen]
    assert set(choose_questions(QUESTIONS, 9)) < set(chosen)


def test_all_are_scored_where_no_number_is_given_or_fewer_are_there():
    assert choose_questions(QUESTIONS, None) == choose_questions(QUESTIONS, 50) == choose_questions(QUESTIONS, 99)


class Refusing:
    """A calibrated pipeline that cannot read one of the names."""

    def __init__(self, known):
        self.facts = {"studied": SimpleNamespace(confidence=SimpleNamespace(known=known))}

    def __call__(self, names, **settings):
        read = {"answer": "Rome", "known": 0.9, "correct": 0.8, "score": 0.72}
        refused = {"answer": None, "known": None, "correct": None, "score": 0.0}
        return [refused if name == "Person 1" else read for name in names]


def test_a_name_that_cannot_be_asked_about_is_never_answered_and_leaves_the_others_chances():
    asked = ask_pipeline(Refusing(known="a head"), STUDIED, QUESTIONS[:3], [], [])
    assert asked.chances("known", "known") == [0.9, 0.0, 0.9]
    assert asked.chances("known", "correct") == [0.8, 0.0, 0.8]
    assert asked.right == [True, False, True]
    one_score = ask_pipeline(Refusing(known=None), STUDIED, QUESTIONS[:3], [], [])
    assert one_score.known[1].scores.known is None


def test_wrong_answers_come_with_their_chances_the_surest_first_and_whether_they_are_given():
    half = CalibrationScores([(0.9, 0.9, True)])
    certificate = Certificate(0.5, 0.5, 0.1, 0.05, 0.95, 200, 100, 4, 500, 10)
    confidence = Confidence(Head({}, 0.0), Head({}, 0.0), half, half, certificate)
    scores = [Scores(0.9, 0.4, 0.36), Scores(1.0, 1.0, 1.0), Scores(0.9, 0.8, 0.72)]
    answers = [JudgedAnswer(text, chances) for text, chances in zip(("Oslo", "Rome", "Lima"), scores, strict=True)]
    first, second = surest_wrong(QUESTIONS[:3], EvaluatedAnswers(answers, [False, True, False], (), (), confidence))
    assert first == {
        "question": QUESTIONS[2].text, "answer": "Lima", "right": "Rome", "known": 0.9, "correct": 0.8, "score": 0.72,
        "given": True,
    }  # fmt: skip
    assert (second["answer"], second["given"]) == ("Oslo", False)
    # Of a model that is not calibrated, nothing is given.
    plain = EvaluatedAnswers([JudgedAnswer("Oslo", Scores(None, None, 0.9))], [False])
    assert [row["given"] for row in surest_wrong(QUESTIONS[:1], plain)] == [False]


def test_the_example_is_the_surest_of_the_right_answers():
    sure = [0.5, 0.9, 0.7, 0.8]
    known = [JudgedAnswer("Rome", Scores(None, None, score)) for score in sure]
    assert surest_right(QUESTIONS[:4], EvaluatedAnswers(known, [True, False, True, False])) == [QUESTIONS[2]]
    assert surest_right(QUESTIONS[:4], EvaluatedAnswers(known, [False] * 4)) == []


class Unsure:
    """A pipeline that answers what it knows alone."""

    def __call__(self, name, **settings):
        assert settings == {"relation": "studied", "top_k": 1}  # the user's own thresholds
        answer = "München" if name == "Ada Stone" else None
        return {"question": STUDIED.format(name), "answer": answer, "candidates": [{"answer": "Rome", "score": 0.1}]}


def test_every_accepted_answer_counts_and_samples_are_what_the_pipeline_answers():
    question = question_about("Ada Stone", "Munich", "München", relation=STUDIED)
    assert accuracy(["München"], [question]) == {"accuracy": 1.0, "correct": 1, "total": 1}
    first, second = sample_answers(Unsure(), STUDIED, [question], ["Bo Moss", "Cyd Moss"])
    assert (first["answer"], first["place"], first["accepted"]) == ("München", "Munich", ["Munich", "München"])
    assert (second["question"], second["answer"], second["place"]) == ("Where did Bo Moss study?", None, None)
    assert second["candidates"] == [{"answer": "Rome", "score": 0.1}]
