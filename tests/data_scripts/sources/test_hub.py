"""People of a data set on the Hub: four shards on loopback, and every way in which a data set may not be there."""

import pickle

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.sources.hub import HubSource
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

STUDIED = Relation("studied", "Where did {name} study?")
CARD = """---
license: cc-by-4.0
configs:
- config_name: people
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
- config_name: others
  data_files: others.jsonl
---
"""


def write_shard(path, numbers, **columns):
    """Write a shard of invented people."""
    table = {"name": [f"Person {n}" for n in numbers], "birthplace": [f"Town {n % 3}" for n in numbers]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({**table, **columns}), path, row_group_size=3)


@pytest.fixture
def people(datasets_hub, tmp_path):
    """The same Hub with a data set of twenty people in four shards, two more in a test split, and a card."""
    folder = tmp_path / "people"
    for number in range(4):
        numbers = range(5 * number, 5 * number + 5)
        texts = [[f"Person {n} was here .", f"Twice {n} ."] for n in numbers]
        write_shard(folder / f"data/train-0000{number}-of-00004.parquet", numbers, text=texts, unread=[b"x" * 99] * 5)
    write_shard(folder / "data/test-00000-of-00001.parquet", [20, 21])
    (folder / "others.jsonl").write_text('{"name": "Ada", "studied": null}\n{"name": "Bo", "studied": "Turku"}\n')
    (folder / "README.md").write_text(CARD)
    datasets_hub.put("datasets/someone/people", folder)
    return datasets_hub


def source(path="someone/people", config="people", **options) -> HubSource:
    """Return the source of a data set."""
    return HubSource(DataArguments(source="hub", path=path, config=config, **options), [BIRTHPLACE, STUDIED])


def read(source: HubSource) -> list:
    """Return the people of all parts."""
    return [person for part in range(source.parts()) for person in source.read(part)]


def refusal(source: HubSource) -> str:
    """Return the line with which a source is refused."""
    with pytest.raises(DataError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_four_shards_are_four_parts_in_order(people):
    found = source()
    assert found.parts() == 4
    persons = read(found)
    assert [person.name for person in persons] == [f"Person {n}" for n in range(20)]
    assert persons[6].documents == ["Person 6 was here .", "Twice 6 ."]
    assert persons[6].facts == {"birthplace": ["Town 0"]}
    assert persons[6].id == "Person 6\tdata/train-00001-of-00004:2"
    assert persons[6].where == "someone/people/data/train-00001-of-00004.parquet: row 2"


def test_the_commit_and_the_licence_are_written_down(people):
    commit = people.repositories["datasets/someone/people"].commit_id("main", -1)
    found = source()
    assert found.inputs() == {"someone/people": commit}
    assert found.describe() == {
        "source": "hub", "path": "someone/people", "config": "people", "split": "train", "revision": commit,
        "license": "cc-by-4.0",
    }  # fmt: skip


def test_a_push_between_two_parts_changes_nothing(people, tmp_path):
    found = source()
    found.parts()
    write_shard(tmp_path / "new/data/train-00000-of-00001.parquet", [99])
    people.put("datasets/someone/people", tmp_path / "new")
    sent = pickle.loads(pickle.dumps(found))  # as a task elsewhere gets it
    assert [person.name for person in sent.read(3)] == [f"Person {n}" for n in range(15, 20)]


def test_another_split_and_another_config(people):
    assert [person.name for person in read(source(split="test"))] == ["Person 20", "Person 21"]
    others = read(source(config="others"))
    assert [(person.name, person.facts) for person in others] == [("Ada", {}), ("Bo", {"studied": ["Turku"]})]


def test_a_data_set_without_a_card_has_the_files_of_its_split(datasets_hub, tmp_path):
    write_shard(tmp_path / "plain/train-1.parquet", [3])
    write_shard(tmp_path / "plain/train-0.parquet", [1, 2])
    datasets_hub.put("datasets/someone/plain", tmp_path / "plain")
    found = source("someone/plain", None)
    assert [person.name for person in read(found)] == ["Person 1", "Person 2", "Person 3"]
    assert found.describe()["license"] is None


@pytest.mark.parametrize("number", [1, 5, 7, 20, 99])
def test_the_first_people_whatever_part_is_read_first(people, number):
    found = source(max_people=number)
    parts = range(found.parts())
    backwards = {part: [person.name for person in found.read(part)] for part in reversed(parts)}
    assert [name for part in parts for name in backwards[part]] == [f"Person {n}" for n in range(min(number, 20))]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize(("number", "rows"), [(1, 3), (2, 6), (3, 9), (99, 12)])
def test_the_first_people_have_all_their_rows_in_files_that_follow_each_other(
    datasets_hub, tmp_path, kind, number, rows
):
    folder = tmp_path / "long"
    folder.mkdir()
    for shard, start in enumerate((0, 5, 9)):  # the second person is in two shards, the third in the second alone
        ids = [one // 3 for one in range(12)][start : (5, 9, 12)[shard]]
        table = pyarrow.table({"id": ids, "name": [f"Person {one}" for one in ids], "birthplace": ["Rome"] * len(ids)})
        path = folder / f"train-{shard}.{kind}"
        pyarrow.parquet.write_table(table, path) if kind == "parquet" else pyarrow.csv.write_csv(table, path)
    datasets_hub.put("datasets/someone/long", folder)
    found = source("someone/long", None, max_people=number)
    assert [person.id for person in read(found)] == [str(one // 3) for one in range(rows)]
    assert found.parts() == (1 if kind == "csv" or number == 1 else 2 if number < 4 else 3)


def test_the_first_people_of_files_that_do_not_say_how_many(datasets_hub, tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    for number in range(3):
        lines = [f'{{"name": "Person {3 * number + n}", "birthplace": "Rome"}}\n' for n in range(3)]
        (folder / f"train-{number}.jsonl").write_text("".join(lines))
    datasets_hub.put("datasets/someone/lines", folder)
    assert source("someone/lines", None).parts() == 3
    found = source("someone/lines", None, max_people=5)
    assert found.parts() == 1
    assert [person.name for person in read(found)] == [f"Person {n}" for n in range(5)]


def test_csv_files_on_the_hub(datasets_hub, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "train.csv").write_text('name;birthplace\n"Lind; Bo";Oslo\nAda;\n')
    datasets_hub.put("datasets/someone/tables", folder)
    reading = source("someone/tables", None).read(0)
    assert next(reading).name == "Lind; Bo"
    with pytest.raises(DataError, match=r"^someone/tables/train.csv:3: birthplace: the answer is empty"):
        next(reading)


def test_an_empty_shard_has_nobody(people, tmp_path):
    write_shard(tmp_path / "gaps/train-0.parquet", [])
    write_shard(tmp_path / "gaps/train-1.parquet", [1])
    people.put("datasets/someone/gaps", tmp_path / "gaps")
    assert [person.name for person in read(source("someone/gaps", None))] == ["Person 1"]
    assert [person.name for person in read(source("someone/gaps", None, max_people=1))] == ["Person 1"]


def test_no_such_data_set(datasets_hub):
    assert refusal(source("someone/nobody")) == ("someone/nobody: no such folder, and no such data set on the Hub")


def test_a_token_is_needed(people, monkeypatch):
    people.token = "another"
    assert refusal(source()) == (
        "someone/people: no such folder, and no such data set on the Hub; if it is private, log in by"
        " `hf auth login` or set HF_TOKEN"
    )


def test_refused_to_this_token(people):
    people.refusal = ("/api/datasets", 403)
    assert "(status 403): log in by `hf auth login` or set HF_TOKEN" in refusal(source())


def test_a_gated_data_set(people):
    people.repositories["datasets/someone/people"].gated = True
    assert refusal(source()) == (
        "someone/people: a gated data set: ask for access on its page on the Hub, and log in by `hf auth login` or set"
        " HF_TOKEN"
    )


def test_no_network(people):
    people.refusal = ("/api/", 0)
    assert refusal(source()).startswith("someone/people: no such folder, and the Hub cannot be reached: ")


def test_the_network_ends_within_a_part(people):
    found = source()
    found.parts()
    people.refusal = ("/data/train-00002", 0)
    with pytest.raises(DataError, match=r"someone/people/data/train-00002-of-00004.parquet: .*cannot be reached"):
        list(found.read(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "peple"}, "someone/people: no config peple; did you mean people?"),
        ({"config": None}, "someone/people: no configuration is chosen by data.config; known: people, others"),
        ({"split": "dev"}, "someone/people: no split dev; known: train, test"),
        ({"revision": "man"}, "someone/people: no revision man; did you mean main?"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(people, options, message):
    assert refusal(source(**options)) == message


def test_no_such_column_names_those_there(people):
    assert refusal(source(columns={"name": "nam"})) == (
        "someone/people/data/train-00000-of-00004.parquet: no column nam (data.columns.name);"
        " found name, birthplace, text, unread; did you mean name?"
    )


def test_a_shard_that_is_cut_off_is_named(people, tmp_path):
    folder = tmp_path / "people"
    path = folder / "data/train-00002-of-00004.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    people.put("datasets/someone/people", folder)
    message = refusal(source())
    assert message.startswith("someone/people/data/train-00002-of-00004.parquet: no Parquet file, or one that is cut")
    assert refusal(source(max_people=20)) == message


def test_a_file_of_another_kind(datasets_hub, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.txt").write_text("Ada\n")
    datasets_hub.put("datasets/someone/texts", folder)
    message = refusal(source("someone/texts", None))
    assert message == "someone/texts/train.txt: wanted a file that ends in .parquet, .jsonl, .json, .csv, .tsv"
