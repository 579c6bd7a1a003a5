"""Let OpenMP threads spin at barriers only while they do not wait for cores that other processes use.

A training step passes hundreds of barriers. A thread that is early spins there for milliseconds, which saves a wake-up
where the cores are free. Where another process has one of them, the early thread burns its core while the late one
waits for its turn, at every barrier: on two cores, steps took 6 to 30 times as long (`benchmarks.neighbour`).
No single setting serves both: sleeping at once (OMP_WAIT_POLICY=passive) costs about a tenth where the cores are free.

libgomp, which torch's wheels for Linux include, spins for 100 iterations instead of 300,000 where it has more threads
than there are CPUs ("GOMP_SPINCOUNT" in its manual). Every Python thread that computes with torch has a team of OpenMP
threads of its own, so idle teams are added while others use the cores. The training's own team is the same all the
time, and so is every sum. Elsewhere (macOS, another OpenMP) nothing is measured, or the teams have no effect.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

TASKS = Path("/proc/self/task")  # a folder of each thread; its schedstat has ns on a core, ns waiting for one, turns
USER_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
INTERVAL = 1.0  # seconds between two looks
# Waiting, in cores: alone it is 0.02, beside one busy process 0.8 with spinning and 0.2 – 0.6 without.
CONTENDED = 0.25
FREE = 0.1
LOOKS = 2  # as many in a row must find the cores free before threads spin again
GRAIN = 32_768  # elements that torch gives one thread at least


def waiting_times() -> dict[str, int]:
    """Return for how long each thread has been ready to run without a core, in ns; empty where this is not counted."""
    times = {}
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        try:
            times[task.name] = int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):  # the thread has ended, or the kernel does not count
            continue
    return times


class IdleTeams:
    """OpenMP teams without work, enough for libgomp to have more threads than CPUs."""

    def __init__(self):
        self.released: threading.Event | None = None
        self.owners: list[threading.Thread] = []

    def open(self) -> None:
        """Start the teams; they wait until `close`."""
        self.released = threading.Event()
        threads = torch.get_num_threads()
        # An owner's team adds all of its threads but the owner. 2 threads on 2 CPUs need one, 4 on 8 two: 4 + 3 + 3.
        teams = max(0, len(os.sched_getaffinity(0)) - threads) // (threads - 1) + 1
        started = [threading.Event() for _ in range(teams)]
        for event in started:
            owner = threading.Thread(target=self._own, args=(threads, event, self.released), daemon=True)
            owner.start()
            self.owners.append(owner)
        for event in started:
            event.wait()

    @staticmethod
    def _own(threads: int, started: threading.Event, released: threading.Event) -> None:
        try:
            # The first parallel loop of a thread starts its team.
            torch.empty(threads * GRAIN, device="cpu").fill_(0.0)
        finally:
            started.set()
        released.wait()  # a team ends with its owner

    def close(self) -> None:
        """End the teams."""
        if self.released is not None:
            self.released.set()
        for owner in self.owners:
            owner.join()
        self.released = None
        self.owners = []


class SpinGovernor:
    """Decides, look by look, whether threads may spin.

    Attributes:
        spins: whether they do: no idle teams are open.
    """

    def __init__(self):
        self.teams = IdleTeams()
        self.spins = True
        self.free_looks = 0
        self.times = waiting_times()
        self.looked = time.perf_counter()

    def look(self) -> None:
        """Measure how much the threads have waited for cores since the last look; open or close the teams."""
        times = waiting_times()
        now = time.perf_counter()
        waited = sum(max(0, value - self.times.get(thread, 0)) for thread, value in times.items())
        cores = waited / 1e9 / (now - self.looked)
        self.times = times
        self.looked = now
        self.free_looks = self.free_looks + 1 if cores < FREE else 0
        if self.spins and cores > CONTENDED:
            self.teams.open()
            self.spins = False
        elif not self.spins and self.free_looks >= LOOKS:
            self.close()

    def close(self) -> None:
        """Let threads spin, as without this object."""
        self.teams.close()
        self.spins = True

    def run(self, ended: threading.Event) -> None:
        """Look once an interval until the event is set."""
        # A system may give us no thread and no file: training continues all the same.
        with suppress(OSError, RuntimeError):
            while not ended.wait(INTERVAL):
                self.look()
        self.close()


@contextmanager
def spin_on_free_cores() -> Iterator[None]:
    """Govern the spinning while the context lasts, in a thread of its own.

    It is inactive where the user has set one of `USER_VARIABLES`, where torch has one thread only (as under torchrun
    and `accelerate launch`), and where the system does not count waiting.
    """
    if torch.get_num_threads() == 1 or any(name in os.environ for name in USER_VARIABLES) or not waiting_times():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=SpinGovernor().run, args=(ended,), name="spin governor", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads for this user: threads spin as they like
        yield
        return
    try:
        yield
    finally:
        ended.set()
        thread.join()
