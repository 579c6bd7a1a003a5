"""The page on crashes and processes refers to tests that exist."""

import re

from tests.running import ROOT


def test_every_test_that_the_page_names_exists():
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+(?:/\w+)*\.py)(?:::(\w+))?`", page)
    assert len(named) > 20
    for path, test in named:
        file = ROOT / path if path.startswith("benchmarks/") else ROOT / "tests" / path
        assert file.is_file(), path
        assert f"def {test}" in file.read_text(encoding="utf-8"), test
