"""People of Wikipedia, joined with statements of Wikidata: both are made up, in the layout of the real ones."""

import json
import pickle
import sys

import pyarrow
import pyarrow.parquet
import pytest

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.prepare import prepare
from data_scripts.sources.structured_wikipedia import StructuredWikipediaSource
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from tests.running import recipe_of

pytest.importorskip("duckdb")
BORN = Relation("born", "When was {name} born?", answers="year")
ARTICLES = [
    [("Ada", "Ada was a poet .", "Q1"), ("Rome", "Rome is a city .", "Q101"), ("Bo", None, "Q2")],
    [("Cyd", "Cyd\nwas a king .", "Q3"), ("Nothing", "No entity .", None), ("Dee", "Dee ran .", "Q4")],
]
STATEMENTS = [
    ("Q3", "P19", "Q103"), ("Q3", "P19", "Q101"), ("Q3", "P19", "Q103"), ("Q1", "P19", "Q101"), ("Q1", "P69", "Q102"),
    ("Q2", "P569", "1852"), ("Q4", "P19", "Q999"), ("Q9", "P19", "Q101"),
]  # fmt: skip
LABELS = [("Q101", "Rome"), ("Q102", "Turku"), ("Q103", "Oslo ")]


def write(path, **columns):
    """Write a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_articles(folder, as_json: bool):
    """Write the articles in two shards, with columns that are not read."""
    for number, rows in enumerate(ARTICLES):
        names, abstracts, ids = zip(*rows, strict=True)
        entities = [None if one is None else {"identifier": one, "url": f"https://wikidata/{one}"} for one in ids]
        if as_json:
            entities = [json.dumps(entity) for entity in entities]
        columns = {"name": names, "abstract": abstracts, "main_entity": entities, "infoboxes": ["[]"] * len(names)}
        write(folder / f"enwiki-{number}.parquet", **columns)


@pytest.fixture
def folders(tmp_path):
    """Folders of articles and of statements."""
    write_articles(tmp_path / "articles", as_json=False)
    for number, rows in enumerate((STATEMENTS[:4], STATEMENTS[4:])):
        subjects, properties, objects = zip(*rows, strict=True)
        write(
            tmp_path / f"wikidata/statements-{number}.parquet", subject=subjects, property=properties, object=objects
        )
    ids, labels = zip(*LABELS, strict=True)
    write(tmp_path / "wikidata/labels.parquet", id=ids, label=labels)
    return tmp_path


def source(folders, **options) -> StructuredWikipediaSource:
    """Return the source of the two folders."""
    paths = {"path": str(folders / "articles"), "statements": str(folders / "wikidata")}
    fields = {**paths, "properties": {"birthplace": "P19", "born": "P569"}, **options}
    return StructuredWikipediaSource(DataArguments(source="structured_wikipedia", **fields), [BIRTHPLACE, BORN])


def read(found) -> list:
    """Return the people of all parts."""
    return [person for part in range(found.parts()) for person in found.read(part)]


def refusal(folders, **options) -> str:
    """Return the line with which the source is refused, without the folder."""
    with pytest.raises(DataError) as error:
        read(source(folders, **options))
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folders}/", "")


@pytest.mark.parametrize("as_json", [False, True])
def test_people_are_those_with_a_statement(folders, as_json):
    write_articles(folders / "articles", as_json)
    found = source(folders)
    assert found.parts() == 2
    assert [(person.id, person.name, person.documents, person.facts) for person in read(found)] == [
        ("Q1", "Ada", ["Ada was a poet ."], {"birthplace": ["Rome"]}),
        ("Q2", "Bo", [], {"born": ["1852"]}),
        ("Q3", "Cyd", ["Cyd was a king ."], {"birthplace": ["Oslo", "Rome"]}),  # in the statements' order
    ]


def test_the_first_people(folders):
    assert [person.id for person in read(source(folders, max_people=2))] == ["Q1", "Q2"]
    assert [person.id for person in read(source(folders, max_people=3))] == ["Q1", "Q2", "Q3"]


def test_a_part_is_the_same_in_another_process(folders):
    found = source(folders)
    first = list(found.read(1))
    assert list(pickle.loads(pickle.dumps(found)).read(1)) == first


def test_what_is_written_down(folders):
    found = source(folders)
    about = found.describe()
    assert about["license"] == "cc-by-sa-4.0"
    assert about["properties"] == {"birthplace": "P19", "born": "P569"}
    names = ["enwiki-0.parquet", "enwiki-1.parquet", "statements-0.parquet", "statements-1.parquet", "labels.parquet"]
    before = found.inputs()
    assert list(before) == names
    write(folders / "wikidata/labels.parquet", id=["Q101"], label=["Roma"])
    after = source(folders).inputs()
    assert [name for name in names if before[name] != after[name]] == ["labels.parquet"]


@pytest.mark.parametrize("name", ["articles/enwiki-1.parquet", "wikidata/labels.parquet"])
def test_a_local_file_that_changes_is_noticed_and_a_branch_that_moves_is_not(folders, name):
    prepared = source(folders).inputs()
    assert not source(folders).has_changed(prepared)
    (folders / name).unlink()
    write(folders / name, other=[1], id=["Q101"], label=["Roma"])
    assert source(folders).has_changed(prepared)
    articles = {"someone/articles": "1" * 40}
    on_hub = source(folders, path="someone/articles", statements="someone/wikidata")
    assert not on_hub.has_changed({**articles, "labels.parquet": "0"})
    statements = {key: digest for key, digest in prepared.items() if not key.startswith("enwiki")}
    mixed = source(folders, path="someone/articles")
    assert mixed.has_changed({**articles, **statements}) == name.startswith("wikidata")


def test_a_changed_folder_of_articles_is_prepared_again(folders):
    keys = {"path": folders / "articles", "statements": str(folders / "wikidata")}
    recipe = recipe_of(folders / "run", source="structured_wikipedia", properties={"birthplace": "P19"}, **keys)
    recipe.data.train_fraction = 1.0
    before = list(prepare(recipe, folders / "run").documents)
    write(
        folders / "articles/enwiki-0.parquet",
        name=["Eve"],
        abstract=["Eve sang ."],
        main_entity=[json.dumps({"identifier": "Q9"})],
    )
    after = list(prepare(recipe, folders / "run").documents)
    assert "Eve. Eve sang ." in after
    assert "Eve. Eve sang ." not in before


def test_articles_and_statements_on_the_hub(folders, datasets_hub):
    commit = datasets_hub.put("datasets/someone/articles", folders / "articles")
    datasets_hub.put("datasets/someone/wikidata", folders / "wikidata")
    found = source(folders, path="someone/articles", statements="someone/wikidata")
    assert [person.id for person in read(found)] == ["Q1", "Q2", "Q3"]
    assert found.describe()["revision"] == found.inputs()["someone/articles"] == commit
    assert "labels.parquet" in found.inputs()
    nowhere = refusal(folders, statements="someone/nowhere")
    assert nowhere == "someone/nowhere: no such folder, and no such data set on the Hub"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"properties": {}}, "data.properties is not set; wanted a property of birthplace or born, as P19"),
        ({"properties": {"birthplce": "P19"}}, "data.properties: no relation birthplce; did you mean birthplace?"),
        ({"properties": {"born": "birth"}}, "data.properties.born: found 'birth', wanted a property's id, as P19"),
        (
            {"statements": None},
            "data.statements is not set; wanted a folder, or a data set on the Hub, of Wikidata st",
        ),
        ({"statements": "/no/where"}, "/no/where: no such folder; data.statements is one with statements, labels*.pa"),
    ],
)
def test_bad_options(folders, options, message):
    assert refusal(folders, **options).startswith(message)


def test_without_duckdb_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert refusal(folders).endswith("pip install 'minigpt-lab[scale]'")
    prepared = source(folders).inputs()
    assert not source(folders).has_changed(prepared)  # what is prepared is opened without


@pytest.mark.parametrize("name", ["articles/enwiki-1.parquet", "wikidata/statements-1.parquet"])
def test_a_file_that_is_cut_off_is_named(folders, name):
    path = folders / name
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(folders).startswith(f"{name}: no Parquet file, or one that is cut off: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("articles/enwiki-0.parquet", "articles/enwiki-0.parquet: no column name, abstract, main_entity; found other"),
        ("wikidata/labels.parquet", "wikidata/labels.parquet: no column id, label; found other"),
        (
            "wikidata/statements-0.parquet",
            "wikidata/statements-0.parquet: no column subject, property, object; found o",
        ),
    ],
)
def test_a_file_without_the_columns(folders, name, message):
    write(folders / name, other=[1])
    assert refusal(folders).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("articles", "articles: no *.parquet; wanted those of structured-wikipedia"),
        ("wikidata", "wikidata: no statements*.parquet; wanted one with the columns subject, property, object"),
    ],
)
def test_an_empty_folder(folders, name, message):
    for path in (folders / name).iterdir():
        path.unlink()
    assert refusal(folders) == message


@pytest.mark.parametrize(
    ("entity", "found"), [("{", "'{', wanted JSON"), ('{"identifier": 7}', "'7', wanted an object")]
)
def test_an_entity_of_another_form(folders, entity, found):
    write(folders / "articles/enwiki-0.parquet", name=["Ada"], abstract=["Text ."], main_entity=[entity])
    assert refusal(folders).startswith(f"articles/enwiki-0.parquet: row 1: main_entity: found {found}")
