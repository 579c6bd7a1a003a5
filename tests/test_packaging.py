"""The wheel and the pages around the code."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from evaluation.readme_table import RESULTS, with_tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_wheel_installs_the_model_package_alone(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"modeling_minigpt"}
    assert "modeling_minigpt/modeling_minigpt.py" in names


def test_the_readmes_tables_say_what_the_results_files_say():
    assert with_tables(README, ROOT / RESULTS) == README
    for name in {path.stem for path in (ROOT / RESULTS).glob("*.json")}:
        assert README.count(f"\n| `{name}` | ") >= 1


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configuration/[\w/.-]+\.\w+", README))))
def test_the_readme_names_files_that_exist(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_the_readme_links_to_files_that_exist(path):
    assert (ROOT / path).is_file()


def test_the_readme_lists_every_recipe():
    recipes = {path.stem for path in (ROOT / "configuration" / "recipes").glob("*.yaml")}
    assert recipes == {name for name in recipes if f"| `{name}` |" in README}


def test_the_constraints_pin_what_the_package_asks_for():
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    section = (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("[options.extras_require]")[0]
    for name, bound in re.findall(r"(?m)^\s+([\w.-]+)>=(\S+)$", section):
        version = next(version for key, version in pinned.items() if key.lower() == name.lower())
        assert [int(part) for part in version.split(".")[:2]] >= [int(part) for part in bound.split(".")[:2]], name
