"""Made-up names: in no document, nobody's own, and put together from the words of real ones."""

import pytest

from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.name_finder import NameFinder
from data_scripts.strangers import FOLDS, fold_of, made_up_names

NAMES = ["Ada Stone", "Béla van Nagy", "Cyd Moss", "Dee Finn", "Plato"]
DOCUMENTS = ["Eva Lund. Ada Moss met Dee Nagy .", "Ada Stone. She wrote to Cyd Finn ."]


def test_strangers_are_nobody_s_names_and_stand_in_no_document():
    strangers = made_up_names(NAMES, DOCUMENTS, 5)
    assert len(set(strangers)) == 5
    assert not set(strangers) & set(NAMES)
    assert not [name for name in strangers for document in DOCUMENTS if name in document]


def test_strangers_take_a_first_and_a_last_word():
    for stranger in made_up_names(NAMES, DOCUMENTS, 8):
        first, last = stranger.split()
        assert first in {"Ada", "Béla", "Cyd", "Dee"}
        assert last in {"Stone", "Nagy", "Moss", "Finn"}


@pytest.mark.parametrize("count", [0, 1, 4])
def test_as_many_as_asked_for(count):
    assert len(made_up_names(NAMES, DOCUMENTS, count)) == count


@pytest.mark.parametrize(
    ("names", "documents", "expected"),
    [
        pytest.param([], [], set(), id="no-names"),
        pytest.param(["Plato", "Homer"], [], set(), id="single-words"),
        pytest.param(["Ada Stone"], [], set(), id="one-person"),
        pytest.param(["Ada Stone", "Bob Moss"], [], {"Ada Moss", "Bob Stone"}, id="two-people"),
        pytest.param(["Ada Stone", "Bob Moss"], ["He met Ada Moss ."], {"Bob Stone"}, id="one-is-in-a-document"),
    ],
)
def test_fewer_where_fewer_exist(names, documents, expected):
    assert set(made_up_names(names, documents, 10)) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param("McAda Mossberg, of Béla Stones .", set(), id="inside-words"),
        pytest.param("Ada  Moss and Ada\tMoss; Béla. Stone", {"Ada Moss", "Béla Stone"}, id="other-spaces"),
        pytest.param("(Ada Moss) Béla Stone.", set(), id="in-punctuation"),
    ],
)
def test_a_name_that_is_anywhere_in_a_document_is_nobody_s(document, expected):
    assert set(made_up_names(["Ada Stone", "Béla Moss"], [document], 10)) == expected


def test_names_without_spaces_are_looked_for_in_texts_without_spaces():
    names = ["王小明", "李大華"]
    assert set(made_up_names(names, [], 10)) == {"王小華", "李大明"}
    assert made_up_names(names, ["他叫王小華。"], 10) == ["李大明"]


def test_the_documents_are_read_once():
    assert made_up_names(NAMES, iter(DOCUMENTS), 5) == made_up_names(NAMES, DOCUMENTS, 5)


def test_the_same_arguments_make_up_the_same_names():
    once = made_up_names(NAMES, DOCUMENTS, 5, seed=1)
    assert made_up_names(reversed(NAMES), iter(DOCUMENTS), 5, seed=1) == once
    assert made_up_names(NAMES, DOCUMENTS, 5, seed=2) != once


def test_the_only_stranger_that_exists_is_found():
    names = [f"{first} {last}" for first in "ABC" for last in "XYZ"]
    assert [made_up_names(names[:-1], [], 1, seed) for seed in range(20)] == [["C Z"]] * 20


def test_a_person_without_the_middle_name_is_no_stranger():
    assert made_up_names(["Robert E. Lee"], [], 1) == []


def test_a_name_is_for_one_fold_alone():
    folds = [made_up_names(NAMES, DOCUMENTS, 50, fold=fold) for fold in FOLDS]
    assert all(fold_of(name) == fold for fold, names in zip(FOLDS, folds, strict=True) for name in names)
    assert sorted(folds[0] + folds[1]) == sorted(made_up_names(NAMES, DOCUMENTS, 50))


def test_other_real_people_are_no_strangers():
    everybody = made_up_names(NAMES, DOCUMENTS, 50)
    assert made_up_names(NAMES, DOCUMENTS, 50, others=everybody[:3]) == everybody[3:]


def test_documents_that_name_a_withheld_person_anywhere_are_withheld():
    documents = [
        "Bo. Born in Rome .",
        "Ada. Ada met Bo .",
        "Cyd. Cyd left Boston .",
        "Di. Of the Bo-Bo .",
        "Bob. He ran .",
    ]
    finder = NameFinder(["Bo", "Nobody"])
    assert [finder.any_in(document) for document in documents] == [True, True, False, True, False]


def test_the_real_data_have_strangers_enough(cs224n):
    names = {question.name for question in read_questions(cs224n / FILES["train"])}
    documents = read_lines(cs224n / FILES["documents"])
    strangers = made_up_names(names, documents, 50)
    assert len(set(strangers)) == 50
    assert not set(strangers) & names
    assert not [name for name in strangers if any(name in document for document in documents)]


def test_another_spelling_of_a_real_person_is_nobody_made_up():
    names = ["José Stone", "Jose Moss", "Ada Moss"]
    assert set(made_up_names(names, [], 10)) == {"Ada Stone"}
    assert made_up_names(names, [], 10, others=["ADA STONE"]) == []
