"""Memory of this process: freed blocks kept for the next step, or returned to the kernel."""

import ctypes
import sys

# glibc's mallopt parameters (malloc.h)
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4


def glibc(name: str):
    """Return a function of glibc's malloc by its name, or None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def malloc_trim() -> None:
    """Return freed memory to the kernel once, so that the resident memory is what is in use."""
    trim = glibc("malloc_trim")
    if trim is not None:
        trim(0)


def tune_glibc_malloc(top_pad_mib: int = 256) -> bool:
    """Let glibc serve large blocks from the heap and never shrink it; return whether that succeeded.

    By default glibc maps each activation again and unmaps it when freed, and the page faults cost about a quarter of a
    CPU training step. With another C library this does nothing. The peak of memory is the same; it is only not
    returned.

    Args:
        top_pad_mib: by how much the heap grows at least, in MiB.
    """
    mallopt = glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, top_pad_mib * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
