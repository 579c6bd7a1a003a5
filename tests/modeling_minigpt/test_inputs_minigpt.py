"""Questions as people type them: of any relation, in any wording, case, mark and encoding, or a reason why not."""

import unicodedata

import pytest

from modeling_minigpt.inputs_minigpt import parse_question
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
