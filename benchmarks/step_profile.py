"""Where the time of a training step goes, and how near the model's products come to what the cores can do.

    python -m benchmarks.step_profile FOLDER --output benchmarks/results/step_profile.cpu.json        # three minutes
    python -m benchmarks.step_profile --recipe quickstart --output step_profile.json

A recipe's pretraining is stepped in each setting that this machine has: float32, float32 with compiled blocks,
bfloat16 with compiled blocks (`run.mixed_precision`, `run.compile`). Steps are timed without the profiler; the
profiler then shares out the time of other steps. The ceiling is the best rate of a float32 product of two matrices of
2,048 x 2,048. FLOPs are those of the model's products, forwards and backwards, with the optimizer's left out; Muon
takes its own in bfloat16 in every setting where the processor is faster at that, as torch's does everywhere.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from artifacts.machine import describe_machine, name_machine
from benchmarks.command_line import add_recipe_options, new_parser, positive_int
from benchmarks.harness import Point, Record, failed, failures, results_of, successes, write_report
from benchmarks.inputs import folder_digests
from benchmarks.measurement import measure_matmul_rate
from benchmarks.training_steps import TrainingSteps, with_paths
from configuration.errors import UserError, run_main, show
from configuration.recipe import load_recipe
from evaluation.tables import markdown_table
from training.machine_speed import has_fast_bfloat16
from training.precision import can_compile

RECIPE = "cs224n-speedrun"
SETTINGS = {
    "float32": ('run.mixed_precision="no"', "run.compile=false"),
    "float32, compiled": ('run.mixed_precision="no"', "run.compile=true"),
    "bfloat16, compiled": ('run.mixed_precision="bf16"', "run.compile=true"),
}
WARMUP = 64  # steps; whatever is compiled for some lengths alone is compiled among these
MATMULS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")
SHARES = ("matmul", "attention", "element-wise", "optimizer", "data", "idle")


def possible_settings() -> list[str]:
    """Return the settings that this machine has."""
    cpu = torch.device("cpu")
    lacking = [word for word, has in (("compiled", can_compile(cpu)), ("bfloat16", has_fast_bfloat16(cpu))) if not has]
    return [name for name in SETTINGS if not any(word in name for word in lacking)]


def count_flops(steps: TrainingSteps, batch: dict[str, torch.Tensor]) -> int:
    """Return the FLOPs of the model's products for a batch, both ways; the attention kernel's are not counted."""
    with FlopCounterMode(display=False) as counter:
        steps.model(**batch, use_cache=False, skip_logits=True).loss.backward()
    steps.model.zero_grad()
    return counter.get_total_flops()


def category(event) -> str:
    """Return which of `SHARES` an event of the profiler is part of."""
    name = event.name
    above = event
    while above is not None:
        if above.name.startswith("Optimizer.") or above.name == "data":
            return "data" if above.name == "data" else "optimizer"
        above = above.cpu_parent
    if name in MATMULS:
        return "matmul"
    return "attention" if "scaled_dot_product" in name else "element-wise"


def measure_shares(steps: TrainingSteps, first: int, count: int) -> dict[str, float]:
    """Return the share of the wall time of `count` steps from number `first` on that each of `SHARES` has."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for step in range(first, first + count):
            with record_function("data"):
                batch = steps.batches[step]
            steps.step(step, batch)
        wall = time.perf_counter() - start
    seconds = defaultdict(float)
    for event in profiler.events():
        seconds[category(event)] += event.self_cpu_time_total / 1e6
    seconds["idle"] = max(0.0, wall - sum(seconds.values()))  # Python between the operations, too
    return {name: seconds[name] / wall for name in SHARES}


def measure(point: Point, recipe: Path, overrides: list[str], data: Path | None, count: int) -> dict:
    """Time and profile the steps of one setting; seconds, FLOPs and shares are a step's."""
    with tempfile.TemporaryDirectory() as folder:
        last = f"pretrain.steps={WARMUP + 2 * count}"
        own = [*overrides, *SETTINGS[point.subject], "pretrain.epochs=null", last]
        steps = TrainingSteps(load_recipe(recipe, with_paths(own, folder, data)))
        ceiling = measure_matmul_rate(torch.device("cpu"), torch.float32, 2048)
        flops = statistics.mean(count_flops(steps, steps.batches[step]) for step in range(WARMUP, WARMUP + count))
        with steps.compiled():
            seconds = statistics.mean(steps.seconds(WARMUP, count))
            shares = measure_shares(steps, WARMUP + count, count)
        ceiling = max(ceiling, measure_matmul_rate(torch.device("cpu"), torch.float32, 2048))
        return {
            "step_seconds": seconds,
            "flops": flops,
            "flops_per_second": flops / seconds,
            "ceiling": ceiling,
            "of_ceiling": flops / seconds / ceiling,
            "shares": shares,
        }


def report(content: dict) -> str:
    """Return the results as Markdown."""
    results = results_of(content)
    rows = []
    for point, rounds in results.items():
        for found in successes(rounds):
            work = [f"{1000 * found['step_seconds']:.0f}", f"{found['flops'] / 1e9:.1f}"]
            rates = f"{found['flops_per_second'] / 1e9:.0f} of {found['ceiling'] / 1e9:.0f}"
            shares = [f"{100 * found['shares'][name]:.0f}" for name in SHARES]
            rows.append([point.subject, *work, rates, f"{100 * found['of_ceiling']:.0f}", *shares])
    introduction = (
        f"`{' '.join([content['recipe'], *content['overrides']])}`, {content['steps']} steps. "
        f"{name_machine(content['machine'])}. The ceiling is float32's."
    )
    shares = [f"{name}, %" for name in SHARES]
    columns = ["setting", "ms per step", "GFLOP per step", "GFLOP/s of the ceiling's", "% of the ceiling", *shares]
    title = "Where the time of a training step goes"
    return write_report(title, introduction, markdown_table(columns, rows), failures(results))


def main(argv: list[str] | None = None) -> int:
    """Measure every setting; return the exit status, 1 where one failed."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "data", type=Path, nargs="?", metavar="FOLDER", help="the four files; by default what the recipe names"
    )
    add_recipe_options(parser, RECIPE)
    parser.add_argument(
        "--steps", type=positive_int, default=64, help="steps to time, and as many to profile (%(default)s)"
    )
    arguments = parser.parse_args(argv)

    def command() -> int:
        if torch.cuda.is_available():
            raise UserError("this profile is of a CPU; hide the GPU (CUDA_VISIBLE_DEVICES=)")
        load_recipe(arguments.recipe, with_paths(arguments.overrides, "unused", arguments.data))
        settings = {
            "recipe": arguments.recipe.stem,
            "overrides": arguments.overrides,
            "data": folder_digests(arguments.data),
            "steps": arguments.steps,
        }
        record = Record(arguments.output, report, {"machine": describe_machine(torch.device("cpu")), **settings})
        points = [Point(setting) for setting in possible_settings()]
        record.measure(points, measure, arguments.recipe, arguments.overrides, arguments.data, arguments.steps)
        show(record.text())
        return int(any(failed(rounds) for rounds in record.results.values()))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
