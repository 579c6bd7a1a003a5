"""Who is one person to the splits: rows of one id, and rows of one name in whatever case."""

import json

import numpy as np
import pytest

from data_scripts.corpus import Corpus
from data_scripts.divided_files import split_questions
from data_scripts.person_splits import first_rows, name_key
from data_scripts.prepare import prepare
from data_scripts.questions import question_about
from evaluation.trained_on import hash_name
from tests.running import recipe_of

SPLITS = ("train", "calibration", "withheld", "held_out", "dev")
SIZES = {"calibration_questions": 12, "withheld_people": 6, "validation_questions": 5}


@pytest.fixture
def prepare_names(tmp_path):
    """Return a function that prepares (id, name, more columns) as rows about birthplaces."""

    def run(people: list[tuple], **data) -> Corpus:
        path = tmp_path / "people.jsonl"
        rows = [
            {"id": own, "name": name, "text": f"{name} sang.", "birthplace": f"Rome{n % 5}", **more}
            for n, (own, name, more) in enumerate(people)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return prepare(recipe_of(tmp_path / "run", source="jsonl", path=path, **data), tmp_path / "run")

    return run


def splits_of(corpus: Corpus, person) -> dict[str, set[str]]:
    """Return the splits of each person's questions; `person` returns whose a name is."""
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        for question in corpus.questions(split):
            found.setdefault(person(question.name), set()).add(split)
    return found


def test_other_names_of_one_id_are_the_same_person(prepare_names):
    people = [(f"Q{n}", f"{first}Ada{n} Stone", {}) for n in range(60) for first in ("", "Saint ", "Old ")]
    corpus = prepare_names(people, **SIZES)
    found = splits_of(corpus, lambda name: name.split(" ")[-2])
    assert len(found) == 60
    assert {len(splits) for splits in found.values()} == {1}
    assert corpus.record["people"] == 60
    # A certificate counts people: each is asked about by one name, which is not always the first.
    counts = [len(corpus.questions(split)) for split in ("calibration", "withheld", "held_out")]
    assert counts == [12, 6, 3 * 5]
    assert len({question.name.split("Ada")[0] for question in corpus.questions("calibration")}) > 1
    withheld = [question.name.split(" ")[-2] for question in corpus.questions("withheld")]
    assert not [text for text in corpus.documents for name in withheld if f"{name} Stone" in text]
    assert len(corpus.withheld_documents) == 6 * 3


def test_a_person_whom_a_table_has_in_two_splits_is_in_the_first_one(prepare_names):
    people = [(f"Q{n}", f"Ada{n} Stone", {"split": "train"}) for n in range(9)]
    people.append(("Q3", "Saint Ada3", {"split": "dev"}))
    corpus = prepare_names(people)
    assert "Saint Ada3" in {question.name for question in corpus.questions("train")}


def test_names_that_the_record_of_training_takes_for_one_are_in_one_split(prepare_names):
    people = [(f"{n}{name}", name, {}) for n in range(40) for name in (f"Ada{n} Jr", f"ADA{n} JR", f"Ada{n} Jr.")]
    found = splits_of(prepare_names(people, **SIZES), hash_name)
    assert len(found) == 40
    assert {len(splits) for splits in found.values()} == {1}


def test_questions_of_a_folder_are_drawn_by_the_same_names(tmp_path):
    names = [name for n in range(40) for name in (f"Ada{n} Jr", f"ADA{n} JR.")]
    parts = split_questions([question_about(name, "Rome") for name in names], [10, 10], tmp_path)
    assert [len(part) for part in parts] == [20, 20, 40]
    keys = [{name_key(question.name) for question in part} for part in parts]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]


@pytest.mark.parametrize(
    ("ids", "keys", "expected"),
    [
        pytest.param([1, 2, 3], [7, 8, 9], [0, 1, 2], id="nobody-twice"),
        pytest.param([1, 1, 2, 3], [7, 8, 8, 9], [0, 0, 0, 3], id="by-way-of-another-row"),
        pytest.param(np.arange(99) // 2, (np.arange(99) + 1) // 2, [0] * 99, id="a-long-chain"),
        pytest.param(np.arange(99)[::-1] // 2, (np.arange(99)[::-1] + 1) // 2, [0] * 99, id="and-from-its-end"),
    ],
)
def test_rows_are_joined_by_ids_and_names(ids, keys, expected):
    assert first_rows(np.array(ids), np.array(keys)).tolist() == expected


def test_withheld_people_are_no_answers_that_are_learned(prepare_names, caplog):
    names = [f"Ada{n} Stone" for n in range(40)]
    people = [(f"Q{n}", name, {"birthplace": f"the school of {names[n - 7].upper()}"}) for n, name in enumerate(names)]
    corpus = prepare_names(people, withheld_people=6)
    withheld = {question.name for question in corpus.questions("withheld")}
    learned = list(corpus.questions("train"))
    taught = {f"the school of {name.upper()}" for name in withheld}
    assert not taught & {answer for question in learned for answer in question.answers}
    left_out = corpus.record["dropped"]["questions_with_withheld_answers"]
    assert left_out > 0
    assert len(learned) + left_out + 6 + len(corpus.questions("dev")) == 40
    assert f"{left_out} training questions are left out: their answers name a withheld person" in caplog.text
