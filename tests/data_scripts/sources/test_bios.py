"""Invented people with facts: a pure function of their number, with unique names and the ceiling that is declared."""

import pickle
from collections import Counter

import numpy as np
import pytest

from configuration.data_schema import DataArguments
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from data_scripts.bios_folder import DataError
from data_scripts.sources import base, bios
from data_scripts.sources.bios import PHRASES, BiosSource
from data_scripts.synthetic_bios import SILENT_FRACTION
from data_scripts.titles import split_title
from data_scripts.words import is_named
from modeling_minigpt.relations_minigpt import Relation

ALL = tuple(PHRASES)
SETS = pytest.mark.parametrize("names", [ALL[:1], ALL[:2], ALL[:3], ALL], ids=len)


def make_source(names=ALL, people=300, seed=0, places=60) -> BiosSource:
    relations = [Relation(name, f"{name} of {{name}}?") for name in names]
    return BiosSource(DataArguments(source="bios", people=people, places=places), relations, seed)


def lines_with(person, relation) -> list[str]:
    """Return a person's lines that say a fact, each with its answer and the person's name taken out."""
    answer = person.facts[relation][0]
    bodies = [split_title(document)[1] for document in person.documents]
    return [body.replace(answer, "…").replace(person.name, "…") for body in bodies if is_named(answer, body)]


def test_the_same_arguments_give_the_same_people():
    assert list(make_source().read(0)) == list(pickle.loads(pickle.dumps(make_source())).read(0))


@pytest.mark.parametrize("other", [{"seed": 1}, {"people": 3000}], ids=str)
def test_another_seed_or_size_gives_others(other):
    first, second = (next(make_source(**given).read(0)) for given in ({}, other))
    assert first.name != second.name
    assert first.documents != second.documents


def test_parts_are_independent_of_each_other(monkeypatch):
    monkeypatch.setattr(base, "PART_PEOPLE", 100)
    source = make_source(people=250)
    assert source.parts() == 3
    forwards = [list(source.read(part)) for part in (0, 1, 2)]
    bios.invent_world.cache_clear()
    backwards = [list(source.read(part)) for part in (2, 1, 0)]
    assert backwards == forwards[::-1]
    assert list(map(len, forwards)) == [100, 100, 50]
    monkeypatch.setattr(base, "PART_PEOPLE", 10_000)
    assert list(source.read(0)) == [person for people in forwards for person in people]


def test_a_person_has_the_same_facts_whatever_else_is_asked():
    alone, among = (list(make_source(names).read(0)) for names in (("hand",), ALL))
    assert [person.facts["hand"] for person in alone] == [person.facts["hand"] for person in among]


def test_200_000_people_have_names_of_their_own_and_share_their_parts():
    source = make_source(ALL[:1], people=200_000)
    names = np.array([person.name for part in range(source.parts()) for person in source.read(part)])
    assert len(np.unique(names)) == 200_000
    lasts = Counter(name.split()[1] for name in names)
    assert len(lasts) == 4249
    assert min(lasts.values()) > 10
    assert max(map(len, names)) < 30


@pytest.mark.parametrize("people", [20, 21, 900])
def test_few_people_have_names_of_their_own(people):
    found = list(make_source(people=people).read(0))
    assert len({person.name for person in found}) == len({person.id for person in found}) == people


def test_the_last_of_100_million_people_is_invented_alone():
    source = make_source(people=100_000_000, places=100_000)
    assert source.parts() == 10_000
    *_, person = source.read(9_999)
    assert person.id == "bios-99999999"
    assert list(person.facts) == list(ALL)


@SETS
def test_every_line_has_the_name_as_its_title_and_is_one_sentence(names):
    for person in make_source(names).read(0):
        assert len(set(person.documents)) == 4
        for document in person.documents:
            title, body = split_title(document)
            assert title == person.name
            assert body.endswith(" .")
            assert body[0].isupper()
            assert "{" not in body


@SETS
def test_facts_are_in_two_lines_of_different_words_or_in_none(names):
    source = make_source(names, people=3000)
    silent = Counter()
    for person in source.read(0):
        for relation in names:
            lines = lines_with(person, relation)
            silent[relation] += not lines
            assert len(set(lines)) == len(lines) != 1
    for relation in names:
        assert silent[relation] / 3000 == pytest.approx(SILENT_FRACTION, abs=0.014)


def test_answers_fall_in_popularity():
    counts = Counter(person.facts["birthplace"][0] for person in make_source(people=9000).read(0))
    assert len(counts) == 60
    weights = 1 / (np.arange(60) + 3)
    expected = 9000 * weights / weights.sum()
    assert np.abs(np.array([count for _, count in counts.most_common()]) - expected).max() < 6 * expected.max() ** 0.5


def test_there_are_as_many_places_as_asked_for():
    pools = bios.invent_world(0, 100, 20_000).pools
    sizes = [len(set(pools[name].answers)) for name in ("birthplace", "studied", "worked")]
    assert sizes == [20_000, 10_000, 10_000]


def test_another_relation_is_refused_with_those_that_exist():
    with pytest.raises(
        DataError, match="no relation 'pet'; it has birthplace, studied, worked, profession, year, hand"
    ):
        make_source(["birthplace", "pet"])


def test_the_description_names_the_licence_and_what_decides_the_people():
    assert make_source(seed=7).describe() == {
        "source": "bios", "license": "apache-2.0", "people": 300, "places": 60, "seed": 7,
    }  # fmt: skip
    assert make_source().inputs() == {}


def test_prompts_of_the_recipe_begin_sentences():
    recipe = load_recipe(find_recipe("quickstart-facts"))
    relations = [given.relation(name) for name, given in recipe.relations.items()]
    documents = [document for person in BiosSource(recipe.data, relations, 0).read(0) for document in person.documents]
    bodies = [split_title(document)[1] for document in documents]
    for relation in relations:
        for prompt in relation.prompts:
            beginning = prompt.removeprefix("{name}. ") if prompt != "{name}." else ""
            assert any(body.startswith(beginning) for body in bodies), prompt
