"""Names found again however they are typed, where only one person's name is written so."""

import pickle
import random
import subprocess
import sys
import unicodedata

import pytest

from modeling_minigpt.names_minigpt import CHUNK, NameIndex, fold
from tests.running import ROOT

NAMES = NameIndex.from_names(
    ["José García", "Shane O'Neil", "Jean-Luc Moreau", "J. R. R. Tolkien", "Straße Groß", "李小龙", "かが まり"]
)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("jose garcia", "José García"),
        ("JOSÉ GARCÍA", "José García"),
        ("Jose  Garcia", "José García"),
        ("shane o’neil", "Shane O'Neil"),
        ("Shane O‘Neil", "Shane O'Neil"),
        ("Jean Luc Moreau", "Jean-Luc Moreau"),
        ("jean–luc moreau", "Jean-Luc Moreau"),
        ("J.R.R. Tolkien", "J. R. R. Tolkien"),
        ("j r r tolkien", "J. R. R. Tolkien"),
        ("STRASSE GROSS", "Straße Groß"),
    ],
)
def test_a_name_in_another_spelling_is_found(typed, name):
    assert NAMES.match(typed) == name


@pytest.mark.parametrize(
    "name", ["José García", "J. R. R. Tolkien", "李小龙", "Ada Stone", "Joses Garcia", "かか まり", "", "."]
)
def test_a_name_of_training_or_of_nobody_there_stays_as_it_is(name):
    assert NAMES.match(name) is None


def test_what_two_names_could_be_is_neither():
    names = NameIndex.from_names(["Jean-Luc Moreau", "Jean Luc Moreau", "Ada Stone", "Ada Stone"])
    assert names.match("jean luc moreau") is None
    assert names.match("Jean Luc Moreau") is None
    assert names.match("Jean-Luc Moreau") is None
    assert names.match("ada stone") == "Ada Stone"  # listed twice, but one name


def test_every_name_is_found_in_an_index_of_several_chunks():
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzáéőłøß-' ."
    people = {"".join(rng.choices(letters, k=rng.randint(8, 40))).strip().title() for _ in range(60_000)}
    people = sorted({unicodedata.normalize("NFC", " ".join(name.split())) for name in people if name.strip()})
    names = NameIndex.from_names(people)
    assert len(names.text) > CHUNK
    by_form: dict[str, set[str]] = {}
    for name in people:
        by_form.setdefault(fold(name), set()).add(name)
    for name in rng.sample(people, 500):
        assert set(names.find(name)) == by_form[fold(name)]
        assert (names.match(name.upper().casefold()) is not None) == (
            len(by_form[fold(name)]) == 1 and name.upper().casefold() != name
        )


def test_an_index_of_nobody_finds_nobody():
    assert NameIndex("").match("Ada Stone") is None
    assert NameIndex.from_names([]).text == ""


def test_a_last_line_without_an_end_is_a_name_too():
    assert NameIndex("Ada Stone\nBo Lind").match("bo lind") == "Bo Lind"


def test_an_index_travels_to_another_process():
    NAMES.match("ada")
    again = pickle.loads(pickle.dumps(NAMES))
    assert again.match("jose garcia") == "José García"


MEASURE = """
import resource, sys, time
from modeling_minigpt.names_minigpt import NameIndex
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
names = NameIndex(open({path!r}, encoding="utf-8").read())
assert names.match("jose garcia 7") == "José García 7"
print(time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_hundred_thousand_names_are_read_in_a_fraction_of_a_second_and_little_memory(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("".join(f"José García {number}\n" for number in range(100_000)), encoding="utf-8")
    script = MEASURE.format(path=str(path))
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    seconds, megabytes = map(float, found.stdout.split())
    assert seconds < 1.0
    assert megabytes < 60
