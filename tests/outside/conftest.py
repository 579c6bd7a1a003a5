"""Faults that others met in programs of this kind, tried on this one: `@pytest.mark.row("M1")` gives a test its row.

Rows of the model and its attention are M1 …, of the pipeline and the Hub H1 …, of training and data T1 …; a row's
tests have its number in brackets, so `pytest tests/outside -k "M1]"` runs those of one row.
"""

import pytest

from tests.attention_variants import VARIANTS


def pytest_generate_tests(metafunc):
    """Put the row into the test's id."""
    for marker in metafunc.definition.iter_markers("row"):
        metafunc.fixturenames.append("row")
        metafunc.parametrize("row", marker.args)


@pytest.fixture(params=["vanilla", *VARIANTS])
def variant(request):
    """Name each attention variant."""
    return request.param


@pytest.fixture
def before_call(monkeypatch):
    """Return a function that does something before the n-th call of an attribute."""

    def install(owner, name, action, number=1):
        original = getattr(owner, name)
        calls = []

        def act_and_call(*arguments, **settings):
            calls.append(1)
            if len(calls) == number:
                action()
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, act_and_call)

    return install
