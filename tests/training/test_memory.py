"""Keeping freed memory in the process."""

import subprocess
import sys

import pytest

from training import memory

SCRIPT = """
import resource, torch
from training.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
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
def test_a_steps_memory_is_not_asked_of_the_kernel_again():
    assert page_faults(keep=True) < 0.1 * page_faults(keep=False)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_memory_can_be_given_back():
    script = """
import torch
from benchmarks.measurement import resident
from training.memory import give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
torch.ones(2**26)
held = resident("VmRSS")
give_back_freed_memory()
print(held - resident("VmRSS"))
"""
    freed = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60).stdout)
    assert freed > 0.9 * 4 * 2**26


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
    memory.give_back_freed_memory()
