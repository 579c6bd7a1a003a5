"""Messages for the user: one line, whatever they speak of."""

import pickle

import pytest

from configuration.errors import MAX_LENGTH, one_line
from data_scripts.bios_folder import DataError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a  b\n\tc\u2028d", "a b c d"),
        ("a\x1b[2J\0b", r"a\x1b[2J\x00b"),
        ("\ud800 Ж é", r"\ud800 Ж é"),
    ],
    ids=["space", "control", "surrogate"],
)
def test_a_message_is_one_printable_line(text, wanted):
    assert one_line(text) == wanted


def test_a_long_message_keeps_its_beginning_and_its_end():
    line = one_line("first " + "x" * 5000 + " last")
    assert len(line) < MAX_LENGTH
    assert line.startswith("first x")
    assert line.endswith("x last")


def test_an_exception_with_such_a_message_can_be_pickled():
    error = pickle.loads(pickle.dumps(DataError("a\nb")))
    assert (type(error), str(error)) == (DataError, "a b")
