"""Memory of this process: freed blocks kept for the next step, or given back to the kernel."""

import ctypes
import sys

# glibc's mallopt parameters (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def glibc(name: str):
    """Return a function of glibc's malloc; None elsewhere than on glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def malloc_trim() -> None:
    """Return freed memory to the kernel once, so that what is resident is in use."""
    trim = glibc("malloc_trim")
    if trim is not None:
        trim(0)


def tune_glibc_malloc(top_pad_mib: int = 256) -> bool:
    """Tell glibc to serve large blocks from the heap and never to shrink it; return whether that took.

    By default glibc maps each activation anew and unmaps it when freed, and the page faults cost about a quarter of a
    CPU training step. Elsewhere than on glibc this does nothing. The peak of memory stays; it is only not given back.
    """
    mallopt = glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, top_pad_mib * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
