"""People of equally likely values: a pure function of their number, bits that can be counted, texts that say them."""

import pickle
from collections import Counter
from itertools import pairwise
from math import log2

import numpy as np
import pytest

from configuration.data_schema import DataArguments
from configuration.errors import UserError
from configuration.recipe import load_recipe
from data_scripts.bios_folder import DataError
from data_scripts.prepare import name_of, prepare, settings_of
from data_scripts.sources import base
from data_scripts.sources.bios_uniform import (
    COUNTED_WITH,
    PREDICATES,
    RELATIONS,
    WORDINGS,
    BiosUniformSource,
    Population,
    Sizes,
    invent_lists,
    invent_values,
    join_pieces,
)
from data_scripts.titles import split_title
from modeling_minigpt.relations_minigpt import Relation
from tests.running import MINIMAL_RECIPE

TINY = Sizes(4, 3, 5, 2, 6, 3, 2, 4)  # 60 names
SMALL = TINY._replace(lasts=40)


def make_source(names=RELATIONS, people=300, seed=0, sizes=SMALL, **data) -> BiosUniformSource:
    relations = [Relation(name, f"{name} of {{name}}?") for name in names]
    return BiosUniformSource(DataArguments(source="bios_uniform", people=people, **data), relations, seed, sizes)


def test_the_same_arguments_give_the_same_people():
    assert list(make_source().read(0)) == list(pickle.loads(pickle.dumps(make_source())).read(0))
    first, second = (next(make_source(seed=seed).read(0)) for seed in (0, 1))
    assert first.facts != second.facts
    assert first.documents != second.documents


def test_a_person_alone_is_the_one_of_the_stream(monkeypatch):
    monkeypatch.setattr(base, "PART_PEOPLE", 100)
    source = make_source(people=250)
    assert source.parts() == 3
    streamed = [person for part in range(3) for person in source.read(part)]
    assert len(streamed) == 250
    population = Population(0, source.sizes)
    for number in (0, 99, 100, 249):
        alone = np.array([number])
        (facts,) = population.facts(alone)
        assert streamed[number].name == facts.pop("name")
        assert streamed[number].facts == {relation: (value,) for relation, value in facts.items()}
        for version, document in enumerate(streamed[number].documents):
            (pieces,) = population.biographies(alone, np.array([version]))
            assert split_title(document) == (streamed[number].name, join_pieces(pieces))


def test_the_last_of_100_million_people_is_invented_alone():
    source = make_source(people=100_000_000, sizes=Sizes(), wordings=1)
    *_, person = source.read(source.parts() - 1)
    assert person.id == "bios_uniform-99999999"
    assert list(person.facts) == list(RELATIONS)


def test_every_name_is_taken_once():
    population = Population(3, TINY)
    names = {facts["name"] for facts in population.facts(np.arange(60))}
    assert len(names) == population.names == 60
    with pytest.raises(ValueError, match="wanted people of numbers below 60, found 60"):
        population.facts(np.array([3, 60]))
    many = Population(0)
    assert len({facts["name"] for facts in many.facts(np.arange(30_000))}) == 30_000


def test_the_values_have_the_papers_bits():
    population = Population(0)
    assert sum(population.entropies.values()) == pytest.approx(47.6, abs=0.05)
    assert population.names == 160_000_000
    assert population.entropies["birthdate"] == log2(12 * 28 * 200)


@pytest.mark.parametrize("relation", ["pronoun", "birthplace", "studied", "field", "worked"])
def test_the_entropy_of_drawn_values_is_near_the_theory(relation):
    people = 40_000
    population = Population(1)
    counts = np.array(list(Counter(facts[relation] for facts in population.facts(np.arange(people))).values()))
    assert len(counts) == population.choices[relation]
    drawn = -(counts / people * np.log2(counts / people)).sum()
    bias = (len(counts) - 1) / (2 * people * np.log(2))  # of the estimate from a sample (Miller 1955)
    assert drawn + bias == pytest.approx(population.entropies[relation], abs=0.005)


def test_all_dates_occur():
    population = Population(0, TINY._replace(lasts=2000))
    dates = {facts["birthdate"] for facts in population.facts(np.arange(20_000))}
    assert len(dates) == population.choices["birthdate"] == 12 * 28 * 2
    assert {"1 January 1900", "28 December 1901"} <= dates


def test_an_employer_has_one_city_and_it_has_no_bits_of_its_own():
    population = Population(0)
    people = population.facts(np.arange(5000))
    assert len({(facts["worked"], facts["workplace"]) for facts in people}) == len({one["worked"] for one in people})
    assert len({facts["workplace"] for facts in people}) > 100
    assert COUNTED_WITH["workplace"] == "worked"
    assert "workplace" not in population.entropies


def test_no_value_begins_with_another_one():
    for values in invent_lists(0, Sizes()).values():
        ordered = sorted(values)
        assert not any(after.startswith(before) for before, after in pairwise(ordered))
    words = iter(["Bo", "Bo", "Bolin", "B", "Ada"])
    assert invent_values(2, lambda: next(words)) == ["Bo", "Ada"]


def test_a_biography_says_each_fact_once_and_marks_it():
    population = Population(0)
    numbers = np.arange(50)
    for facts, pieces in zip(population.facts(numbers), population.biographies(numbers, numbers), strict=True):
        said = {piece.fact: piece.text for piece in pieces if piece.fact}
        assert said == facts
        assert len([piece for piece in pieces if piece.fact]) == len(facts)
        text = join_pieces(pieces)
        assert text.startswith(f"{facts['name']} ")
        assert text.count(" .") == 6
        assert text.count(f" {facts['pronoun']} ") == 5


def test_versions_differ_in_words_and_order():
    population = Population(0)
    versions = np.arange(2 * WORDINGS)
    layouts = population.layouts(np.full_like(versions, 7), versions)
    for relation in PREDICATES:
        for some in (layouts[:WORDINGS], layouts[WORDINGS:]):
            assert {layout[relation] for layout in some} == set(range(WORDINGS))
    assert len({tuple(layout) for layout in layouts}) > WORDINGS
    assert layouts[:WORDINGS] != layouts[WORDINGS:]
    assert all(len(set(predicates)) == WORDINGS for predicates in PREDICATES.values())


def test_there_are_as_many_documents_as_wordings():
    (person, *_) = make_source(wordings=3).read(0)
    assert len(set(person.documents)) == 3
    assert next(make_source(wordings=1).read(0)).documents == person.documents[:1]
    with pytest.raises(Exception, match="wordings must be at least 1, found 0"):
        make_source(wordings=0)


def test_what_it_does_not_have_is_refused():
    with pytest.raises(DataError, match="no relation 'pet'; it has pronoun, birthdate, birthplace"):
        make_source(["pet"])
    with pytest.raises(DataError, match="wanted at most 60 people, found 61"):
        make_source(people=61, sizes=TINY)


def test_a_corpus_is_prepared_from_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL_RECIPE)
    asked = "relations.field.question=What did {name} study?"
    recipe = load_recipe(path, ["data.source=bios_uniform", "data.people=60", "data.wordings=2", asked])
    corpus = prepare(recipe, tmp_path / "run")
    assert name_of(recipe) == "bios_uniform(60)"
    assert len(corpus.documents) == 120
    assert corpus.record["source"]["wordings"] == 2
    assert {relation.name for relation in corpus.relations} == {"birthplace", "field"}
    # Other sources have no wordings: their corpora are those of before.
    assert "wordings" not in settings_of(load_recipe(path, ["data.source=bios"]))["data"]
    with pytest.raises(UserError, match="at most 100000000"):
        load_recipe(path, ["data.source=bios_uniform", "data.people=200000000"])
