"""What benchmarks measure with: durations, peak memory, growth with size, and the machine's name."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.benchmark import Measurement, Timer

from artifacts.memory import malloc_trim

STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory in use since this was made, over what was in use then, in bytes; None if not counted.

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
    """Wait until a GPU has done its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_call(call: Callable[[], object], at_least: float = 0.5) -> Measurement:
    """Call repeatedly for at least `at_least` seconds, with as many threads as now; return torch's measurement.

    Its `median` and its `times` are in seconds a call. A GPU is waited for.
    """
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=at_least)


def measure_matmul_rate(device: torch.device, dtype: torch.dtype, size: int, at_least: float = 0.5) -> float:
    """Return the best rate of a product of two square matrices of `size` rows, in FLOP per second."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / min(time_call(lambda: left @ right, at_least).times)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Fit value ∝ size^p by least squares in logarithms; return p and its 95 % confidence interval."""
    from scipy import stats

    points = torch.tensor([sizes, values], dtype=torch.float64).log2().numpy()
    fit = stats.linregress(*points)
    spread = 0.0 if math.isnan(fit.stderr) else fit.stderr  # NaN for values all equal
    reach = stats.t.ppf(0.975, len(sizes) - 2) * spread
    return float(fit.slope), float(fit.slope - reach), float(fit.slope + reach)
