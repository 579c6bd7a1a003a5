"""The folder of a corpus: nobody's files are lost there, what is damaged is refused, runs share it."""

import json
import multiprocessing
import time

import pytest

from configuration.data_schema import RelationArguments
from configuration.file_system import locked
from data_scripts import prepare as preparation
from data_scripts.bios_folder import DataError
from data_scripts.corpus import RECORD, Corpus
from data_scripts.corpus_folder import LOCK
from data_scripts.prepare import prepare
from data_scripts.splits import load_training_data
from data_scripts.synthetic_bios import invent
from tests.running import MINIMAL_RECIPE, finish, recipe_of, start

SHARD = "00000.parquet"
STUDIED = RelationArguments("Where did {name} study?", answers="university")


def rows(count: int = 40) -> str:
    """Return the lines of people who have a birthplace."""
    people = (
        {"name": f"Ada{n} Stone", "text": f"Ada{n} Stone. She was born .", "birthplace": f"Rome{n % 5}"}
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in people)


@pytest.fixture
def make(tmp_path):
    """Return a function that prepares people of a file in the run's folder, or in `shared`."""

    def run(shared=None, text: str | None = None) -> Corpus:
        path = tmp_path / "people.jsonl"
        path.write_text(text or rows())
        recipe = recipe_of(tmp_path / "run", source="jsonl", path=path)
        recipe.prepare.folder = None if shared is None else str(shared)
        return prepare(recipe, tmp_path / "run" / "data")

    return run


@pytest.mark.parametrize("place", ["mine", "run/data/corpus"])
@pytest.mark.parametrize(
    "name", ["documents/thesis.pdf", "people/ada.txt", "parts/list.csv", "names.npy", "documents/00000.parquet", "x"]
)
def test_a_folder_with_somebody_s_own_files_is_refused_and_nothing_in_it_changes(make, tmp_path, name, place):
    mine = tmp_path / place / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DataError, match=rf"{place}: found {name.split('/')[0]} and no corpus"):
        make(tmp_path / place if place == "mine" else None)
    assert [path for path in (tmp_path / place).rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("begun", [RECORD, "parts/begun.json"])
def test_files_that_the_preparation_does_not_write_stay_where_it_starts_again(make, tmp_path, begun):
    folder = make().folder
    if begun != RECORD:
        (folder / RECORD).unlink()
        (folder / "parts").mkdir()
        (folder / begun).write_text("{}")
    mine = [folder / name for name in ("documents/notes.txt", "people/ada.parquet", "parts/list.csv", "own/a.txt")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert len(make(text=rows(30)).documents) == 30
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)


def test_the_folder_of_the_data_is_no_folder_for_the_corpus(tmp_path):
    invent(40).write(tmp_path / "files")
    recipe = recipe_of(tmp_path / "run", source="folder", path=tmp_path / "files")
    recipe.prepare.folder = str(tmp_path / "run" / ".." / "files")
    before = sorted(path.name for path in (tmp_path / "files").iterdir())
    with pytest.raises(DataError, match=r"prepare\.folder is where data\.path .* is; choose another"):
        prepare(recipe, tmp_path / "run" / "data")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == before


def test_a_folder_in_which_a_kill_has_left_no_record_yet_is_prepared(make, tmp_path):
    parts = tmp_path / "shared" / "parts"
    parts.mkdir(parents=True)
    (parts / ".begun.json.host.17.partial").write_text("{")
    assert len(make(tmp_path / "shared").documents) == 40


CHANGES = [  # what a message names, and what makes a record lack it
    ("no settings", lambda record: record.pop("settings")),
    (r"settings is \[\], wanted an object", lambda record: record.update(settings=[])),
    ("settings.data has no .*withheld_people", lambda record: record["settings"]["data"].pop("withheld_people")),
    ("no name", lambda record: record.pop("name")),
    ("no source", lambda record: record.pop("source")),
    ("no inputs", lambda record: record.pop("inputs")),
    ("dropped is None, wanted an object", lambda record: record.update(dropped=None)),
    ("people is 'x', wanted a count", lambda record: record.update(people="x")),
    ("no counts of the questions of birthplace", lambda record: record.update(questions={})),
    ("no counts of the questions of birthplace", lambda record: record.update(questions={"birthplace": 5})),
    ("relations: ", lambda record: record.update(relations=[3])),
]


@pytest.mark.parametrize(("message", "change"), CHANGES)
def test_a_record_that_lacks_something_is_refused_with_the_key(make, message, change):
    folder = make().folder
    record = json.loads((folder / RECORD).read_text())
    change(record)
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(DataError, match=rf"prepared\.json: not the record of a prepared corpus: {message}"):
        Corpus(folder)


@pytest.mark.parametrize("count", [10**6, 1])
def test_a_record_that_counts_other_documents_is_refused(make, count):
    folder = make().folder
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "documents": count}))
    with pytest.raises(DataError, match=f"not whole: found 40 documents, prepared.json counts {count}"):
        Corpus(folder)


@pytest.mark.parametrize("kind", ["documents", "questions", "people"])
def test_a_shard_that_is_missing_empty_or_cut_off_is_refused(make, kind):
    corpus = make()
    shard = corpus.folder / kind / SHARD
    contents = shard.read_bytes()
    for damaged in (b"", contents[:-100]):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{kind}/{SHARD}: cannot be read, it is cut off or damaged"):
            Corpus(corpus.folder)
    shard.unlink()
    with pytest.raises(DataError, match=f"not whole: found 0 {kind}, prepared.json counts 40"):
        Corpus(corpus.folder)


def test_a_shard_that_is_damaged_inside_is_refused_when_it_is_read(make):
    corpus = make()
    shard = corpus.folder / "documents" / SHARD
    contents = bytearray(shard.read_bytes())
    contents[4:400] = bytes(396)
    shard.write_bytes(contents)
    with pytest.raises(DataError, match=f"documents/{SHARD}: cannot be read, it is cut off or damaged"):
        list(Corpus(corpus.folder).documents)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {"da'])
@pytest.mark.parametrize("name", [RECORD, "parts/begun.json", f"parts/{SHARD}"])
def test_what_a_power_cut_leaves_in_a_run_s_own_folder_is_prepared_again(make, name, text):
    folder = make().folder
    if name != RECORD:
        record = json.loads((folder / RECORD).read_text())
        (folder / RECORD).unlink()
        (folder / "parts").mkdir()
        (folder / "parts/begun.json").write_text(json.dumps({key: record[key] for key in ("settings", "inputs")}))
    (folder / name).write_text(text)
    assert len(make().documents) == 40


def test_an_unreadable_record_of_a_shared_folder_is_refused(make, tmp_path):
    (make(tmp_path / "shared").folder / RECORD).write_text("")
    with pytest.raises(DataError, match=r"prepared\.json: cannot be read"):
        make(tmp_path / "shared")


def test_scored_questions_that_become_fewer_and_a_kill_before_they_are_counted(tmp_path, monkeypatch):
    invent(60).write(tmp_path / "files")
    recipe = recipe_of(tmp_path / "run", source="folder", path=tmp_path / "files")
    scored = len(prepare(recipe, tmp_path / "data", scored=True).questions("dev"))
    dev = tmp_path / "files" / "birth_dev.tsv"
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[: scored // 2]))

    def kill(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(preparation, "report_dropped", kill)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe, tmp_path / "data", scored=True)
    assert len(prepare(recipe, tmp_path / "data", scored=True).questions("dev")) == scored // 2


def test_a_prepared_corpus_without_any_relation_of_the_recipe_is_refused(tmp_path, make):
    corpus = make()
    other = {"studied": RelationArguments(STUDIED.question, optional=True)}
    recipe = recipe_of(tmp_path / "other", path=corpus.folder, relations=other)
    with pytest.raises(DataError, match="has no training question of studied; it asks for birthplace"):
        load_training_data(recipe, tmp_path / "other")


def test_a_prepared_corpus_that_asks_in_other_words_is_refused_with_both(tmp_path, make):
    corpus = make()
    words = {"birthplace": RelationArguments("Whence came {name}?")}
    recipe = recipe_of(tmp_path / "other", path=corpus.folder, relations=words)
    with pytest.raises(DataError, match=r"'Whence came \{name\}\?', but the corpus asks 'Where was \{name\} born\?'"):
        load_training_data(recipe, tmp_path / "other")


MADE_WITH = {"max_people": 30, "train_fraction": 0.75, "names": "all", "columns": {"birthplace": "birthplace"}}


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_people", 20), ("train_fraction", 0.25), ("columns", {"name": "title"}), ("names", "all")],
)
def test_a_prepared_corpus_is_not_opened_with_other_settings(tmp_path, key, value):
    path = tmp_path / "people.jsonl"
    path.write_text(rows())
    made_with = {**MADE_WITH, "names": "unique"} if key == "names" else MADE_WITH
    made = recipe_of(tmp_path / "run", source="jsonl", path=path, **made_with)
    corpus = prepare(made, tmp_path / "run" / "data")
    for accepted in (made_with, {}, {"people": 50}):  # its own recipe's, defaults, and what no JSONL file reads
        opened = recipe_of(tmp_path / "same", source="prepared", path=corpus.folder, **accepted)
        assert prepare(opened, tmp_path / "same").rows == corpus.rows
    other = recipe_of(tmp_path / "other", source="prepared", path=corpus.folder, **{**made_with, key: value})
    with pytest.raises(DataError, match=f"prepared with data.{key} .*, which cannot be .* any more"):
        prepare(other, tmp_path / "other")


def prepare_slowly(folder, run, results):
    """Prepare people in a shared folder, each part in some time, and say how many documents there are."""
    written = preparation.write_part

    def slow(source, relations, parts, number):
        time.sleep(1)
        results.put("built")
        written(source, relations, parts, number)

    preparation.write_part = slow
    recipe = recipe_of(run, source="jsonl", path=run.parent / "people.jsonl")
    recipe.prepare.folder = str(folder)
    try:
        results.put(len(prepare(recipe, run / "data").documents))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")


def test_of_two_runs_that_share_a_folder_one_prepares_and_both_read(tmp_path):
    (tmp_path / "people.jsonl").write_text(rows())
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    runs = [
        context.Process(target=prepare_slowly, args=(tmp_path / "shared", tmp_path / name, results))
        for name in ("first", "second")
    ]
    for process in runs:
        process.start()
    found = [results.get(timeout=60) for _ in range(3)]
    for process in runs:
        process.join(30)
    assert sorted(map(str, found)) == ["40", "40", "built"]
    assert results.empty()


def test_a_command_that_waits_for_another_run_says_so_and_then_continues(make, tmp_path):
    shared = tmp_path / "shared"
    with locked(shared / LOCK):
        sets = (f"data.path={tmp_path / 'people.jsonl'}", f"prepare.folder={shared}", f"output={tmp_path / 'other'}")
        (tmp_path / "people.jsonl").write_text(rows())
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(MINIMAL_RECIPE)
        waiting = start(["prepare", "--config", str(recipe), *(word for one in sets for word in ("--set", one))])
        deadline = time.monotonic() + 60
        while "waiting for" not in waiting.err.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not (shared / RECORD).exists()
    result = finish(waiting)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(f"waiting for another run that is using {shared}; if there is none, remove") == 1
    assert len(make(shared).documents) == 40
