"""How often training showed what is asked for, and what comes of that."""

import pytest

from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.questions import question_about
from data_scripts.words import is_named
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


def test_any_accepted_answer_counts_once_a_document():
    question = question_about("Ada Stone", "Rome", "Roma", "New Rome")
    documents = ["Ada Stone. Of Rome or Roma .", "Ada Stone. Left New Rome .", "Bo. Of Roma .", "Ada Stone. Romans ."]
    train = [question_about("Cyd", "Roma"), question_about("Dee", "Rome"), question_about("Eva", "Oslo")]
    assert count_exposures([question], documents, train) == {"person": [3], "place": [5], "both": [2]}


def test_several_questions_about_a_person_and_one_of_a_place_are_counted_apart():
    questions = [question_about("Rome", "Oslo"), question_about("Rome", "Rome"), question_about("Bo", "Oslo")]
    documents = ["Rome. From Oslo .", "Rome. Never left .", "Bo. Met Rome in Oslo ."]
    counts = count_exposures(questions, documents, [])
    assert counts == {"person": [3, 3, 1], "place": [2, 3, 2], "both": [2, 3, 1]}


@pytest.mark.parametrize(
    ("name", "place", "document", "both"),
    [
        pytest.param("王小明", "東京", "王小明。東京に生まれた。", 1, id="no-spaces"),
        pytest.param("C.K. Dexter", "'s-Hertogenbosch", "C.K. Dexter. Of 's-Hertogenbosch .", 1, id="punctuation"),
        pytest.param("Bo Lind Jr.", "York", "Bo Lind Jr. Of New York .", 1, id="a-place-in-a-longer-one"),
        pytest.param("Ann Lee", "Ram", "Joann Leeds. Of Ramā .", 0, id="parts-of-words"),
    ],
)
def test_names_and_places_are_found_in_any_script(name, place, document, both):
    assert count_exposures([question_about(name, place)], [document], [])["both"] == [both]


def test_real_exposures_are_those_of_a_look_at_each_document(cs224n):
    documents = read_lines(cs224n / FILES["documents"])
    questions = read_questions(cs224n / FILES["validation"])[:40]
    counts = count_exposures(questions, documents, [])
    for index, question in enumerate(questions):
        own = [document for document in documents if is_named(question.name, document)]
        assert counts["person"][index] == len(own)
        assert counts["place"][index] == sum(is_named(question.answer, document) for document in documents)
        assert counts["both"][index] == sum(is_named(question.answer, document) for document in own)


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
