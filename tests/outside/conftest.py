"""Faults that others met in programs of this kind, tried on this one: `@pytest.mark.row("M1")` gives a test its row.

Rows of the model and its attention are M1 …, of the pipeline and the Hub H1 …, of training and data T1 …; a row's
tests have its number in brackets, so `pytest tests/outside -k "M1]"` runs those of one row.
"""


def pytest_generate_tests(metafunc):
    """Put the row into the test's id."""
    for marker in metafunc.definition.iter_markers("row"):
        metafunc.fixturenames.append("row")
        metafunc.parametrize("row", marker.args)
