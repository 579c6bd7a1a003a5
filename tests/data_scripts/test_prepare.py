"""One corpus from any source: the same whoever prepares it, continued after a kill, and never opened half done."""

import hashlib
import json
import os
import signal
import sys
import time
from itertools import chain

import numpy as np
import pytest

from configuration.recipe import load_recipe
from data_scripts import prepare as preparation
from data_scripts.bios_folder import FILES, DataError
from data_scripts.corpus import Corpus
from data_scripts.corpus_folder import LOCK
from data_scripts.parquet_files import read_batches, shards
from data_scripts.person_splits import hash_number
from data_scripts.prepare import prepare
from data_scripts.questions import question_about
from data_scripts.splits import load_training_data
from data_scripts.synthetic_bios import invent
from data_scripts.words import is_named
from tests.running import MINIMAL_RECIPE, finish, start

PARTS = ("data.calibration_questions=5", "data.withheld_people=4", "data.validation_questions=3")
BIOS = ("data.source=bios", "data.people=200", "data.places=20", *PARTS)


@pytest.fixture
def make(tmp_path):
    """Return a function that reads the shortest recipe with overrides."""
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL_RECIPE)
    return lambda *overrides: load_recipe(path, list(overrides))


def people(count: int = 40) -> list[dict]:
    """Return rows of people whose texts say where they were born."""
    return [
        {
            "id": str(n),
            "name": f"Ada{n} Stone",
            "text": f"Ada{n} Stone. She was born in Rome{n % 5} .",
            "birthplace": f"Rome{n % 5}",
        }
        for n in range(count)
    ]


@pytest.fixture
def prepare_rows(make, tmp_path):
    """Return a function that prepares the corpus of a JSONL file's rows."""

    def run(rows: list[dict], *overrides: str) -> Corpus:
        path = tmp_path / "people.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return prepare(make(f"data.path={path}", *overrides), tmp_path / "run")

    return run


def all_questions(corpus: Corpus) -> list:
    return list(chain.from_iterable(corpus.questions(split) for split in ("train", "calibration", "withheld", "dev")))


def digests(corpus: Corpus) -> dict[str, str]:
    """Return the SHA-256 of each of a corpus's files; the lock of a shared one and logs of executors apart."""
    return {
        str(path.relative_to(corpus.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in corpus.folder.rglob("*")
        if path.is_file() and path.name != LOCK and "logs" not in path.relative_to(corpus.folder).parts
    }


def expected_parts(questions, sizes) -> list[list]:
    """Return calibration, withheld and held-out questions and the rest, by the smallest hashes of the names."""
    names = {question.name for question in questions}
    parts = []
    for number, size in enumerate(sizes):
        drawn = sorted(names, key=lambda name: hashlib.blake2b(f"{number} {name}".encode(), digest_size=8).digest())
        parts.append(set(drawn[:size]))
        names -= parts[-1]
    return [[question for question in questions if question.name in part] for part in (*parts, names)]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_without_ids_the_name_alone_decides_who_is_trained_on(make, tmp_path, kind):
    rows = [{key: value for key, value in row.items() if key != "id"} for row in people()]

    def splits(name: str, rows: list[dict]) -> dict[str, str]:
        """Return the split of each person."""
        lines = map(json.dumps, rows) if kind == "jsonl" else (",".join(row.values()) for row in rows)
        header = [",".join(rows[0])] if kind == "csv" else []
        path = tmp_path / f"{name}.{kind}"
        path.write_text("\n".join([*header, *lines]))
        corpus = prepare(make(f"data.path={path}"), tmp_path / name)
        return {question.name: split for split in ("train", "dev") for question in corpus.questions(split)}

    before = splits("people", rows)
    assert set(before.values()) == {"train", "dev"}
    new = {"name": "Bo Lind", "text": "Bo sang .", "birthplace": "Oslo"}
    after = splits("renamed", [new, *rows[::-1]])
    assert after.pop("Bo Lind") in ("train", "dev")
    assert after == before


def test_rows_without_ids_of_one_name_are_different_people(prepare_rows):
    rows = [{key: value for key, value in row.items() if key != "id"} for row in people()]
    rows.append({**rows[0], "birthplace": "Oslo"})
    corpus = prepare_rows(rows)
    assert corpus.record["dropped"]["people_with_shared_names"] == 2
    assert rows[0]["name"] not in {question.name for question in all_questions(corpus)}
    both = prepare_rows(rows, "data.names=all")
    (question,) = [question for question in all_questions(both) if question.name == rows[0]["name"]]
    assert question.answers == ("Rome0", "Oslo")


@pytest.mark.parametrize("source", ["synthetic", "folder"])
def test_divided_data_are_the_files_own_in_their_order(make, tmp_path, source):
    invented = invent(90, seed=0)
    invented.write(tmp_path / "files")
    own = [f"data.path={tmp_path / 'files'}"] if source == "folder" else ["data.people=90"]
    recipe = make(*own, *PARTS)
    data = load_training_data(recipe, tmp_path / "run")
    calibration, withheld, held_out, train = expected_parts(invented.train, (5, 4, 3))
    assert (data.calibration, data.withheld, data.held_out) == (calibration, withheld, held_out)
    assert data.train == train
    is_withheld = [any(is_named(question.name, text) for question in withheld) for text in invented.documents]
    pairs = list(zip(invented.documents, is_withheld, strict=True))
    assert data.documents == [text for text, named in pairs if not named]
    assert data.withheld_documents == [text for text, named in pairs if named]


def test_a_folder_needs_no_test_file(make, tmp_path):
    invent(40).write(tmp_path / "files")
    (tmp_path / "files" / FILES["test"]).unlink()
    corpus = prepare(make(f"data.path={tmp_path / 'files'}"), tmp_path / "run")
    assert len(corpus.questions("train")) == 20


def test_any_number_of_tasks_gives_the_same_corpus(make, tmp_path):
    pytest.importorskip("datatrove")
    settings = (*BIOS, "data.people=30000")  # three parts: of seven tasks, four have nothing to do
    alone = prepare(make(*settings), tmp_path / "alone")
    for tasks in (2, 7):
        shared = ("prepare.executor=local", f"prepare.tasks={tasks}", "prepare.workers=2")
        assert digests(prepare(make(*settings, *shared), tmp_path / f"{tasks} tasks")) == digests(alone)


def test_a_task_that_fails_says_why_in_one_line(make, tmp_path):
    pytest.importorskip("datatrove")
    path = tmp_path / "people.jsonl"
    path.write_text('{"name": "Ada Stone", "text": "She was .", "birthplace": ""}\n')
    recipe = make(f"data.path={path}", "prepare.executor=local", "prepare.tasks=2", "prepare.workers=2")
    with pytest.raises(DataError, match=r"people\.jsonl:1: birthplace: the answer is empty"):
        prepare(recipe, tmp_path / "run")


def test_an_executor_that_is_not_installed_is_refused_with_the_command(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    with pytest.raises(DataError, match=r"datatrove.* is not installed; pip install -e '\.\[scale\]'"):
        prepare(make(*BIOS, "prepare.executor=local"), tmp_path / "run")


def test_a_kill_loses_the_part_that_was_being_written_and_no_other(make, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    settings = ("data.source=bios", "data.people=60000", f"output={tmp_path / 'run'}")
    folder = tmp_path / "corpus"
    sets = [word for one in (*settings, f"prepare.folder={folder}") for word in ("--set", one)]
    recipe.write_text(MINIMAL_RECIPE)
    process = start(["prepare", "--config", str(recipe), *sets])
    deadline = time.monotonic() + 120
    while len(shards(folder / "parts")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    with pytest.raises(DataError, match="no prepared corpus"):
        Corpus(folder)
    before = {path: path.stat().st_mtime_ns for path in shards(folder / "parts")}
    assert 2 <= len(before) < 6
    written = []
    original = preparation.write_part

    def count(source, relations, parts, number):
        known = len(shards(parts))
        original(source, relations, parts, number)
        written.append(len(shards(parts)) - known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "write_part", count)
        continued = prepare(make(*settings[:2], f"prepare.folder={folder}"), tmp_path / "other")
    assert sum(written) == 6 - len(before)
    assert digests(continued) == digests(prepare(make(*settings[:2]), tmp_path / "whole"))


def test_what_is_prepared_is_only_opened(make, tmp_path, monkeypatch):
    first = prepare(make(*BIOS), tmp_path / "run")
    monkeypatch.setattr(preparation, "write_part", None)
    assert digests(prepare(make(*BIOS), tmp_path / "run")) == digests(first)


def test_a_shared_folder_of_other_data_is_not_overwritten(make, tmp_path):
    shared = f"prepare.folder={tmp_path / 'shared'}"
    before = digests(prepare(make(*BIOS, shared), tmp_path / "run"))
    with pytest.raises(DataError, match=r"shared: has a corpus of other settings \(data\.people was 200, now 300\)"):
        prepare(make(*BIOS, "data.people=300", shared), tmp_path / "run")
    assert digests(Corpus(tmp_path / "shared")) == before


def test_nobody_is_in_two_splits_whatever_is_asked_about_them(make, tmp_path):
    relations = ("relations.studied.question=Where did {name} study?",)
    corpus = prepare(make(*BIOS, *relations), tmp_path / "run")
    splits: dict[str, set[str]] = {}
    for split in ("train", "calibration", "withheld", "held_out", "dev"):
        for question in corpus.questions(split):
            splits.setdefault(question.name, set()).add(split)
    assert {len(found) for found in splits.values()} == {1}
    assert [len({q.name for q in corpus.questions(split)}) for split in ("calibration", "withheld")] == [5, 4]
    assert len(all_questions(corpus)) + len(corpus.questions("held_out")) == 400


def test_withheld_people_are_in_no_document_to_learn_from(make, tmp_path):
    corpus = prepare(make(*BIOS), tmp_path / "run")
    names = [question.name for question in corpus.questions("withheld")]
    assert not [text for text in corpus.documents for name in names if is_named(name, text)]
    assert len(corpus.withheld_documents) == 4 * len(names)


@pytest.mark.parametrize("key", ["name", "text", "birthplace"])
def test_what_has_a_special_token_is_dropped_counted_and_named_once(prepare_rows, caplog, key):
    rows = people()
    rows[3][key] = f"Ada3 □ {rows[3][key]}"
    rows[7]["text"] += " ⁇"
    corpus = prepare_rows(rows)
    dropped = corpus.record["dropped"]
    assert dropped["texts"] + dropped["facts"] == {"name": 3, "text": 2, "birthplace": 2}[key]
    assert dropped["first"].endswith("people.jsonl:4")
    assert not [text for text in corpus.documents if "□" in text or "⁇" in text]
    assert len([record for record in caplog.records if "special token" in record.message]) == 1


def test_a_name_of_two_people_is_left_out_and_counted(prepare_rows):
    corpus = prepare_rows([*people(), {**people()[5], "id": "other", "birthplace": "Oslo"}])
    assert corpus.record["dropped"]["people_with_shared_names"] == 2
    assert "Ada5 Stone" not in {question.name for question in all_questions(corpus)}
    assert not [text for text in corpus.documents if text.startswith("Ada5 Stone")]


def test_a_name_of_two_people_has_all_their_answers_where_all_are_taken(prepare_rows):
    corpus = prepare_rows([*people(), {**people()[5], "id": "other", "birthplace": "Oslo"}], "data.names=all")
    asked = [question for question in all_questions(corpus) if question.name == "Ada5 Stone"]
    assert asked == [question_about("Ada5 Stone", "Rome0", "Oslo")]
    assert len([text for text in corpus.documents if text.startswith("Ada5 Stone")]) == 2


def test_rows_of_one_id_are_one_person(prepare_rows):
    corpus = prepare_rows([*people(), {**people()[5], "text": "She wrote letters .", "birthplace": "Lazio"}])
    asked = [question for question in all_questions(corpus) if question.name == "Ada5 Stone"]
    assert asked == [question_about("Ada5 Stone", "Rome0", "Lazio")]
    assert corpus.record["dropped"]["people_with_shared_names"] == 0
    assert "Ada5 Stone. She wrote letters ." in corpus.documents


def test_everybody_s_name_is_known_those_left_out_too(prepare_rows):
    corpus = prepare_rows([*people(), {**people()[5], "id": "other"}])
    hashes = np.load(corpus.folder / "names.npy")
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == sorted(hash_number(f"Ada{n} Stone") for n in range(40))


def test_titles_are_the_names_of_the_table(prepare_rows, tmp_path):
    rows = people()
    rows[3] |= {"name": "Mr. Ek goes to Rome", "text": "It was made in Oslo ."}
    corpus = prepare_rows(rows)
    assert list(corpus.titles) == [row["name"] for row in rows]
    assert list(corpus.documents)[3] == "Mr. Ek goes to Rome. It was made in Oslo ."


def test_candidates_are_the_answers_that_are_learned_with_their_counts(prepare_rows):
    corpus = prepare_rows(people())
    answers = [question.answer for question in corpus.questions("train")]
    rows = [row for batch in read_batches([corpus.folder / "candidates.parquet"]) for row in batch.to_pylist()]
    assert {row["answer"]: row["count"] for row in rows} == {one: answers.count(one) for one in set(answers)}
    assert {row["relation"] for row in rows} == {"birthplace"}


def test_people_without_answers_still_have_documents(prepare_rows):
    rows = people()
    rows[3]["birthplace"] = None
    corpus = prepare_rows(rows)
    assert "Ada3 Stone. She was born in Rome3 ." in corpus.documents
    assert "Ada3 Stone" not in {question.name for question in all_questions(corpus)}


def test_rows_without_any_text_are_refused(prepare_rows):
    with pytest.raises(DataError, match="people: there is no text to learn from"):
        prepare_rows([{key: value for key, value in row.items() if key != "text"} for row in people()])


def test_a_column_of_another_name_can_be_set_by_itself(prepare_rows):
    rows = [{"person": row.pop("name"), **row} for row in people()]
    assert len(all_questions(prepare_rows(rows, "data.columns.name=person"))) == 40


def test_holding_out_everybody_is_refused_with_the_numbers(prepare_rows):
    with pytest.raises(DataError, match=r"people: asks for \d+ people, but the recipe holds out 30"):
        prepare_rows(people(), "data.calibration_questions=30")


def test_a_popularity_beyond_all_numbers_of_a_file_is_refused(prepare_rows):
    with pytest.raises(DataError, match=r"people\.jsonl:1: popularity: found '1e\+30', wanted a number"):
        prepare_rows([{**people()[0], "popularity": 1e30}])


def test_the_command_says_what_is_in_the_corpus(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(MINIMAL_RECIPE)
    sets = [word for one in (*BIOS, f"output={tmp_path / 'run'}") for word in ("--set", one)]
    result = finish(start(["prepare", "--config", str(recipe), *sets]))
    assert result.returncode == 0, result.stderr
    assert "200 people, 784 documents to learn from, 16 that name withheld people" in result.stdout
