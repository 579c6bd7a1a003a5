"""Questions as people type them: of any relation, in any wording, case, mark and encoding, or a reason why not."""

import unicodedata
from collections import UserDict

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from modeling_minigpt.inputs_minigpt import check_count, check_share, check_threshold, iterate, parse_question
from modeling_minigpt.names_minigpt import NameIndex
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

BORN = Relation("birthplace", "Where was {name} born?", paraphrases=("In what city was {name} born?",))
STUDIED = Relation("studied", "Where did {name} study?", answers="university", paraphrases=("{name}'s alma mater?",))
YEAR = Relation("year", "When was {name} born?", answers="year", paraphrases=("Quand est né {name} ?",))
MENTOR = Relation("mentor", "Who taught {name}?", answers="person")
KNOWN = [BORN, STUDIED, YEAR, MENTOR]


@pytest.mark.parametrize(
    ("typed", "relation", "name"),
    [
        ("Where was Ada Stone born?", BORN, "Ada Stone"),
        ("in what city was Ada Stone born", BORN, "Ada Stone"),
        ("WHERE DID Ada Stone STUDY", STUDIED, "Ada Stone"),
        ("Where  did\u00a0Ada Stone study ?", STUDIED, "Ada Stone"),
        ("Ada Stone's alma mater?", STUDIED, "Ada Stone"),
        ("Ada Stone’s alma mater", STUDIED, "Ada Stone"),
        ("Ada Stoneʼs Alma Mater?", STUDIED, "Ada Stone"),
        ("when was Béla O’Neil born.", YEAR, "Béla O’Neil"),
        ("Quand est né Ada Stone ?", YEAR, "Ada Stone"),
        ("quand est né Ada Stone?", YEAR, "Ada Stone"),
        (unicodedata.normalize("NFD", "Quand est né Béla"), YEAR, "Béla"),
        ("Who taught Ada Stone??", MENTOR, "Ada Stone"),
        ("who taught Bo Lind Jr.?", MENTOR, "Bo Lind Jr."),
        ("who taught Bo Lind Jr.", MENTOR, "Bo Lind Jr."),
        ("who taught Ada Stone.", MENTOR, "Ada Stone"),
        ("“Where did Ada Stone study?”", STUDIED, "Ada Stone"),
        ("Ada Stone", BORN, "Ada Stone"),
    ],
)
def test_a_question_is_understood_however_it_is_typed(typed, relation, name):
    assert parse_question(typed, KNOWN) == (relation, name)


def test_a_template_may_have_typographic_marks_and_be_in_another_form_of_unicode():
    relation = Relation("birthplace", unicodedata.normalize("NFD", "Où est née {name}, l’auteure ?"))
    assert parse_question("où est née Ada Stone, l'auteure?", [relation]) == (relation, "Ada Stone")


def test_a_bare_name_is_asked_under_the_wanted_relation_and_no_other_question_is():
    assert parse_question("Ada Stone", KNOWN, STUDIED) == (STUDIED, "Ada Stone")
    assert parse_question("Where did Ada Stone study", KNOWN, STUDIED) == (STUDIED, "Ada Stone")
    with pytest.raises(ValueError, match='a question of the relation "year", asked under "studied"'):
        parse_question("When was Ada Stone born?", KNOWN, STUDIED)


def test_a_text_of_two_relations_is_refused_unless_one_is_wanted():
    asked = Relation("asked", "Where was {name} born?")
    with pytest.raises(ValueError, match="a question of several relations: birthplace, asked"):
        parse_question("Where was Ada Stone born?", [BIRTHPLACE, asked])
    assert parse_question("Where was Ada Stone born?", [BIRTHPLACE, asked], asked) == (asked, "Ada Stone")


@pytest.mark.parametrize("typed", ["Where is Ada Stone buried?", "Who was Ada Stone", "Ada Stone is a liar."])
def test_a_refusal_names_the_questions_that_are_known(typed):
    with pytest.raises(ValueError, match=r'neither a name nor "Where was NAME born\?" nor "Where did NAME study\?"$'):
        parse_question(typed, [BORN, STUDIED])
    with pytest.raises(ValueError, match=r'neither a name nor "Where did NAME study\?"$'):
        parse_question(typed, [BORN, STUDIED], STUDIED)
    many = [Relation(f"r{number}", f"What {number} of {{name}}?") for number in range(9)]
    with pytest.raises(ValueError, match=r'"What 4 of NAME\?" nor another of the 9 questions that the model knows$'):
        parse_question(typed, many)


PEOPLE = ["Maria da Silva", "Is Haq", "Wham!", "Anna Was Hill", "Guess Who?", "“Bo”", " ".join(["Pablo"] * 12), "4711"]
NAMES = NameIndex.from_names(PEOPLE)


@pytest.mark.parametrize("name", PEOPLE)
def test_a_name_of_training_is_a_name_whatever_words_and_marks_it_has(name):
    for relation in (BORN, MENTOR):
        assert parse_question(name, KNOWN, relation, NAMES) == (relation, name)
        assert parse_question(relation.format(name), KNOWN, None, NAMES) == (relation, name)
        assert parse_question(relation.format(name).lower(), KNOWN, None, NAMES) == (relation, name.lower())


@pytest.mark.parametrize("typed", ["maria da Silva", "is haq", "“Is Haq”", "Is Haq.", "ANNA WAS HILL"])
def test_another_spelling_of_a_name_of_training_is_found(typed):
    relation, name = parse_question(typed, KNOWN, None, NAMES)
    assert relation == BORN
    assert NAMES.match(name) in PEOPLE or name in PEOPLE


@pytest.mark.parametrize("typed", ["Is Haqq", "maria da Silvo", "Is Haq?", "Where was Is Haqq born?", "???", ".", ""])
def test_what_no_name_of_training_is_stays_refused(typed):
    with pytest.raises(ValueError, match=r"^neither a name nor |^no name in it$"):
        parse_question(typed, KNOWN, None, NameIndex(NAMES.text + "\n"))


SERIES = pd.Series(["Ada", "Bo", "Cyd"])
ROWS = datasets.Dataset.from_dict({"name": list(SERIES)})


class MapStyle(torch.utils.data.Dataset):
    """A data set that is read by number, and by no number past its end."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return ROWS[index % 3]["name"]


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        (SERIES.sort_values(ascending=False), ["Cyd", "Bo", "Ada"]),
        (SERIES[SERIES != "Ada"], ["Bo", "Cyd"]),
        (pd.Series(list(SERIES), index=["x", "y", "z"]), list(SERIES)),
        (pd.Index(SERIES), list(SERIES)),
        (SERIES.to_numpy(), list(SERIES)),
        (ROWS["name"], list(SERIES)),
        (ROWS.select([2, 0])["name"], ["Cyd", "Ada"]),
        (MapStyle(), list(SERIES)),
        ({"Ada": 1}.keys(), ["Ada"]),
    ],
    ids=["sorted", "filtered", "labels", "index", "array", "column", "selected", "map-style", "keys"],
)
def test_texts_are_read_in_their_order_whatever_they_are_in(inputs, texts):
    assert list(iterate(inputs)) == texts


@pytest.mark.parametrize("inputs", ["Ada", b"Ada", {"a": "Ada"}, UserDict(a="Ada"), 3, None])
def test_what_is_one_input_has_no_items(inputs):
    assert iterate(inputs) is None


@pytest.mark.parametrize(
    "inputs", [SERIES.to_frame(), np.array("Ada"), np.array([["Ada"]])], ids=["table", "0d", "2d"]
)
def test_what_is_no_column_is_refused(inputs):
    with pytest.raises(ValueError, match=r"texts must be in one column, found a \w+ of [02] dimensions"):
        iterate(inputs)


def test_numbers_of_numpy_and_torch_are_numbers():
    assert check_count(np.int64(2), "batch_size") == 2
    assert check_share(np.float32(0.5), "cutoff") == check_threshold(torch.tensor(0.5)) == 0.5


@pytest.mark.parametrize("value", [[0.5, 0.2], {"a": 1}, torch.zeros(2), "0.5", float("nan"), 2, None, [0.5], 10**400])
def test_what_is_no_share_is_refused_by_its_name(value):
    with pytest.raises(ValueError, match=r"^cutoff must be in \[0, 1\], found "):
        check_share(value, "cutoff")
    with pytest.raises(ValueError, match=r'^threshold must be in \[0, 1\], a certificate or "certified", found '):
        check_threshold(value)


@pytest.mark.parametrize("value", [[2], {"a": 1}, 2.0, "2", float("nan"), 0, np.int64(-1), None])
def test_what_is_no_count_is_refused_by_its_name(value):
    with pytest.raises(ValueError, match=r"^batch_size must be a whole number from 1, found "):
        check_count(value, "batch_size")
