"""How benchmarks measure: each point in a fresh process, points interleaved over rounds, medians with their spread."""

import math
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from tqdm import tqdm

from artifacts.memory import malloc_trim
from artifacts.run_folder import RunError, read_record

STATUS = Path("/proc/self/status")


def catch_errors(measure: Callable[..., dict], *arguments) -> dict:
    """Return `measure(*arguments)`, or `{"error": …}`: not every exception can travel to another process."""
    try:
        return measure(*arguments)
    except torch.OutOfMemoryError:
        return {"error": "out of memory"}
    except Exception as error:  # one point that cannot be measured must not lose the others
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def exit_with_parent(parent: int) -> None:
    """End this process soon after another has ended: a benchmark that is killed leaves nobody who computes on."""

    def watch() -> None:
        while True:
            time.sleep(1)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_fresh_process(measure: Callable[..., dict], *arguments) -> dict:
    """Return `measure(*arguments)` from a process of its own, or `{"error": …}` where it fails or is killed.

    The process is forked from a server that has imported the model's package and done nothing else: as clean as a new
    interpreter, without its seconds of imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modeling_minigpt", measure.__module__])
    ours = {"initializer": exit_with_parent, "initargs": (os.getpid(),)}
    with ProcessPoolExecutor(max_workers=1, mp_context=context, **ours) as pool:
        try:
            return pool.submit(catch_errors, measure, *arguments).result()
        except BrokenProcessPool:
            return {"error": "killed, most likely for want of memory"}


def interleave(
    measure: Callable[..., dict], points: Sequence[Hashable], rounds: int, *arguments
) -> Iterator[dict[Hashable, list[dict]]]:
    """Measure every point once a round, in a new order each round, so that a slow minute of the machine hits all.

    Yields:
        After each round, every point's results of `measure(point, *arguments)` so far. A point that fails is not tried
        again.
    """
    results = {point: [] for point in points}
    with tqdm(total=rounds * len(points), unit="point", dynamic_ncols=True) as bar:
        for number in range(rounds):
            for point in random.Random(number).sample(list(points), len(points)):
                bar.set_description(str(point))
                if not any("error" in result for result in results[point]):
                    results[point].append(in_fresh_process(measure, point, *arguments))
                bar.update()
            yield results


def earlier_points(output: Path, record: dict, field: str = "points") -> list[dict]:
    """Return what an earlier run of the same command has measured, to be gone on with; failures are tried again.

    Raises:
        RunError: the file is not a record, or it is one of other settings or another machine.
    """
    if not output.exists():
        return []
    earlier = read_record(output)
    if any(earlier.get(key) != value for key, value in record.items()):
        raise RunError(f"{output}: holds measurements of another recipe, time or machine")
    return [point for point in earlier[field] if "error" not in point]


class PeakMemory:
    """The most memory in use since this was made, over what was in use then, in bytes; None where nobody counts it.

    On CUDA it is the allocator's count, on Linux the process's resident set.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        elif sys.platform == "linux":
            malloc_trim()
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to the present
            self.before = resident("VmRSS")

    def read(self) -> int | None:
        """Return the peak so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return max(0, resident("VmHWM") - self.before) if sys.platform == "linux" else None


def resident(field: str) -> int:
    """Return a field of the process's memory status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device, at_least: float = 0.5, repeats: int = 2) -> float:
    """Return the median duration of `call` in seconds, over so many `repeats` and so much time `at_least`."""
    durations = []
    while len(durations) < repeats or sum(durations) < at_least:
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def measure_ceiling(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 20) -> float:
    """Return the best rate of a product of two square matrices of `size` rows, in FLOP a second."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    seconds = (seconds_of(lambda: left @ right, device, at_least=0.0, repeats=1) for _ in range(repeats))
    return 2 * size**3 / min(seconds)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Fit value ∝ size^p by least squares in logarithms; return p and its 95 % confidence interval."""
    from scipy import stats

    points = torch.tensor([sizes, values], dtype=torch.float64).log2().numpy()
    fit = stats.linregress(*points)
    spread = 0.0 if math.isnan(fit.stderr) else fit.stderr  # NaN for values all equal
    reach = stats.t.ppf(0.975, len(sizes) - 2) * spread
    return float(fit.slope), float(fit.slope - reach), float(fit.slope + reach)


def describe_machine(device: torch.device) -> dict:
    """Return what the numbers of a run depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def name_machine(machine: dict) -> str:
    """Return what `describe_machine` found, in words."""
    return f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"


def processor_name() -> str:
    """Return the processor's name, or just "CPU"."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
