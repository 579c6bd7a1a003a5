"""The token tables of a run: built by its main process once, read by all.

They are in the folder `tokens-DIGEST`, in a prepared corpus or else among the run's own data. The digest is of all
that they depend on, so any change leads to other tables; what a kill leaves half-written is never opened.
"""

import hashlib
import json
import os
from pathlib import Path

from accelerate import Accelerator

from artifacts.files import written_aside
from configuration.file_system import locked
from data_scripts.record_file import RecordFile
from data_scripts.tokens import Rows, write_table
from training.checkpoints import failing_together

VERSION = 2  # rises when rows have another form, or other phrases are found in the same texts
PREPARED = "prepared.json"  # of a folder that is a prepared corpus


def find_tokens_folder(corpus: Path, own: Path, depends_on: dict) -> Path:
    """Return the folder of the tables, which need not exist.

    Args:
        corpus: the folder of the data; the tables of a prepared corpus that can be written to are shared by its runs.
        own: the run's own folder for data.
        depends_on: what the tables depend on, by name.
    """
    described = json.dumps({"version": VERSION, **depends_on}, sort_keys=True)
    name = f"tokens-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    shared = (corpus / PREPARED).is_file()
    if shared and ((corpus / name).is_dir() or os.access(corpus, os.W_OK)):
        return corpus / name
    return own / name


def open_rows(path: Path, rows: Rows, entries: int, accelerator: Accelerator) -> RecordFile:
    """Open a table; where it is missing, the main process builds it first. Every process must call this.

    Args:
        path: the table's file.
        rows, entries: as `write_table`.
        accelerator: the processes.

    Raises:
        UserError: what building raises, on every process.
    """
    with failing_together(accelerator):
        if accelerator.is_main_process and not path.is_file():
            build_table(path, rows, entries)
    return RecordFile.open(path)


def build_table(path: Path, rows: Rows, entries: int) -> None:
    """Build a table, unless another run that shares the corpus does so first; the arguments as `open_rows`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder: the lock is no table.
    with locked(path.parent.with_name(f".{path.parent.name}.lock")) as is_alone:
        if path.is_file():  # built by the run that had the lock
            return
        with written_aside(path, is_alone) as partial:
            write_table(lambda: partial.open("wb"), rows, entries)
