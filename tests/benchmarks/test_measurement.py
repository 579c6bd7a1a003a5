"""How benchmarks measure: fresh processes, interleaved rounds, peak memory, exponents."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from artifacts.memory import tune_glibc_malloc
from benchmarks.measurement import PeakMemory, exponent, in_fresh_process, interleave, seconds_of
from tests.running import ROOT

CPU = torch.device("cpu")


def own_process(point):
    return {"pid": os.getpid(), "point": point}


def die(point):
    os._exit(9)


def fail(point):
    raise ValueError(f"no {point}")


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def fail_stubbornly(point):
    raise Stubborn(point, lambda: 1)  # neither pickles nor unpickles


def test_each_point_of_each_round_has_a_process_of_its_own():
    *_, results = interleave(own_process, ["a", "b"], 2)
    processes = {result["pid"] for rounds in results.values() for result in rounds}
    assert [result["point"] for result in results["a"]] == ["a", "a"]
    assert len(processes) == 4
    assert os.getpid() not in processes


def test_a_point_that_fails_or_is_killed_is_reported_and_not_repeated():
    assert "killed" in in_fresh_process(die, 1)["error"]
    assert "Stubborn: 1 <function" in in_fresh_process(fail_stubbornly, 1)["error"]
    assert list(interleave(fail, ["x"], 3))[-1] == {"x": [{"error": "ValueError: no x"}]}


def write_and_wait(path):
    """Write this process's number, and compute for a minute."""
    path.write_text(str(os.getpid()))
    time.sleep(60)
    return {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_benchmark_that_is_killed_leaves_nobody_who_computes_on(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from benchmarks.measurement import in_fresh_process\n"
        "from tests.benchmarks.test_measurement import write_and_wait\n"
        f"if __name__ == '__main__': in_fresh_process(write_and_wait, Path({str(tmp_path / 'pid')!r}))\n"
    )
    (tmp_path / "benchmark.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    benchmark = subprocess.Popen([sys.executable, str(tmp_path / "benchmark.py")], env=environment)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = Path("/proc", (tmp_path / "pid").read_text())
    assert worker.exists()
    benchmark.kill()
    benchmark.wait()
    wait_until(lambda: not worker.exists() or "Z" in (worker / "stat").read_text().split()[2])


def wait_until(condition, seconds=30):
    """Wait until a condition holds; AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


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


def test_seconds_are_the_median_of_some_calls():
    calls = []

    def call():
        calls.append(1)
        time.sleep(0.1 if len(calls) == 1 else 0.01)

    assert 0.01 <= seconds_of(call, CPU, at_least=0.0, repeats=3) < 0.05
    assert len(calls) == 3


@pytest.mark.parametrize("power", [0.0, 1.0, 1.9])
def test_an_exponent_is_found_within_its_interval(power):
    sizes = [2**octave for octave in range(10, 15)]
    exact = exponent(sizes, [3.0 * size**power for size in sizes])
    assert exact == pytest.approx((power, power, power), abs=1e-6)
    bent = [size**power * factor for size, factor in zip(sizes, (1.0, 1.1, 0.9, 1.1, 1.0), strict=True)]
    slope, low, high = exponent(sizes, bent)
    assert low < power < high
    assert slope == pytest.approx(power, abs=0.05)
