"""What benchmarks measure with: peak memory, durations, exponents."""

import sys
import time

import pytest
import torch

from artifacts.machine import describe_machine, name_machine
from artifacts.memory import tune_glibc_malloc
from benchmarks.harness import in_fresh_process
from benchmarks.measurement import PeakMemory, exponent, time_call

CPU = torch.device("cpu")


def peak_of_a_tensor(megabytes):
    """Measure one, as benchmarks do: freed memory is kept, and as much was freed before."""
    tune_glibc_malloc()
    torch.ones(megabytes * 2**20, dtype=torch.uint8)
    peak = PeakMemory(CPU)
    torch.ones(megabytes * 2**20, dtype=torch.uint8)
    return {"bytes": peak.read()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_is_in_use_at_once():
    assert in_fresh_process(peak_of_a_tensor, 96)["bytes"] == pytest.approx(96 * 2**20, rel=0.1)


def test_a_call_is_timed_for_as_long_as_asked_and_a_slow_first_call_does_not_count():
    calls = []

    def call():
        calls.append(1)
        time.sleep(0.1 if len(calls) == 1 else 0.01)

    measurement = time_call(call, at_least=0.05)
    assert 0.01 <= measurement.median < 0.05
    assert 0.05 <= sum(measurement.times) < 0.5


@pytest.mark.parametrize("power", [0.0, 1.0, 1.9])
def test_an_exponent_is_found_within_its_interval(power):
    sizes = [2**octave for octave in range(10, 15)]
    exact = exponent(sizes, [3.0 * size**power for size in sizes])
    assert exact == pytest.approx((power, power, power), abs=1e-6)
    bent = [size**power * factor for size, factor in zip(sizes, (1.0, 1.1, 0.9, 1.1, 1.0), strict=True)]
    slope, low, high = exponent(sizes, bent)
    assert low < power < high
    assert slope == pytest.approx(power, abs=0.05)


@pytest.mark.parametrize(
    ("has", "name"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx512_f": True, "avx2": True}, "AMX"),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_f": True, "avx2": True}, "AVX512-BF16"),
        ({"avx2": True}, "AVX2"),
        ({"neon": True, "bf16": False}, "NEON"),
    ],
    ids=["AMX", "AVX512-BF16", "AVX2", "NEON"],
)
def test_processors_of_one_name_differ_by_their_instructions(has, name, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    machine = describe_machine(torch.device("cpu"))
    assert machine["instructions"] == name
    assert f"({name}), " in name_machine(machine)


def test_a_machine_without_known_instructions_is_named_without():
    assert name_machine({"device": "CPU", "threads": 2, "torch": "2"}) == "CPU, 2 threads, torch 2"
