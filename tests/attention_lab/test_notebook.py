"""The notebooks run where a reader opens them, their claims are true, and the committed ones are their scripts."""

import json
import re
import subprocess
import sys

import jupytext
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from attention_lab.execute import HERE, NOTEBOOKS, execute, read_source
from tests.running import ROOT

MAX_BYTES = 400_000  # that GitHub still shows at once


def committed(name):
    """Read a notebook as it is in the repository."""
    return nbformat.read(HERE / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    """Return the sources of the cells with code."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    """Return all outputs, in their order."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed_by(notebook):
    """Return what the cells have printed."""
    return "".join(output.get("text", "") for output in outputs_of(notebook))


def count_figures(notebook):
    """Return how many pictures there are."""
    return sum("image/png" in output.get("data", {}) for output in outputs_of(notebook))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A reader's shell: another working directory, and a PYTHONPATH and a model that must not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MINIGPT_MODEL", str(tmp_path / "none"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_laboratory_runs_in_its_own_folder_and_its_claims_are_true(elsewhere):
    notebook = read_source("notebook")
    execute(notebook, timeout=90)
    printed = printed_by(notebook)
    assert "the report's: c_1 = [ 0.  1." in printed
    assert "Φ(-√2) = 7.86%" in printed
    assert count_figures(notebook) == 2


@pytest.mark.slow
def test_the_way_from_a_sentence_to_an_answer_runs_in_its_own_folder(elsewhere):
    notebook = read_source("from_sentence_to_answer")
    execute(notebook, timeout=240)
    rows = re.findall(r"(?m)^ +400 +(with.*?) +[\d.]+ +\d+% +(\d+)%$", printed_by(notebook))
    right = {name: int(percent) for name, percent in rows}
    assert right["with pretraining"] > 70
    assert right["without"] < 20
    assert count_figures(notebook) == 4


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_committed_notebook_has_the_cells_of_its_script(name):
    notebook = committed(name)
    source = read_source(name)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ], "run python -m attention_lab.execute"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_committed_notebook_was_run_once_from_top_to_bottom(name):
    notebook = committed(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert count_figures(notebook) >= 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_committed_notebook_is_small_and_has_no_warning_and_no_path(name):
    path = HERE / f"{name}.ipynb"
    assert path.stat().st_size < MAX_BYTES
    found = outputs_of(committed(name))
    assert {output.output_type for output in found} <= {"stream", "display_data"}
    assert all(output.name == "stdout" for output in found if output.output_type == "stream")
    texts = [output.get("text") or json.dumps(output.data.get("text/plain")) for output in found]
    assert not [text for text in texts if re.search(r"(^|[\s'\"(])/\w+/|[A-Z]:\\", text)]


def test_both_notebooks_find_the_checkout_by_the_same_cell():
    assert len({code_of(read_source(name))[0] for name in NOTEBOOKS}) == 1


def test_a_claim_that_fails_fails_the_run(tmp_path):
    notebook = jupytext.reads("# %%\nassert 1 + 1 == 3\n", fmt="py:percent")
    with pytest.raises(CellExecutionError, match=r"1 \+ 1 == 3"):
        execute(notebook, tmp_path)


def run_first_cell(folder, *options):
    """Run the first cell as a script in a folder."""
    cell = code_of(read_source("notebook"))[0]
    command = [sys.executable, *options, "-c", f"{cell}\nprint('found', checkout)"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("folder", [ROOT, HERE, HERE / "figures"], ids=["top", "own", "below"])
def test_the_checkout_is_found_from_any_of_its_folders(folder):
    assert run_first_cell(folder).stdout == f"found {ROOT}\n"


def test_the_checkout_that_pip_has_linked_is_found_from_elsewhere(tmp_path):
    # As `pip install -e` does it: the package's own folder is on the path.
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code_of(read_source('notebook'))[0]}\nprint(checkout)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{ROOT}\n"


def test_without_the_extras_the_first_cell_names_what_is_missing():
    # Without site-packages nothing is installed.
    done = run_first_cell(HERE, "-I", "-S")
    assert done.returncode == 1
    assert "SetupError: not installed: accelerate, datasets, matplotlib" in done.stderr
    assert f"pip install -e '.[lab]' in {ROOT}" in done.stderr


def test_a_notebook_without_a_checkout_shows_one_line(tmp_path):
    package = tmp_path / "modeling_minigpt"  # a wheel: the package, and nothing beside it
    package.mkdir()
    (package / "__init__.py").touch()
    folder = tmp_path / "downloads"
    folder.mkdir()
    notebook = read_source("notebook")
    notebook.cells[1].source = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{notebook.cells[1].source}"
    with pytest.raises(CellExecutionError):
        execute(notebook, folder)
    (shown,) = outputs_of(notebook)
    assert shown.output_type == "error"
    (line,) = shown.traceback
    assert line == f"SetupError: no MiniGPT checkout in {folder} or above it: open this notebook inside a checkout"
    assert all(cell.execution_count is None for cell in notebook.cells[2:] if cell.cell_type == "code")
