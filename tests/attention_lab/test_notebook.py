"""The notebook runs from top to bottom, every claim in it holds, and it takes less than 90 seconds."""

import os
import subprocess
import sys
import time

import jupytext
import nbformat

from tests.running import ROOT

NOTEBOOK = ROOT / "attention_lab" / "notebook.py"


def execute(notebook, folder, timeout=90):
    """Run a notebook by nbmake in a folder, as `pytest --nbmake` does; return the process and what it wrote."""
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINIGPT_")}
    environment |= {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "--nbmake", f"--nbmake-timeout={timeout}", "--overwrite", path.name]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--rootdir={folder}"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=2 * timeout,
    )  # fmt: skip
    return done, nbformat.read(path, as_version=4)


def test_the_notebook_runs_and_its_claims_hold(tmp_path):
    start = time.monotonic()
    done, notebook = execute(jupytext.read(NOTEBOOK), tmp_path)
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - start < 90
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(cells) >= 9
    assert "the report's: c_1 = [ 0.  1." in printed
    assert "Φ(-√2) = 7.86%" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_a_claim_that_fails_fails_the_test(tmp_path):
    notebook = jupytext.reads("# %%\nassert 1 + 1 == 3\n", fmt="py:percent")
    done, _ = execute(notebook, tmp_path)
    assert done.returncode == 1
    assert "1 + 1 == 3" in done.stdout
