"""What `make` does where an environment is missing or cannot be used; shell scripts stand in for Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a `make` that has begun these tests hands down: that it is the outer one, its options, and its variables.
OF_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "MAKEFILES", "GNUMAKEFLAGS", "VENV", "PYTHON")
# Does what `make` asks of a Python: says its version, and sets up environments with a Python like itself.
PYTHON = """#!/bin/sh
case "$*" in
  --version) echo "Python {version}" ;;
  "-c import sys"*) exit {is_old} ;;
  "-c import ensurepip, venv" | "-m pip --version" | "-m ensurepip") exit {lacks_pip} ;;
  "-m venv --clear "*) rm -rf "$4" && mkdir -p "$4/bin" && touch "$4/pyvenv.cfg" && cp "$0" "$4/bin/python" ;;
  *) echo "{version} runs $*" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """Make a folder with the Makefile, what it installs from, and three Pythons beside it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    write_python(tmp_path / "new", "3.11.9")
    write_python(tmp_path / "old", "3.10.13", is_old=True)
    write_python(tmp_path / "bare", "3.12.1", lacks_pip=True)
    return folder


def write_python(path: Path, version: str, is_old: bool = False, lacks_pip: bool = False) -> None:
    """Write what stands in for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(version=version, is_old=int(is_old), lacks_pip=int(lacks_pip)))
    path.chmod(0o755)


def make(checkout: Path, python: str) -> subprocess.CompletedProcess:
    """Run `make quickstart` with one of the Pythons, as from a shell although `make test` may have begun this."""
    command = ["make", "quickstart", f"PYTHON=../{python}"]
    environment = {name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


def refusal(done: subprocess.CompletedProcess) -> str:
    """Return the line that `make` ended with, before its own."""
    assert done.returncode == 2
    assert done.stdout == ""
    line, own = done.stderr.splitlines()
    assert own.startswith("make: ***")
    return line


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("old", "is Python 3.10.13, wanted Python 3.11 or newer"),
        ("missing", "is not found, wanted Python 3.11 or newer"),
        ("bare", "has no venv with pip; on Debian and Ubuntu, install python3-venv"),
    ],
)
def test_a_python_that_cannot_be_used_is_refused_in_one_line_and_another_one_works_then(checkout, python, message):
    assert refusal(make(checkout, python)) == f"error: PYTHON=../{python} {message}"
    assert not (checkout / ".venv").exists()
    done = make(checkout, "new")
    assert done.returncode == 0, done.stderr
    assert "3.11.9 runs train.py all" in done.stdout
    assert (checkout / ".venv" / ".installed").exists()


@pytest.mark.parametrize("fault", [{"is_old": True}, {"lacks_pip": True}], ids=["too-old", "without-pip"])
def test_an_environment_that_cannot_be_used_is_set_up_again(checkout, fault):
    write_python(checkout / ".venv" / "bin" / "python", "3.10.0", **fault)
    (checkout / ".venv" / "pyvenv.cfg").touch()
    assert "wanted Python 3.11" in refusal(make(checkout, "old"))
    done = make(checkout, "new")
    assert done.returncode == 0, done.stderr
    assert "3.11.9 runs -m pip install" in done.stdout
    assert "3.10.0" not in done.stdout


def test_an_environment_that_can_be_used_is_used_whatever_the_other_python_is(checkout):
    assert make(checkout, "new").returncode == 0
    (checkout / ".venv" / "more").touch()
    (checkout / ".venv" / ".installed").unlink()  # as after an interrupted installation
    done = make(checkout, "old")
    assert done.returncode == 0, done.stderr
    assert "3.11.9 runs -m pip install" in done.stdout
    assert (checkout / ".venv" / "more").exists()


def test_a_folder_of_other_files_is_left_alone(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "notes.txt").write_text("mine")
    assert refusal(make(checkout, "new")).startswith("error: .venv has files in it and is not an environment")
    assert (checkout / ".venv" / "notes.txt").read_text() == "mine"
