"""Write files and folders completely or not at all, and report in one line what a disk refuses.

Everything that a run leaves is written under another name beside its own, synced to the disk and renamed. A kill, a
full disk or a power cut leaves what was there before, or the new contents, and nothing in between.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from configuration.errors import UserError
from configuration.file_system import own_partial, sync

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskError(UserError, RuntimeError):
    """A file that cannot be read or written; the message is one line for the user."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(path: Path) -> None:
    """Sync a file, or a folder with all that is in it."""
    for inner in path.rglob("*"):
        if not inner.is_symlink():
            sync(inner)
    sync(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Sync a file or folder and rename it to `path`, where a file may be, or an empty folder."""
    # Without the first sync the rename may reach the disk before the contents do, and a power cut leaves empty files.
    sync_tree(partial)
    os.replace(partial, path)
    sync(path.parent)


@contextmanager
def written_aside(path: Path, is_alone: bool = True) -> Iterator[Path]:
    """Yield a name beside `path` for a new file or folder, which is put in its place if the block succeeds.

    Args:
        path: what is written.
        is_alone: whether no other process can be writing the same.
    """
    # A fixed name, so that what a kill leaves goes away next time; two processes at once need a name each.
    partial = path.with_name(f".{path.name}.partial") if is_alone else own_partial(path)
    remove(partial)
    try:
        yield partial
        put_in_place(partial, path)
    except BaseException:
        with suppress(OSError):
            remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, completely or not at all."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict) -> None:
    """Write JSON, completely or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def folder_size(folder: Path) -> int:
    """Return the bytes of a folder's files, without those that vanish meanwhile."""
    total = 0
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or would be."""
    for path in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(path).free
    return 0


def is_disk_error(error: Exception) -> bool:
    """Return whether an error is a disk's, of Python or of a library in Rust, which raises its own."""
    return isinstance(error, (OSError, SafetensorError)) or "(os error " in str(error)


@contextmanager
def as_disk_error(key: str, folder: Path, advice: str) -> Iterator[None]:
    """Raise what the libraries raise for a full or failing disk as a DiskError.

    Args:
        key: the recipe's key that names the folder, for the message.
        folder: what is written to.
        advice: what to do, for the message; it depends on the command.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_disk_error(error):
            raise
        text = " ".join(str(error).split())[:300] or type(error).__name__
        is_full = getattr(error, "errno", None) in DISK_FULL or "No space" in text or "quota" in text.lower()
        free = f"; {free_space(folder) / 1e6:.1f} MB free" if is_full else ""
        raise DiskError(f"{key} {folder}: {text}{free}; {advice}") from error
