"""The modes of saved weights: those of any other new file."""

import stat
from contextlib import suppress
from pathlib import Path


def reset_modes(folder: Path) -> None:
    """Give the weights in a folder the mode of a new file: 0666 less the umask, or what the folder's ACL says.

    safetensors writes into a temporary file, which only its owner may read, and renames it.
    """
    # Read off a new file, since the umask itself can only be read by setting it, for all threads.
    probe = folder / ".mode.partial"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.glob("*.safetensors"):
        with suppress(OSError):  # a file system without modes
            path.chmod(mode)
