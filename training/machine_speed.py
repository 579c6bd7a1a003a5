"""How fast this machine trains a model in each number format: measured in about a second, not looked up by its name.

Processor flags mislead. A CPU with AVX512-BF16 and without AMX trains 2.5 times faster in bfloat16, one with AVX2
alone may be 500 times slower (pytorch issue 146508), and a small model may lose to the conversions of autocast what
its products gain. So float32 and bfloat16 are compared at the recipe's own shapes: the products of the linear layers,
forward, backward and under autocast a model of one layer, and the products of Muon. A format that is hopeless in one
small product is not tried any further.

Not candidates: what makes float32 products less precise. `torch.set_float32_matmul_precision` sets it for the whole
process, and confidences are calibrated and answers scored in float32. On CUDA ("high": TF32) every GPU that has it
multiplies bfloat16 as well; on a CPU with AVX2 alone "high" and "medium" give the same bits as "highest" (torch 2.13).
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from configuration.errors import one_line
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from training.optimizers import StackedMuon, muon_matrices

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MARGIN = 1.1  # bfloat16 has 8 bits of precision: it must be faster than by the noise of these times
HOPELESS = 4.0  # a format that takes this many times as long as another one is not called again
SECONDS = 1.2  # all measurements together, but for the last call
CALL_SECONDS = 0.03  # of a step of the one layer in float32, by the rate of a small product
ROUNDS = 7
PROBE_ROWS = {"cpu": 128}  # of the small product
PROBE_ROWS_ELSEWHERE = 2048  # a smaller product would measure how fast a GPU is asked, not how fast it multiplies

Call = Callable[[], object]


@dataclass
class Race:
    """Time calls against each other, in turns, until the time is over.

    Attributes:
        clock: seconds.
        wait: waits until what was called is done.
        errors: by name, why a call failed.
    """

    clock: Callable[[], float] = time.perf_counter
    wait: Call = lambda: None
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, calls: dict[str, Call], share: float, rounds: int = ROUNDS) -> dict[str, float]:
        """Return each call's shortest time in seconds; infinite where it fails, or where no time was left for it.

        Args:
            calls: by name.
            share: of `SECONDS`, after which no further call is begun.
            rounds: calls of each.
        """
        end = self.clock() + share * SECONDS
        times = dict.fromkeys(calls, math.inf)
        for number in range(rounds):
            for name, call in calls.items():
                # Not after the first round, in which kernels are compiled and memory is allocated.
                is_hopeless = number > 1 and times[name] > HOPELESS * min(times.values())
                if name in self.errors or is_hopeless:
                    continue
                if self.clock() >= end:
                    return times
                times[name] = min(times[name], self.seconds(name, call))
        return times

    def seconds(self, name: str, call: Call) -> float:
        """Call once and return the seconds; infinite, with its error stored, where the call fails."""
        start = self.clock()
        try:
            call()
            self.wait()
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as error:
            self.errors[name] = one_line(error)[:200]  # an operator that the device lacks, or no memory
            return math.inf
        return self.clock() - start


@dataclass
class Speeds:
    """How fast each number format was, by its name; a format that was given up is missing.

    Attributes:
        rates: FLOP per second in the products of the linear layers, forward and backward; in a small product on one
            thread where nothing else was measured.
        layer: seconds of one layer with embedding and head, forward and backward; empty where nobody asked.
        muon: seconds of Muon's update of one matrix of each shape; empty where nobody asked.
        given_up: why a format was not measured, or not to the end.
    """

    rates: dict[str, float] = field(default_factory=dict)
    layer: dict[str, float] = field(default_factory=dict)
    muon: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)


def fastest(times: dict[str, float]) -> str:
    """Return the format to compute in: bfloat16 where it is clearly faster, float32 also where nothing is known."""
    return "bfloat16" if MARGIN * times.get("bfloat16", math.inf) < times.get("float32", 0.0) else "float32"


def is_emulated(device: torch.device) -> bool:
    """Return whether a GPU computes bfloat16 in float32, which is never faster."""
    return device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)


def waiting(device: torch.device) -> Call:
    """Return a function that waits until a device has done its queued work."""
    return (lambda: None) if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)


def start(device: torch.device) -> None:
    """Multiply once in each format, so that starting a GPU and its libraries, for seconds, is not measured."""
    for dtype in FORMATS.values():
        with suppress(RuntimeError, NotImplementedError, TypeError):
            matrix = torch.ones(8, 8, device=device, dtype=dtype)
            torch.mm(matrix, matrix)
    waiting(device)()


def probe_rates(race: Race, device: torch.device) -> dict[str, float]:
    """Return the FLOP per second of a small product in each format that the device has."""
    rows = PROBE_ROWS.get(device.type, PROBE_ROWS_ELSEWHERE)

    def product(dtype: torch.dtype) -> Call:
        matrix = torch.ones(rows, rows, device=device, dtype=dtype)
        return lambda: matrix @ matrix

    formats = ["float32"] if is_emulated(device) else FORMATS
    # On one thread: several wait for each other, on a busy machine a thousand times as long as this product takes.
    with threadpool_limits(1, user_api="openmp"):
        times = race.run({name: product(FORMATS[name]) for name in formats}, share=0.2)
    return {name: 2 * rows**3 / seconds for name, seconds in times.items() if math.isfinite(seconds)}


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than float32: a hint, for those who have no model yet."""
    rates = probe_rates(Race(wait=waiting(device)), device)
    return rates.get("bfloat16", 0.0) > MARGIN * rates["float32"]


def linear_calls(model: nn.Module, tokens: int, formats: Sequence[str]) -> dict[str, Call]:
    """Return the products of a model's linear layers for some tokens, forward and both gradients, in each format."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]

    def products(dtype: torch.dtype) -> Call:
        operands = []
        for weight in weights:
            outputs, inputs = weight.shape
            x, gradient = (weight.new_ones(tokens, width, dtype=dtype) for width in (inputs, outputs))
            operands.append((x, weight.detach().to(dtype), gradient))
        return lambda: [(x @ w.mT, gradient @ w, gradient.mT @ x) for x, w, gradient in operands]

    return {name: products(FORMATS[name]) for name in formats}


def layer_calls(model: MiniGPTForCausalLM, rows: int, length: int, formats: Sequence[str]) -> dict[str, Call]:
    """Return a step of a model, forward and backward, in float32 and under autocast, which converts weights too.

    Not compiled even where the run compiles: that takes ten seconds.
    """
    device = model.device
    ids = torch.arange(rows * length, device=device).reshape(rows, length) % model.config.vocab_size
    labels = ids.clone()
    labels[:, : length // 2] = -100  # about as many as titles have

    def step(name: str) -> None:
        converts = name != "float32"
        with torch.autocast(device.type, FORMATS[name]) if converts else nullcontext():
            loss = model(ids, labels=labels, num_items_in_batch=rows, use_cache=False, skip_logits=True).loss
        loss.backward()
        model.zero_grad()

    return {name: (lambda name=name: step(name)) for name in formats}


def muon_calls(model: nn.Module, formats: Sequence[str]) -> dict[str, Call]:
    """Return Muon's update of one matrix of each shape of a model's layers, in each format."""
    parameters = list({one.shape: one for one in muon_matrices(model)}.values())

    def update(optimizer: torch.optim.Optimizer) -> None:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

    optimizers = {name: StackedMuon(parameters, lr=0.0, dtype=FORMATS[name]) for name in formats}
    return {name: (lambda own=optimizer: update(own)) for name, optimizer in optimizers.items()}


def one_layer(config: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Build a model of the first layer alone, with random weights."""
    changes = {"num_hidden_layers": 1, "attention_type": config.layer_attention_types[0]}
    return MiniGPTForCausalLM(MiniGPTConfig(**{**config.to_dict(), **changes})).train()


def measure(
    config: MiniGPTConfig,
    rows: int,
    length: int,
    device: torch.device,
    trains_layer: bool = True,
    trains_muon: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Speeds:
    """Measure the number formats that a device has; leave no random draw of the CPU or a CUDA device.

    Args:
        config: the model to train.
        rows: of a batch; fewer are computed where a step would take too long.
        length: typical length of a row, in tokens.
        device: where to train.
        trains_layer, trains_muon: what to measure besides the products.
        clock: seconds.
    """
    start(device)
    race = Race(clock, waiting(device))
    speeds = Speeds()
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            _measure(race, speeds, config, (rows, length), device, trains_layer, trains_muon)
        # Training will raise it again, and say more.
        except (RuntimeError, NotImplementedError, TypeError, KeyError) as error:
            speeds.given_up.setdefault("bfloat16", f"cannot be measured: {one_line(error)[:200]}")
    for name, error in race.errors.items():
        speeds.given_up[name] = f"not supported on this device: {error}"
    return speeds


def _measure(
    race: Race,
    speeds: Speeds,
    config: MiniGPTConfig,
    shape: tuple[int, int],
    device: torch.device,
    trains_layer: bool,
    trains_muon: bool,
) -> None:
    """Fill in the speeds; see `measure`."""
    speeds.rates = probe_rates(race, device)
    slowdown = speeds.rates["float32"] / speeds.rates.get("bfloat16", math.inf)
    if is_emulated(device):
        speeds.given_up["bfloat16"] = "emulated by this GPU"
    elif slowdown > HOPELESS:
        speeds.given_up["bfloat16"] = f"a small product takes {slowdown:.0f} times as long as in float32"
    if speeds.given_up or len(speeds.rates) < len(FORMATS):
        return  # nothing to compare
    formats = list(FORMATS)
    model = one_layer(config).to(device)
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    rows, length = shape
    # Six FLOPs for each weight and token: two forward, four backward.
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    affordable = CALL_SECONDS * threads * speeds.rates["float32"] / (6 * linear * length)
    rows = max(1, min(rows, int(affordable)))
    found = race.run(linear_calls(model, rows * length, formats), share=0.2, rounds=3)
    products = 6 * linear * rows * length
    speeds.rates = {name: products / seconds for name, seconds in found.items() if math.isfinite(seconds)}
    if HOPELESS * found["float32"] < found["bfloat16"] < math.inf:
        speeds.given_up["bfloat16"] = "its products are too slow"
        return
    if trains_layer:
        found = race.run(layer_calls(model, rows, length, formats), share=0.45)
        speeds.layer = {name: seconds for name, seconds in found.items() if math.isfinite(seconds)}
    if trains_muon:
        found = race.run(muon_calls(model, formats), share=0.15, rounds=3)
        speeds.muon = {name: seconds for name, seconds in found.items() if math.isfinite(seconds)}
