"""What will be downloaded is said in one line before it is, with the bytes that the Hub has of it."""

import json
import logging
import re

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.wikipedia_rows import CONFIG, write_wikipedia
from data_scripts import prepare as preparation
from data_scripts.prepare import prepare
from data_scripts.sources.downloads import Download, describe_downloads, write_bytes
from tests.running import recipe_of

ARTICLES = "wikimedia/structured-wikipedia"
STATEMENTS = "someone/wikidata"


@pytest.fixture
def files(tmp_path):
    """Folders of 200 made-up articles and of statements."""
    write_wikipedia(tmp_path / "made-up", 200)
    return tmp_path / "made-up"


@pytest.fixture
def wikipedia(datasets_hub, files):
    """A Hub that has them."""
    datasets_hub.put(f"datasets/{ARTICLES}", files / "articles")
    datasets_hub.put(f"datasets/{STATEMENTS}", files / "wikidata")
    return datasets_hub


@pytest.fixture
def lines(caplog):
    """What has been logged of downloads."""
    caplog.set_level(logging.INFO, "data_scripts.prepare")
    return lambda: [record.message for record in caplog.records if record.message.startswith("downloading ")]


def recipe(tmp_path, name="run", **data):
    """Return a recipe for made-up articles."""
    paths = {"path": ARTICLES, "statements": STATEMENTS, "config": CONFIG}
    fields = {"source": "structured_wikipedia", "properties": {"birthplace": "P19"}, **paths, **data}
    return recipe_of(tmp_path / name, **fields)


def size_of(folder, pattern) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def test_articles_and_statements_are_named_with_their_sizes_and_places(wikipedia, files, tmp_path, lines):
    corpus = prepare(recipe(tmp_path, max_people=30), tmp_path / "run/data")
    (line,) = lines()
    assert corpus.record["people"] == 30
    articles, statements, place = line.split("; ")
    size = write_bytes(size_of(files / "articles", "*.parquet"))
    columns = "of which only the columns name, abstract, main_entity are read (about "
    assert articles.startswith(f"downloading {ARTICLES}: 4 files, {size}, {columns}")
    assert articles.endswith("until 30 people are found, not stored")
    read = int(re.search(r"about (\d+) kB", articles)[1])
    assert 0 < 5_000 * read < size_of(files / "articles", "*.parquet")
    size = write_bytes(size_of(files / "wikidata", "*.parquet"))
    assert statements.startswith(f"{STATEMENTS}: 2 files, {size}, to {tmp_path / 'cache'} (")
    assert place.startswith(f"the corpus goes to {tmp_path / 'run/data/corpus'} (")
    assert line.count("B free)") == 2


def test_the_line_comes_before_the_first_large_byte(wikipedia, tmp_path, monkeypatch):
    before = []

    def note(*arguments):
        before.extend(request for request in wikipedia.requests if request.startswith("GET") and "resolve" in request)
        return describe_downloads(*arguments)

    monkeypatch.setattr(preparation, "describe_downloads", note)
    prepare(recipe(tmp_path), tmp_path / "run/data")
    # The card, and the last file's end, which has the sizes of its columns.
    assert {request.rsplit("/", 1)[1] for request in before} == {"README.md", "enwiki-0003.parquet"}


def test_statements_that_are_there_are_not_counted_again(wikipedia, files, tmp_path, lines):
    prepare(recipe(tmp_path, "first"), tmp_path / "first/data")
    prepare(recipe(tmp_path, "second"), tmp_path / "second/data")
    size = write_bytes(size_of(files / "wikidata", "*.parquet"))
    assert [f", {size} of it already there" in line for line in lines()] == [False, True]


def test_a_corpus_that_is_there_downloads_nothing_and_says_nothing(wikipedia, tmp_path, lines):
    prepare(recipe(tmp_path), tmp_path / "run/data")
    before = len(wikipedia.requests)
    prepare(recipe(tmp_path), tmp_path / "run/data")
    assert len(lines()) == 1
    assert len(wikipedia.requests) == before


def test_sizes_that_cannot_be_read_are_said_to_be_unknown(wikipedia, tmp_path, lines):
    wikipedia.refusal = ("paths-info", 500)
    corpus = prepare(recipe(tmp_path), tmp_path / "run/data")
    (line,) = lines()
    assert f"{ARTICLES}: 4 files, of unknown size (the Hub answers with status 500: " in line
    assert "main_entity are read, not stored" in line
    assert corpus.record["people"] == 40


def test_local_files_are_no_download(files, tmp_path, lines):
    folders = {"path": str(files / "articles/enwiki/data"), "statements": str(files / "wikidata")}
    assert prepare(recipe(tmp_path, config=None, **folders), tmp_path / "run/data").record["people"] == 40
    assert not lines()


def test_only_the_files_that_the_first_people_are_in_count(datasets_hub, tmp_path, lines):
    folder = tmp_path / "people"
    folder.mkdir()
    for shard in range(4):
        names = [f"Ada{number} Stone" for number in range(20 * shard, 20 * shard + 20)]
        columns = {"name": names, "text": names, "birthplace": ["Rome"] * 20, "unread": names}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"train-{shard}.parquet")
    datasets_hub.put("datasets/someone/people", folder)
    prepare(recipe_of(tmp_path / "run", source="hub", path="someone/people", max_people=25), tmp_path / "run/data")
    (line,) = lines()
    assert line.startswith("downloading someone/people: 2 files, ")
    assert "the columns name, text, birthplace are read (about " in line


def test_lines_of_json_are_read_whole(datasets_hub, tmp_path, lines):
    (tmp_path / "people").mkdir()
    rows = [json.dumps({"name": f"Ada{n} Stone", "text": "Text .", "birthplace": "Rome"}) for n in range(40)]
    (tmp_path / "people/train.jsonl").write_text("\n".join(rows))
    datasets_hub.put("datasets/someone/people", tmp_path / "people")
    prepare(recipe_of(tmp_path / "run", source="hub", path="someone/people"), tmp_path / "run/data")
    assert lines()[0].startswith("downloading someone/people: 1 file, 3 kB, not stored; the corpus goes to ")


@pytest.mark.parametrize(
    ("number", "text"),
    [(43_900_000_000, "43.9 GB"), (1_200_000, "1.2 MB"), (12_345, "12 kB"), (90, "90 bytes"), (0, "0 bytes")],
)
def test_bytes_are_written_with_their_unit(number, text):
    assert write_bytes(number) == text
    assert str(Download("someone/people", 1, [number])) == f"someone/people: 1 file, {text}, not stored"
