"""Licences that the Hub does not know."""

from hub import publish_data
from tests.publishing import NAME, error_line


def test_the_nearest_licence_is_named(capsys):
    assert publish_data.main([NAME, "--people", "30", "--license", "CC-BY-SA-4"]) == 2
    assert "did you mean cc-by-sa-4.0?" in error_line(capsys)
