"""The floors are a contract: `lint-imports`, which `make check` runs, refuses an import from a higher floor."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_minigpt", "configuration", "data_scripts", "artifacts", "evaluation", "hub", "training",
            "benchmarks", "attention_lab")  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Copy the code of every floor, and the contract, into a folder of its own."""
    folder = tmp_path_factory.mktemp("floors")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "setup.cfg", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """Check the contract in a folder."""
    command = [Path(sys.executable).with_name("lint-imports"), "--config", "setup.cfg", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_no_floor_imports_from_one_above_it(tree):
    found = lint_imports(tree)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("modeling_minigpt", "import configuration.errors"),
        ("configuration", "from data_scripts import batches"),
        ("data_scripts", "from artifacts import loading"),  # beside it, not below
        ("evaluation", "def late():\n    from training.loop import train_stage"),
    ],
    ids=lambda value: value.split("\n")[0],
)
def test_an_import_upward_is_refused_by_name(tree, package, line):
    intruder = tree / package / "intruder.py"
    intruder.write_text(f"{line}\n")
    try:
        found = lint_imports(tree)
    finally:
        intruder.unlink()
    assert found.returncode == 1
    assert f"{package}.intruder -> " in found.stdout
