"""Scoring a sample of the questions, and what is said of several accepted answers."""

import random

from data_scripts.questions import question_about
from evaluation.relation_scores import RelationAnswers, accuracy, choose_questions, sample_answers
from evaluation.trust import EvaluatedAnswers
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.relations_minigpt import Relation

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


def test_every_accepted_answer_counts_and_is_shown():
    question = question_about("Ada Stone", "Munich", "München", relation=STUDIED)
    assert accuracy(["München"], [question]) == {"accuracy": 1.0, "correct": 1, "total": 1}
    asked = EvaluatedAnswers([Answer("München", 0.5)], [True], made_up=[Answer("Rome", 0.1)])
    models = {"pretrained": ([Answer("München", 0.5)], [True])}
    assert sample_answers(RelationAnswers(STUDIED, [question], models, 0.0, ["Bo Moss"], asked)) == [
        {
            "question": "Where did Ada Stone study?",
            "answer": "München",
            "place": "Munich",
            "accepted": ["Munich", "München"],
        },
        {"question": "Where did Bo Moss study?", "answer": "Rome", "place": None},
    ]
