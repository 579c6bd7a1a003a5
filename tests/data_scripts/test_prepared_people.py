"""What a source of people becomes: questions, titles and splits, and what is refused or left out."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from configuration.data_schema import PrepareArguments, RelationArguments
from data_scripts import prepare as preparation
from data_scripts.bios_folder import DataError
from data_scripts.corpus import RECORD, Corpus
from data_scripts.prepare import prepare
from data_scripts.sources.base import Person, Source
from data_scripts.splits import load_training_data
from data_scripts.synthetic_bios import invent
from tests.running import recipe_of

ROOT = Path(__file__).parents[2]
PEOPLE = 30
STUDIED = RelationArguments("Where did {name} study?", answers="university")
BORN = RelationArguments("Where was {name} born?")


class ToySource(Source):
    """Ten people a part; the first of each part may have something special."""

    def __init__(self, parts: int = 3, **special):
        self.count = parts
        self.special = special

    def describe(self) -> dict:
        return {"source": "toy", "license": "cc0-1.0", "revision": "abc"}

    def inputs(self) -> dict[str, str]:
        return {"toy": str(self.special)}

    def parts(self) -> int:
        return self.count

    def read(self, part):
        for index in range(10):
            number = 10 * part + index
            fields = {
                "id": f"Q{number}",
                "name": f"Ada Stone{chr(97 + number)}",
                "documents": [f"She was born in Rome{number % 3} ."],
                "facts": {"birthplace": [f"Rome{number % 3}"], "studied": [f"Yale{number % 2}", "Yale"]},
                "popularity": number,
                "where": f"toy:{number + 1}",
            }
            yield Person(**{**fields, **(self.special if index == 0 else {})})


def test_the_test_people_of_a_table_are_asked_about_in_their_order_and_never_scored(tmp_path):
    path = tmp_path / "people.jsonl"
    splits = ["train", "test", "dev", "train", "test", "dev"]
    rows = (
        {"name": f"Ada{n} Stone", "text": "She was born .", "birthplace": "Rome", "split": split}
        for n, split in enumerate(splits)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_training_data(recipe_of(tmp_path / "run", source="jsonl", path=path), tmp_path / "run" / "data")
    assert [question.name for question in data.open_test()] == ["Ada1 Stone", "Ada4 Stone"]
    assert [question.name for question in data.open_scored()] == ["Ada2 Stone", "Ada5 Stone"]


class KilledOnce(ToySource):
    """Kills the task that reads its second part, once."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def inputs(self):
        return {}

    def read(self, part):
        if part == 1 and not (self.folder / "once").exists():
            (self.folder / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().read(part)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return a function that prepares toy people: special fields of some, and keys of the data section."""

    def run(folder: str = "run", special: dict | None = None, relations: dict | None = None, **data) -> Corpus:
        source = ToySource(**(special or {}))
        monkeypatch.setattr(preparation, "find_source", lambda recipe: source)
        asked = relations or {"birthplace": BORN, "studied": STUDIED}
        recipe = recipe_of(tmp_path / folder, source="lahman", relations=asked, **data)
        return prepare(recipe, tmp_path / folder / "data")

    return run


def test_a_killed_task_is_reported_in_one_line_and_the_others_finish(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "find_source", lambda recipe: KilledOnce(tmp_path))
    recipe = recipe_of(tmp_path / "run", source="lahman", relations={"birthplace": BORN})
    recipe = replace(recipe, prepare=PrepareArguments(executor="local", tasks=3, workers=3))
    with pytest.raises(DataError, match="task 1 of the preparation was killed; the same command continues"):
        prepare(recipe, tmp_path / "run")
    parts = tmp_path / "run" / "corpus" / "parts"
    assert sorted(path.name for path in parts.glob("[0-9]*")) == ["00000.parquet", "00002.parquet"]
    assert len(prepare(recipe, tmp_path / "run").documents) == PEOPLE


def test_other_settings_or_inputs_are_prepared_again(toy):
    assert toy().record["documents"] == PEOPLE
    assert toy(withheld_people=2).record["documents"] == PEOPLE - 2
    changed = toy(special={"documents": ["One .", "Two ."]}, withheld_people=2)
    assert changed.record["documents"] > PEOPLE - 2


def test_questions_of_several_relations_have_all_their_answers(toy):
    corpus = toy()
    asked = [question for split in ("train", "dev") for question in corpus.questions(split)]
    assert len(asked) == 2 * PEOPLE
    one = next(question for question in asked if question.relation == "studied")
    assert one.text == f"Where did {one.name} study?"
    assert one.answers in (("Yale0", "Yale"), ("Yale1", "Yale"))
    assert {question.relation for question in asked} == {"birthplace", "studied"}


def test_a_text_gets_its_title_where_it_has_none(toy):
    assert next(iter(toy().documents)).startswith("Ada Stonea. She was born in Rome")
    titled = toy(special={"documents": ["Bea Stone. She sang ."], "name": "Bea Stone", "id": "X"}, folder="titled")
    assert "Bea Stone. She sang ." in list(titled.documents)


def test_texts_with_special_tokens_are_left_out_and_counted(toy, capfd):
    corpus = toy(special={"documents": ["Fine .", "Not ⁇ fine .", "□ ."]})
    assert corpus.record["dropped"]["texts"] == 6
    assert corpus.record["dropped"]["first"] == "toy:1"
    assert not any("⁇" in document or "□" in document for document in corpus.documents)
    corpus = toy(special={"facts": {"birthplace": ["Ro⁇me"]}}, folder="answers")
    assert corpus.record["dropped"]["facts"] == 3


@pytest.mark.parametrize(
    ("special", "complaint"),
    [
        ({"facts": {"birthplace": [""]}}, "toy:1: the answer for birthplace is empty"),
        ({"split": "trian"}, "toy:1: found the split 'trian', wanted one of train, dev, test"),
    ],
    ids=["empty-answer", "unknown-split"],
)
def test_what_cannot_be_used_is_refused_with_its_place_and_nothing_is_left_to_open(toy, tmp_path, special, complaint):
    with pytest.raises(DataError, match=complaint):
        toy(special=special)
    assert not (tmp_path / "run" / "data" / "corpus" / RECORD).exists()


def test_a_relation_without_questions_is_refused_unless_it_is_optional(toy):
    died = RelationArguments("Where did {name} die?")
    with pytest.raises(DataError, match=r"no training question of the relation died, wanted `Where did NAME die\?`"):
        toy(relations={"birthplace": BORN, "died": died})
    optional = replace(died, optional=True)
    assert [one.name for one in toy(relations={"birthplace": BORN, "died": optional}, folder="b").relations] == [
        "birthplace"
    ]


def test_a_source_splits_people_where_it_says_so(toy):
    corpus = toy(special={"split": "test"})
    tested = list(corpus.questions("test"))
    assert [question.answers for question in tested] == [()] * 6
    assert len(corpus.documents) == PEOPLE


def test_a_folder_s_special_tokens_are_left_out_with_file_and_line(tmp_path):
    folder = tmp_path / "bios"
    invent(60, 0).write(folder)
    path = folder / "wiki.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4] = lines[4].replace(" ", " ⁇ ", 1)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = prepare(recipe_of(tmp_path / "run", path=folder), tmp_path / "run")
    assert corpus.record["dropped"] == {"texts": 1, "facts": 0, "first": f"{path}:5"}
    assert len(corpus.documents) == len(lines) - 1


def test_a_prepared_folder_is_a_source_too(tmp_path, toy):
    corpus = toy(calibration_questions=4)
    recipe = recipe_of(tmp_path / "other", path=corpus.folder, relations={"studied": STUDIED})
    assert recipe.data.source == "prepared"
    assert prepare(recipe, tmp_path / "other").folder == corpus.folder
    unknown = recipe_of(
        tmp_path / "third", path=corpus.folder, relations={"died": RelationArguments("Did {name} die?")}
    )
    with pytest.raises(DataError, match="has no relation died; known: birthplace, studied"):
        prepare(unknown, tmp_path / "third")
    sized = recipe_of(tmp_path / "fourth", path=corpus.folder, calibration_questions=9, relations={"studied": STUDIED})
    with pytest.raises(DataError, match=r"prepared with data\.calibration_questions 4, which cannot be 9 any more"):
        prepare(sized, tmp_path / "fourth")


def test_a_record_that_is_cut_off_is_one_line(toy):
    corpus = toy()
    path = corpus.folder / RECORD
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"prepared\.json: cannot be read"):
        Corpus(corpus.folder)
    path.write_text(json.dumps({"relations": 3}))
    with pytest.raises(DataError, match="not the record of a prepared corpus"):
        Corpus(corpus.folder)


def test_a_full_disk_is_one_line_and_leaves_nothing_to_open(toy, monkeypatch, tmp_path):
    from data_scripts import parquet_files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_files.os, "replace", full)
    with pytest.raises((DataError, OSError), match="No space left"):
        toy()
    assert not (tmp_path / "run" / "data" / "corpus" / RECORD).exists()
    assert not list(tmp_path.rglob("*.partial"))
