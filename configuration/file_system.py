"""What file systems may lack, and how the project works without: locks, and syncing to the disk."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# What a file system answers that has no locks, as NFS without its lock daemon.
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# What one answers that cannot sync a folder, or anything: CIFS, FUSE and some network disks.
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


def take_lock(lock: FileLock, blocking: bool = True) -> bool:
    """Take a lock; return whether there is one, which not every file system has.

    Args:
        blocking: whether to wait while another process has it.

    Raises:
        filelock.Timeout: another process has it, and `blocking` is off.
        OSError: its file cannot be written.
    """
    try:
        lock.acquire(blocking=blocking)
    except Timeout:
        raise
    except NotImplementedError:  # older versions of the library, instead of the system's error
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file until the block ends, and wait first while another process has locked it.

    Whoever wants to build something in a folder that several runs share looks for it again in the block: another run
    may have built it meanwhile. The system unlocks the file when the process dies.

    Args:
        path: the lock file; it is made, with its folder, and stays.

    Yields:
        Whether the file is locked; without locks, a warning says that another run may be building the same.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, poll_interval=POLL_SECONDS)
    try:
        has_locks = take_lock(lock, blocking=False)
    except Timeout:
        logger.info(f"waiting for another run that is using {path.parent}; if there is none, remove {path}")
        has_locks = take_lock(lock)
    if not has_locks:
        logger.warning(f"{path.parent}: its file system has no locks; do not let two runs prepare it at once")
    try:
        yield has_locks
    finally:
        lock.release()  # of one that was not acquired changes nothing


def own_partial(path: Path) -> Path:
    """Return a name beside `path` for what becomes it: one that no other process writes to, on whatever machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


def sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk, where the file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # one that may be written to but not listed; on Windows, any
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(handle)
