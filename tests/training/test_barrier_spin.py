"""Spinning at OpenMP's barriers: measured waiting decides, idle teams end it, and a user's own setting is obeyed."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.running import ROOT, call
from training import barrier_spin
from training.barrier_spin import LOOKS, USER_VARIABLES, SpinGovernor, spin_on_free_cores, waiting_times

NAME = "spin governor"
# Each loop leaves the second thread without work for 20 ms: spinning, it takes CPU time meanwhile.
IDLE_TIMES = """
import time, torch
from training.barrier_spin import IdleTeams

numbers = torch.randn(300_000)
def measure():
    start = time.process_time()
    for _ in range(20):
        total = numbers.exp().sum()
        time.sleep(0.02)
    return time.process_time() - start, total.item()

measure()
results = [measure()]
teams = IdleTeams()
teams.open()
results.append(measure())
teams.close()
results.append(measure())
print(*(seconds for seconds, _ in results), len({total for _, total in results}))
"""


@pytest.fixture
def two_threads(monkeypatch):
    """Let this process look as one whose torch has two threads and whose user has set nothing."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def governed() -> bool:
    return NAME in [thread.name for thread in threading.enumerate()]


@pytest.mark.skipif(not waiting_times(), reason="needs a kernel that counts waiting")
def test_waiting_for_a_core_is_measured():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # of this thread, and of the process that it starts
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before = sum(waiting_times().values())
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            pass
        assert sum(waiting_times().values()) - before > 0.05e9
    finally:
        neighbour.kill()
        neighbour.wait()
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="on one core nothing spins for long"
)
def test_threads_sleep_at_once_while_idle_teams_are_open_and_sums_are_the_same():
    if "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("torch has another OpenMP here")
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    environment |= {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", IDLE_TIMES]
    out = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    before, during, after, sums = map(float, out.split())
    assert during < 0.5 * min(before, after)
    assert sums == 1


def test_contended_cores_end_the_spinning_and_free_ones_in_a_row_allow_it_again(monkeypatch):
    clock = [0.0, 0.0]  # seconds passed, seconds waited
    monkeypatch.setattr(barrier_spin, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(barrier_spin, "waiting_times", lambda: {"1": int(clock[1] * 1e9)})
    opened = []
    governor = SpinGovernor()
    governor.teams = SimpleNamespace(open=lambda: opened.append(True), close=lambda: opened.append(False))
    free, between, contended = 0.5 * barrier_spin.FREE, 0.15, 1.5 * barrier_spin.CONTENDED

    def look(cores: float) -> bool:
        clock[0] += 2.0
        clock[1] += 2.0 * cores
        governor.look()
        return governor.spins

    assert [look(cores) for cores in (free, between)] == [True, True]
    assert [look(cores) for cores in (contended, between, free, contended)] == [False] * 4
    assert [look(free) for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]
    assert opened == [True, False]


@pytest.mark.skipif(not waiting_times(), reason="needs a kernel that counts waiting")
@pytest.mark.parametrize("variable", [None, *USER_VARIABLES])
def test_a_run_is_governed_unless_the_user_has_chosen(variable, two_threads, recipe, data, tmp_path, monkeypatch):
    if variable is not None:
        monkeypatch.setenv(variable, "7")
    seen = []
    monkeypatch.setattr("training.runner.run_command", lambda *_: seen.append(governed()))
    assert call("all", recipe, data, tmp_path / "run") == 0
    assert seen == [variable is None]
    assert variable is None or os.environ[variable] == "7"
    assert not governed()


def test_one_thread_is_left_alone(two_threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with spin_on_free_cores():
        assert not governed()


@pytest.mark.skipif(not waiting_times(), reason="needs a kernel that counts waiting")
def test_training_continues_where_no_thread_can_be_started(two_threads, monkeypatch, capfd):
    looked = threading.Event()

    def look(governor):
        looked.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(SpinGovernor, "look", look)
    monkeypatch.setattr(barrier_spin, "INTERVAL", 0.01)
    with spin_on_free_cores():
        assert looked.wait(10)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("refused", ["the governor", "idle teams"])
def test_training_continues_where_the_system_gives_no_thread(two_threads, monkeypatch, capfd, refused):
    original = threading.Thread.start
    asked = threading.Event()

    def start(thread):
        if (thread.name == "spin governor") == (refused == "the governor"):
            asked.set()
            raise RuntimeError("can't start new thread")
        original(thread)

    monkeypatch.setattr(SpinGovernor, "look", lambda governor: governor.teams.open())
    monkeypatch.setattr(barrier_spin, "INTERVAL", 0.01)
    monkeypatch.setattr(threading.Thread, "start", start)
    with spin_on_free_cores():
        assert asked.wait(10)
    assert capfd.readouterr().err == ""
