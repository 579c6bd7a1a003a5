"""Invented people: the same for the same seed, in the layout, with the ceiling that is declared."""

import io
from itertools import pairwise

import pytest

from data_scripts import synthetic_bios
from data_scripts.bios_folder import (
    FILES,
    check_folder,
    read_lines,
    read_questions,
)
from data_scripts.synthetic_bios import invent
from data_scripts.titles import split_title
from evaluation.baselines import ceiling


@pytest.fixture(scope="module")
def bios():
    return invent(200)


def names_of(pairs) -> list[str]:
    return [question.name for question in pairs]


def test_the_same_people_and_seed_invent_the_same(bios):
    assert invent(200) == bios


@pytest.mark.parametrize(("people", "seed"), [(200, 1), (201, 0)], ids=["other-seed", "other-size"])
def test_another_seed_or_size_invents_others(bios, people, seed):
    other = invent(people, seed)
    assert other.documents != bios.documents
    assert names_of(other.train) != names_of(bios.train)


@pytest.mark.parametrize(
    ("people", "train", "validation", "test"), [(20, 10, 8, 2), (40, 20, 15, 5), (41, 20, 16, 5), (200, 100, 75, 25)]
)
def test_questions_are_shared_out_in_full(people, train, validation, test):
    bios = invent(people)
    assert (len(bios.train), len(bios.validation), len(bios.test)) == (train, validation, test)


def test_names_are_distinct_and_nobody_is_asked_about_twice(bios):
    asked = [*names_of(bios.train), *names_of(bios.validation), *names_of(bios.test)]
    assert len(set(asked)) == len(asked) == 200


def test_every_person_has_four_different_lines(bios):
    people: dict[str, set[str]] = {}
    for document in bios.documents:
        people.setdefault(split_title(document)[0], set()).add(document)
    assert {len(lines) for lines in people.values()} == {4}
    assert people.keys() == {*names_of(bios.train), *names_of(bios.validation), *names_of(bios.test)}


def test_fewer_lines_a_person_can_be_asked_for():
    assert len(invent(20, lines=2).documents) == 40


def test_documents_are_shuffled(bios):
    titles = [split_title(document)[0] for document in bios.documents]
    neighbours = sum(first == second for first, second in pairwise(titles))
    assert neighbours < len(titles) / 20


def test_no_person_of_the_dev_or_test_questions_is_trained_on(bios):
    held_back = {*names_of(bios.validation), *names_of(bios.test)}
    assert held_back.isdisjoint(names_of(bios.train))


def test_a_person_s_lines_agree_about_the_birthplace(bios):
    places = dict(zip(names_of(bios.train), (question.answer for question in bios.train), strict=True))
    telling: dict[str, int] = dict.fromkeys(places, 0)
    for document in bios.documents:
        title, body = split_title(document)
        if title in places:
            telling[title] += places[title] in body
    assert set(telling.values()) == {0, 4}


def test_one_place_is_clearly_the_most_popular():
    places = [question.answer for question in invent(800).train]
    assert 0.05 < max(map(places.count, places)) / len(places) < 0.25


@pytest.mark.parametrize(("people", "seed"), [(20, 3), (40, 0), (200, 0), (200, 5), (800, 0)])
def test_the_declared_ceiling_is_the_measured_one(people, seed):
    bios = invent(people, seed)
    assert bios.ceiling == ceiling(bios.documents, bios.validation)


def test_the_ceiling_of_the_default_is_below_one():
    assert 0.85 < invent(800).ceiling < 1.0


def test_the_four_files_read_back_as_they_were(bios, tmp_path):
    folder = tmp_path / "deep" / "folder"
    bios.write(folder)
    check_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES.values())
    assert read_lines(folder / FILES["documents"]) == bios.documents
    assert read_questions(folder / FILES["train"]) == bios.train
    assert read_questions(folder / FILES["validation"]) == bios.validation
    assert read_questions(folder / FILES["test"], answered=False) == bios.test


def test_the_command_writes_the_folder_and_says_what_is_in_it(tmp_path, capsys):
    folder = tmp_path / "bios"
    assert synthetic_bios.main([str(folder), "--people", "40", "--seed", "3"]) == 0
    bios = invent(40, 3)
    assert read_lines(folder / FILES["documents"]) == bios.documents
    assert read_questions(folder / FILES["validation"]) == bios.validation
    printed = capsys.readouterr().out
    assert f"{folder}: 160 lines about 40 people, 20 training and 15 dev questions" in printed
    assert f"at best {bios.ceiling:.1%}" in printed


@pytest.mark.parametrize("name", FILES.values())
def test_a_file_that_exists_is_refused_and_stays_as_it_is(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert synthetic_bios.main([str(tmp_path), "--people", "40"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / name}: is there already, wanted a folder without wiki.txt, ")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("folder", ["file", "file/inner", "a" * 300, "a\0b"])
def test_a_folder_that_cannot_be_made_is_refused_in_a_line(tmp_path, capsys, folder):
    (tmp_path / "file").write_text("mine")
    assert synthetic_bios.main([str(tmp_path / folder), "--people", "40"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ": cannot be written: " in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_s_name_is_printed_as_far_as_the_terminal_can_show_it(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert synthetic_bios.main([str(tmp_path / "é"), "--people", "40"]) == 0
    assert b"/\\xe9: 160 lines about 40 people" in stream.buffer.getvalue()


@pytest.mark.parametrize("people", [0, 1])
def test_too_few_people_are_refused_in_a_line(tmp_path, people, capsys):
    assert synthetic_bios.main([str(tmp_path / "bios"), "--people", str(people)]) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: wanted 20 to 1,000,000 people, found {people}"]
