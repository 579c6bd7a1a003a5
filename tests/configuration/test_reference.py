"""The page that lists every key says what the schema says, and leaves no key without a meaning."""

import dataclasses
import re

import pytest

from configuration import reference
from configuration.data_schema import READ_BY, DataArguments
from configuration.schema import SECTIONS, ModelArguments


def test_the_page_is_what_the_schema_says():
    assert reference.main(["--check"]) == 0, "run: python -m configuration.reference"


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_has_a_meaning(name):
    section = SECTIONS[name]
    rows = reference.list_model_keys() if section is ModelArguments else reference.list_keys(section)
    assert len(rows) >= (20 if section is ModelArguments else len(dataclasses.fields(section)))
    assert [key for key, _, _, meaning in rows if not meaning] == []


@pytest.mark.parametrize("name", READ_BY)
def test_the_page_lists_the_sources_that_read_a_key(name):
    (named,) = re.findall(r"\(source: ([^)]+)\)", reference.describe_fields(DataArguments)[name])
    assert tuple(named.split(", ")) == READ_BY[name]


def test_a_changed_page_is_noticed(monkeypatch, tmp_path, capsys):
    (tmp_path / "recipe.md").write_text(reference.write_page() + "more")
    monkeypatch.setattr(reference, "PAGE", tmp_path / "recipe.md")
    assert reference.main(["--check"]) == 1
    assert "run python -m configuration.reference" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
