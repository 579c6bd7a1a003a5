"""What tests of publishing share."""

import shutil

import pytest


@pytest.fixture
def own(run, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(run, tmp_path / "run")
