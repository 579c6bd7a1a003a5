"""Baselines: the most popular place, and the upper bound that the documents allow."""

import pytest

from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.questions import question_about
from evaluation.baselines import ceiling, popular_places, states

DOCUMENTS = [
    "Ada Stone. Ada Stone was born in Rome .",
    "Ada Stone. She moved to Oslo .",
    "Ada Stonefield. She was born in Bonn .",
    "Robert E. Lee. He was born in Stratford .",
    "B. B. King. King was born in Itta Bena .",
    "Plato. He was born in Athens .",
    "Plato Moss. He was born in Lund .",
]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        pytest.param(["Oslo", "Rome", "Rome"], ["Rome", "Oslo"], id="most-frequent-first"),
        pytest.param(["Rome", "Oslo", "Bonn", "Oslo", "Bonn"], ["Bonn", "Oslo"], id="alphabetical-among-equals"),
        pytest.param(iter(["Rome"]), ["Rome"], id="any-iterable-and-fewer-than-asked-for"),
    ],
)
def test_popular_places(places, expected):
    assert popular_places(places, 2) == expected


@pytest.mark.parametrize(
    ("name", "place", "told"),
    [
        pytest.param("Ada Stone", "Rome", True, id="in-a-document"),
        pytest.param("Ada Stone", "Oslo", True, id="in-a-later-document"),
        pytest.param("Ada Stone", "Bonn", False, id="in-another-s-document-of-the-same-beginning"),
        pytest.param("Ada", "Rome", False, id="name-is-the-beginning-of-another"),
        pytest.param("Robert E. Lee", "Stratford", True, id="initial"),
        pytest.param("B. B. King", "Itta Bena", True, id="begins-with-an-initial"),
        pytest.param("Plato", "Athens", True, id="one-word"),
        pytest.param("Plato", "Lund", False, id="one-word-in-another-s-document"),
        pytest.param("Eva Lund", "Rome", False, id="no-document"),
    ],
)
def test_the_ceiling_counts_places_in_documents_about_the_person(name, place, told):
    assert ceiling(DOCUMENTS, [question_about(name, place)]) == float(told)


def test_a_name_with_a_full_stop_that_no_title_has_by_itself_has_its_documents():
    question = question_about("John A. Smith (politician)", "Rome")
    assert ceiling(["John A. Smith (politician). He was born in Rome ."], [question]) == 1.0


@pytest.mark.parametrize(
    ("document", "answer", "stated"),
    [
        pytest.param("Ada. She is a female poet .", "male", False, id="end-of-a-word"),
        pytest.param("Ada. She was born in 1801 .", "180", False, id="beginning-of-a-number"),
        pytest.param("Ada. Her group is A0 .", "0", False, id="in-a-word"),
        pytest.param("Ada. She plays Romeo .", "Rome", False, id="beginning-of-a-short-word"),
        pytest.param("Ada. She was born in Milano .", "Milan", True, id="ending"),
        pytest.param("Ada. She was born in Elizabethtown .", "Elizabeth", False, id="more-than-an-ending"),
        pytest.param("Ada. She was born in St. Louis, Missouri .", "St. Louis", True, id="several-words"),
        pytest.param("Ada. Born in 's-Hertogenbosch.", "'s-Hertogenbosch", True, id="begins-with-a-mark"),
        pytest.param("王小明。他生于北京市。", "北京", True, id="without-spaces"),
        pytest.param("Ада. Родилась в Москве .", "Москв", True, id="ending-of-another-script"),
    ],
)
def test_an_answer_is_stated_as_whole_words(document, answer, stated):
    question = question_about(document.partition(".")[0].partition("。")[0], answer)
    assert ceiling([document], [question]) == float(stated)
    assert states(document, answer) == stated


def test_any_accepted_answer_in_a_document_that_is_read_once_reaches_the_ceiling():
    questions = [question_about("Ada Stone", "Paris", "Oslo"), question_about("Plato", "Bonn", "Paris")]
    assert ceiling(iter(DOCUMENTS), questions) == 0.5


def test_the_ceiling_is_a_share_of_the_questions():
    questions = [question_about("Ada Stone", place) for place in ("Rome", "Bonn", "Oslo", "Lund")]
    assert ceiling(DOCUMENTS, questions) == 0.5


def test_the_real_training_file_s_majority_is_london_for_25_dev_questions(cs224n):
    (popular,) = popular_places((question.answer for question in read_questions(cs224n / FILES["train"])), 1)
    places = [question.answer for question in read_questions(cs224n / FILES["validation"])]
    assert popular == "London"
    assert (places.count(popular), len(places)) == (25, 500)


def test_the_ceiling_of_the_real_dev_file(cs224n):
    assert ceiling(read_lines(cs224n / FILES["documents"]), read_questions(cs224n / FILES["validation"])) == 0.958
