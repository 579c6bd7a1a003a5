"""The published data sets: what a dry run writes, that it loads by name without code, and what is refused."""

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from configuration.schema import CorruptionOptions
from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.span_corruption import TextCorruptor
from hub import publish_data
from tests.conftest import CLEAN_FILES
from tests.running import contents, run_stranger
from tests.two_relations import SCHOOLS, write_two_relations

NAME = "somebody/birthplaces"
CONFIGURATIONS = {
    "biographies": {"train"},
    "span_corruption": {"train"},
    "birthplace": {"train", "validation", "test"},
    "strangers": {"calibration", "evaluation"},
}


def dry_run(target, *options):
    return publish_data.main([NAME, "--dry-run", str(target), *map(str, options)])


@pytest.fixture
def release(data, tmp_path):
    """What would be published of 40 invented people, as a folder of theirs."""
    assert dry_run(tmp_path / "out", "--path", data, "--license", "cc0-1.0", "--epochs", 2) == 0
    return tmp_path / "out"


def test_every_configuration_loads_by_its_name(release, data, tmp_path):
    loaded = {name: load_dataset(str(release), name, cache_dir=str(tmp_path / "cache")) for name in CONFIGURATIONS}
    assert {name: set(parts) for name, parts in loaded.items()} == CONFIGURATIONS
    assert loaded["biographies"]["train"]["text"] == read_lines(data / FILES["documents"])
    rows = loaded["birthplace"]["validation"]
    asked = read_questions(data / FILES["validation"])
    assert rows["question"][:] == [question.text for question in asked]
    assert rows["place"][:] == [question.answer for question in asked]
    assert set(loaded["birthplace"]["test"]["place"]) == {None}
    default = load_dataset(str(release), cache_dir=str(tmp_path / "cache"))
    assert set(default) == CONFIGURATIONS["birthplace"]


STUDIED = "studied=Where did {name} study?"


def test_each_relation_is_a_configuration_of_its_own(tmp_path):
    data = write_two_relations(tmp_path / "data")
    options = ("--path", data, "--license", "cc0-1.0", "--strangers", 5, "--relation", STUDIED)
    assert dry_run(tmp_path / "out", *options) == 0
    cache = str(tmp_path / "cache")
    born, studied = (load_dataset(str(tmp_path / "out"), name, cache_dir=cache) for name in ("birthplace", "studied"))
    assert born["train"].column_names == ["id", "name", "question", "place"]
    assert studied["train"].column_names == ["id", "name", "question", "answers"]
    assert set(studied) == {"train", "validation", "test"}
    assert {answer for row in studied["validation"]["answers"] for answer in row} <= set(SCHOOLS)
    assert set(map(tuple, studied["test"]["answers"])) == {()}
    assert studied["train"]["question"][0] == f"Where did {studied['train']['name'][0]} study?"
    strangers = load_dataset(str(tmp_path / "out"), "strangers", split="evaluation", cache_dir=cache)
    assert strangers["relation"][:2] == ["birthplace", "studied"]
    assert strangers["name"][0] == strangers["name"][1]
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert '"Where did NAME study?" and the answer' in card.text


def test_a_relation_alone_is_the_default_configuration(tmp_path):
    data = write_two_relations(tmp_path / "data", birthplaces=False)
    assert dry_run(tmp_path / "out", "--path", data, "--license", "mit", "--relation", STUDIED) == 0
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["id", "name", "question", "answers"]
    assert not (tmp_path / "out" / "birthplace").exists()


def test_a_folder_without_questions_of_which_nobody_says_the_answer_is_published(tmp_path):
    data = write_two_relations(tmp_path / "data", birthplaces=False)
    (data / FILES["test"]).unlink()
    assert dry_run(tmp_path / "out", "--path", data, "--license", "mit", "--relation", STUDIED) == 0
    rows = load_dataset(str(tmp_path / "out"), "studied", cache_dir=str(tmp_path / "cache"))
    assert set(rows) == {"train", "validation"}


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        pytest.param("studied", "wanted NAME=QUESTION", id="no-question"),
        pytest.param("a/b=Where did {name} study?", "wanted NAME=QUESTION", id="no-name-of-a-folder"),
        pytest.param("studied=Where?", "has {name} exactly once", id="no-place-for-the-name"),
        pytest.param("strangers=Where did {name} study?", "is the name of another configuration", id="taken"),
        pytest.param(STUDIED, "found no question of the relation studied", id="nobody-asks"),
    ],
)
def test_a_relation_that_cannot_be_published_is_one_line(relation, message, data, tmp_path, capsys):
    assert dry_run(tmp_path / "out", "--path", data, "--license", "mit", "--relation", relation) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_corrupted_texts_are_those_that_training_would_make(release, data, tmp_path):
    rows = load_dataset(str(release), "span_corruption", split="train", cache_dir=str(tmp_path / "cache"))
    lines = read_lines(data / FILES["documents"])
    answers = frozenset(question.answer for question in read_questions(data / FILES["train"]))
    assert len(rows) == 2 * len(lines)
    row = rows[len(lines) + 3]
    assert [row["text"]] == TextCorruptor(lines, CorruptionOptions(), answers).corrupt(0, [1], [3], "⁇")
    assert (row["epoch"], row["id"]) == (1, 3)


def test_strangers_are_nobody(release, data, tmp_path):
    parts = load_dataset(str(release), "strangers", cache_dir=str(tmp_path / "cache"))
    everything = "\n".join((data / name).read_text() for name in FILES.values())
    names = [name for part in parts.values() for name in part["name"]]
    assert len(names) == len(set(names)) > 50
    assert not any(name in everything for name in names)


def test_the_card_tells_sizes_features_provenance_and_licence(release):
    card = DatasetCard.load(release / "README.md")
    assert card.data.license == "cc0-1.0"
    assert {one["config_name"] for one in card.data.configs} == set(CONFIGURATIONS)
    features = {one["config_name"]: [column["name"] for column in one["features"]] for one in card.data.dataset_info}
    assert features["birthplace"] == ["id", "name", "question", "place"]
    assert "`wiki.txt` (" in card.text
    assert "policy salient-span" in card.text
    assert f'load_dataset("{NAME}", "birthplace")' in card.text
    assert "train 20, validation 15, test 5" in card.text


def test_invented_people_need_no_folder_and_tell_their_ceiling(tmp_path):
    assert dry_run(tmp_path / "out", "--people", 30, "--seed", 4) == 0
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert "--people 30 --seed 4" in card.text
    assert "validation questions can be answered" in card.text
    assert card.data.license == "apache-2.0"


def test_pushed_data_load_from_the_hub_without_code(data, hub, tmp_path):
    options = ["--path", str(data), "--license", "cc0-1.0", "--strangers", "30"]
    assert publish_data.main([NAME, *options]) == 0
    assert hub.commits(f"datasets/{NAME}") == 1
    assert dry_run(tmp_path / "same", *options) == 0
    assert hub.files(f"datasets/{NAME}") == contents(tmp_path / "same")
    script = f"""
from datasets import load_dataset
print(load_dataset("{NAME}", "birthplace", split="validation")[0]["question"])
print(len(load_dataset("{NAME}", "strangers", split="evaluation")))
try:
    load_dataset("{NAME}", "deathplace")
except ValueError as error:
    print("refused")
"""
    asked = run_stranger(script, tmp_path / "home", hub.address)
    assert asked.returncode == 0, asked.stderr
    question = read_questions(data / FILES["validation"])[0].text
    assert asked.stdout.splitlines() == [question, "30", "refused"]
    assert publish_data.main([NAME, *options]) == 0  # again, over the first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--people", "3"], "wanted 20 to 1,000,000 people, found 3", id="few-people"),
        pytest.param(["--people", "20000000"], "wanted 20 to 1,000,000 people, found 20000000", id="many-people"),
        pytest.param(["--path", "nowhere", "--license", "mit"], "nowhere: no such folder", id="no-folder"),
    ],
)
def test_data_that_cannot_be_used_are_one_line(options, message, tmp_path, capsys):
    assert dry_run(tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_broken_line_is_named_and_nothing_is_pushed(tiny_folder, hub, capsys):
    (tiny_folder / FILES["train"]).write_text(CLEAN_FILES["birth_places_train.tsv"] + "Where was Bo born?\n")
    assert publish_data.main([NAME, "--path", str(tiny_folder), "--license", "mit"]) == 2
    assert "birth_places_train.tsv:2: found 0 tabs" in capsys.readouterr().err
    assert hub.repositories == {}


@pytest.mark.parametrize("options", [["--people", "30", "--epochs", "0"], ["--path", "x"], []])
def test_command_lines_that_say_too_little_are_refused(options, capsys):
    with pytest.raises(SystemExit) as exit:
        publish_data.main([NAME, *options])
    assert exit.value.code == 2
    assert "error: " in capsys.readouterr().err
