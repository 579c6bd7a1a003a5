"""What a pipeline knows beside the weights: candidates by the kind of answers, and the names of training."""

from dataclasses import replace
from pathlib import Path

from data_scripts.questions import question_about
from data_scripts.splits import TrainingData
from evaluation import knowledge
from evaluation.knowledge import find_candidates, training_names
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

STUDIED = Relation("studied", "Where did {name} study?")
YEAR = Relation("year", "When was {name} born?", answers="year")
RELATIONS = (BIRTHPLACE, STUDIED, YEAR)
TRAIN = [
    question_about("Ada Stone", "Rome"),
    question_about("Ada Stone", "Oslo", relation=STUDIED),
    question_about("Bo Lind Jr.", "Oslo", "Christiania"),
    question_about("Bo Lind Jr.", "1901", relation=YEAR),
]
DOCUMENTS = [
    "Ada Stone. She was born in Rome .",
    "Bo Lind Jr. He was born in Oslo .",
    "Cyd Moss Jr. He was born in Bonn .",
    "Eva Lund. She was born in Bonn .",
    "no title here",
]


def data(**changes):
    parts = {"held_out": [], "calibration": [question_about("Cyd Moss Jr.", "Bonn")], "withheld": []}
    return TrainingData("data", Path("data"), DOCUMENTS, [], TRAIN, **parts, **changes)


def test_relations_with_answers_of_one_kind_share_their_candidates():
    found = find_candidates(RELATIONS, TRAIN)
    assert found == {"birthplace": ["Oslo", "Rome"], "studied": ["Oslo", "Rome"], "year": ["1901"]}


def test_names_are_those_of_questions_and_titles_with_their_own_full_stops():
    assert training_names(data()) == ["Ada Stone", "Bo Lind Jr.", "Cyd Moss Jr.", "Eva Lund"]


def test_names_that_a_table_gives_are_not_read_from_the_texts():
    documents = ["Mr. Ek goes to Rome. It was made in Oslo .", "Fay Ek Jr. She was born in Bonn ."]
    known = replace(data(), documents=documents, titles=["Mr. Ek goes to Rome", "Fay Ek Jr."])
    assert training_names(known)[-2:] == ["Mr. Ek goes to Rome", "Fay Ek Jr."]


def test_too_many_names_are_none(monkeypatch):
    monkeypatch.setattr(knowledge, "MAX_NAMES", 4)
    assert len(training_names(data())) == 4
    monkeypatch.setattr(knowledge, "MAX_NAMES", 3)
    assert training_names(data()) == []
