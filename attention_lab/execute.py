"""Execute the notebooks and write them with their outputs, as GitHub shows them.

    python -m attention_lab.execute

The source of a notebook is the percent script of the same name; where a notebook is saved in JupyterLab, jupytext
changes the script, too. A minute or two on one core.
"""

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from configuration.errors import UserError, run_main

HERE = Path(__file__).parent
NOTEBOOKS = ("notebook", "from_sentence_to_answer")


class NotebookError(UserError, RuntimeError):
    """A cell has failed."""


def execute(notebook: NotebookNode, folder: Path = HERE, timeout: int = 300) -> None:
    """Run all cells in a fresh kernel that starts in a folder, and put the outputs into the notebook.

    Args:
        notebook: changed in place.
        folder: where JupyterLab would start the kernel: the notebook's own.
        timeout: seconds that a cell may take.

    Raises:
        CellExecutionError: a cell has raised.
    """
    # As for whoever opens it: nothing but the first cell says where the checkout is, and no model is chosen.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("MINIGPT_")
    }
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,  # the times at which cells ran would differ each time
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as settings:  # not the user's, whose start-up files may print
        client.execute(env={**environment, "IPYTHONDIR": settings})


def read_source(name: str) -> NotebookNode:
    """Return the notebook of a script, without outputs; cells are numbered, so that a second writing differs less."""
    notebook = jupytext.read(HERE / f"{name}.py")
    notebook.metadata["jupytext"].pop("text_representation", None)  # of the script, with jupytext's version
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def main() -> int:
    """Execute and write each notebook; return the exit status."""

    def command() -> None:
        for name in NOTEBOOKS:
            notebook = read_source(name)
            try:
                execute(notebook)
            except CellExecutionError as error:
                raise NotebookError(f"{HERE / name}.py: a cell failed: {error.ename}: {error.evalue}") from error
            except (CellTimeoutError, DeadKernelError) as error:
                raise NotebookError(f"{HERE / name}.py: {error}") from error
            nbformat.write(notebook, HERE / f"{name}.ipynb")
            print(f"{HERE / name}.ipynb: {len(notebook.cells)} cells")

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
