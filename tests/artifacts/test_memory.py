"""Freed memory is kept in the process, or returned."""

import subprocess
import sys

import pytest

from artifacts import memory

SCRIPT = """
import resource, torch
from artifacts.memory import tune_glibc_malloc
if {keep}:
    assert tune_glibc_malloc()
def work():
    for _ in range(20):
        (torch.zeros(12_000_000) + 1).sum()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_memory_of_a_step_is_used_again_without_page_faults():
    assert page_faults(keep=True) < 0.1 * page_faults(keep=False)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_memory_can_be_returned():
    script = """
import torch
from benchmarks.measurement import resident
from artifacts.memory import malloc_trim, tune_glibc_malloc
assert tune_glibc_malloc()
torch.ones(2**26)
before = resident("VmRSS")
malloc_trim()
print(before - resident("VmRSS"))
"""
    freed = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60).stdout)
    assert freed > 0.9 * 4 * 2**26


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.tune_glibc_malloc() is False
    memory.malloc_trim()
