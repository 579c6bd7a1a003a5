"""Where the laboratory's commands write, checked before anything is computed."""

import tempfile
from pathlib import Path

from configuration.errors import UserError


def open_folder(folder: Path) -> Path:
    """Return a folder to write to, created where it is missing; UserError where no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    return folder
