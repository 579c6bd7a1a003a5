"""The wheel and the pages around the code."""

import ast
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import RawConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from evaluation.readme_table import PAGES, RESULTS, with_tables
from modeling_minigpt import __version__

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(page for page in (*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")) if "egg-info" not in str(page))


def parse_requirements(text: str) -> dict[str, str]:
    """Return the bound of each distribution of a list of requirements, one per line."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("%")]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in requirements}


def read_setup() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the bounds of the core dependencies, and those of each extra, as setup.cfg states them."""
    parser = RawConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {name: parse_requirements(text) for name, text in parser["options.extras_require"].items()}
    return parse_requirements(parser["options"]["install_requires"]), extras


def build(kind: str, folder: Path) -> Path:
    """Build the wheel or the sdist; return the one file that it is."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel."""
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Build the source distribution."""
    return build("sdist", tmp_path_factory.mktemp("sdist"))


def requirements_of(name: str, seen: set[str]) -> set[str]:
    """Return the distributions that one needs here, itself and theirs included, extras aside."""
    if name in seen:
        return seen
    seen.add(name)
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            requirements_of(canonicalize_name(requirement.name), seen)
    return seen


@pytest.fixture(scope="module")
def core_environment(wheel, tmp_path_factory) -> Path:
    """Return a folder that holds the wheel and what its core dependencies need, and nothing else, as links."""
    folder = tmp_path_factory.mktemp("core")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    needed: set[str] = set()
    for line in re.findall(r"(?m)^Requires-Dist: (.+)$", text):
        if "extra ==" not in line:
            requirements_of(canonicalize_name(Requirement(line).name), needed)
    for name in needed:
        for file in metadata.files(name) or []:
            top = file.parts[0]  # a package, a module or a .dist-info folder
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(metadata.distribution(name).locate_file(top)))
    return folder


def test_the_wheel_installs_the_model_package_and_its_command_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"modeling_minigpt"}
    assert {"modeling_minigpt/modeling_minigpt.py", "modeling_minigpt/py.typed"} <= set(names)
    entry_points = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    assert "minigpt = modeling_minigpt.cli_minigpt:main" in entry_points
    assert wheel.name.startswith(f"minigpt_lab-{__version__}-")


def test_the_source_distribution_has_the_package_and_no_tests(sdist):
    # setuptools would add tests/test_*.py, which cannot be collected without the modules that they import.
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"setup.cfg", "README.md", "LICENSE", "modeling_minigpt/modeling_minigpt.py"} <= names
    assert not {name for name in names if name.startswith("tests")}


def test_the_wheel_asks_a_model_with_its_core_dependencies_alone(core_environment, run, tmp_path):
    assert not (core_environment / "datasets").exists()
    assert not (core_environment / "accelerate").exists()
    script = (
        f"import sys; sys.path[:] = [{str(core_environment)!r}] + [p for p in sys.path if 'site-packages' not in p]\n"
        "from modeling_minigpt.cli_minigpt import main\nsys.exit(main())"
    )
    words = ["ask", str(run / "finetune"), "Ada Stone", "--json"]
    command = [sys.executable, "-I", "-S", "-c", script, *words]
    asked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["question"] == "Where was Ada Stone born?"


def test_the_tables_of_the_pages_say_what_the_results_files_say():
    for page, names in PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert with_tables(text, ROOT / RESULTS, names) == text
    for name in {path.stem for path in (ROOT / RESULTS).glob("*.json")}:
        assert README.count(f"\n| `{name}` | ") == 1


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_link_to_files_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).is_file(), link
    for path in re.findall(r"configuration/[\w/.-]+\.\w+", text):
        assert (ROOT / path).is_file(), path


def test_the_readme_is_short():
    assert len(README.split()) < 1500


def test_the_page_on_training_lists_every_recipe():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    recipes = {path.stem for path in (ROOT / "configuration" / "recipes").glob("*.yaml")}
    assert recipes == {name for name in recipes if f"| `{name}` |" in text}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_the_pages_compiles(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(block, str(page), "exec")


def test_the_constraints_pin_what_the_package_asks_for():
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    core, extras = read_setup()
    for needed in (core, *extras.values()):
        for name, bound in needed.items():
            assert SpecifierSet(bound).contains(pinned[name]), name


def test_the_space_asks_for_the_same_versions_as_the_package():
    core, extras = read_setup()
    stated = core | extras["train"] | extras["space"]
    space = parse_requirements((ROOT / "space" / "requirements.txt").read_text())
    assert space == {name: stated[name] for name in space}
    assert {"torch", "transformers"} <= space.keys()


def test_what_the_model_package_imports_is_what_it_requires_and_what_contributing_names():
    found = set()
    for path in (ROOT / "modeling_minigpt").glob("*.py"):
        if path.name == "server_minigpt.py":  # imported when `serve` runs, and needs its extra
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    found -= sys.stdlib_module_names
    assert {canonicalize_name(name) for name in found} == read_setup()[0].keys() - {"safetensors"}
    row = re.search(r"\| `modeling_minigpt/` \|.*imports (.+) alone", (ROOT / "CONTRIBUTING.md").read_text())
    assert set(re.split(r", | and ", row[1])) == found
