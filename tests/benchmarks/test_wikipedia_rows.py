"""Made-up articles: the columns of the data set, people among other things, and facts that abstracts say."""

import json

import pyarrow.parquet as pq
import pytest

from benchmarks.wikipedia_rows import CONFIG, write_wikipedia
from configuration.data_schema import DataArguments
from data_scripts.sources.structured_wikipedia import StructuredWikipediaSource
from modeling_minigpt.relations_minigpt import BIRTHPLACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 333 articles."""
    path = tmp_path_factory.mktemp("wikipedia")
    write_wikipedia(path, 333)
    return path


def test_articles_have_the_columns_of_the_data_set(folder):
    files = sorted((folder / "articles/enwiki/data").glob("*.parquet"))
    tables = [pq.read_table(path) for path in files]
    assert sum(table.num_rows for table in tables) == 333
    assert {len(table.column_names) for table in tables} == {19}
    row = tables[0].to_pylist()[0]
    assert json.loads(row["infoboxes"])[0]["has_parts"][0]["name"] == "birthplace"
    assert row["abstract"] in json.loads(row["sections"])[0]["has_parts"][0]["value"]
    assert f"config_name: {CONFIG}" in (folder / "articles/README.md").read_text()


def test_people_are_every_fifth_article_and_most_abstracts_say_where_they_were_born(folder):
    data = DataArguments(
        source="structured_wikipedia",
        path=str(folder / "articles/enwiki/data"),
        statements=str(folder / "wikidata"),
        properties={"birthplace": "P19"},
    )
    source = StructuredWikipediaSource(data, [BIRTHPLACE])
    people = [person for part in range(source.parts()) for person in source.read(part)]
    assert len(people) == 67
    said = [person for person in people if person.facts["birthplace"][0] in person.documents[0]]
    assert 50 < len(said) < 67
    assert not [person for person in people if person.documents[0].startswith(f"{person.name}. ")]


def test_the_same_seed_gives_the_same_articles_and_another_seed_other_people(folder, tmp_path):
    write_wikipedia(tmp_path / "same", 333)
    write_wikipedia(tmp_path / "other", 333, seed=1)
    names = {}
    for path in (folder, tmp_path / "same", tmp_path / "other"):
        names[path.name] = pq.read_table(path / "articles/enwiki/data").column("name").to_pylist()[::5]
    assert names["same"] == names[folder.name]
    assert not set(names["same"]) & set(names["other"])
