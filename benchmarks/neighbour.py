"""Training steps per second alone and beside a process that takes one core, with and without `spin_on_free_cores`.

    python -m benchmarks.neighbour --output benchmarks/results/neighbour.cpu.json
    python -m benchmarks.neighbour --recipes quickstart --rounds 1 --output neighbour.json                # one minute
    python -m benchmarks.neighbour --recipes cs224n-speedrun --set data.path=FOLDER --output neighbour.json

Each recipe's pretraining is stepped on its first batch, again and again, in a fresh process: as torch starts, and as
`train.py` runs it, each alone and beside a busy loop. Ratios are those of a pass, which has all four. The loop has a
lower priority (nice 10) and a session of its own: Linux, which shares the cores among sessions first
(sched_autogroup), gives it a core all the same. A recipe is compiled where its name here ends with `+compile`, and
else not. Exits with 1 where a bar printed at the end is missed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from artifacts.machine import describe_machine, name_machine
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import new_parser, non_negative_float, positive_int
from benchmarks.harness import (
    Point,
    Record,
    Results,
    failures,
    median_and_range,
    results_of,
    section,
    successes,
    write_report,
)
from benchmarks.training_steps import TrainingSteps, with_paths
from configuration.errors import UserError, run_main, show
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from training.barrier_spin import INTERVAL, LOOKS, USER_VARIABLES, spin_on_free_cores

RECIPES = ("quickstart", "cs224n-speedrun", "cs224n-speedrun+compile")
COMPILED = "+compile"
BUSY = "import os\nos.nice(10)\nwhile True: pass"
TORCH = "as torch starts"
TRAIN = "as train.py runs"
WAYS = {TORCH: nullcontext, TRAIN: spin_on_free_cores}
ALONE = "alone"
BESIDE = "beside a busy process"
WARMUP = 5  # steps
MIN_STEPS = 2  # beside a busy process one may take half a minute
# The bars.
MIN_BESIDE = 0.45  # of the steps per second alone
MIN_ALONE = 0.97  # of the steps per second as torch starts


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy in another process while the context lasts."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_for(steps: TrainingSteps, seconds: float) -> float:
    """Step for some seconds; return the steps per second."""
    count = 0
    start = time.perf_counter()
    while count < MIN_STEPS or time.perf_counter() - start < seconds:
        steps.step(count, steps.batches[0])
        count += 1
    return count / (time.perf_counter() - start)


def measure_alone(steps: TrainingSteps, seconds: float) -> dict[str, float]:
    """Return each way's steps per second without a neighbour, both ways in turns, there and back: A B B A."""
    turns: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in [*WAYS, *reversed(WAYS)]:
        with WAYS[way]():
            turns[way].append(step_for(steps, seconds / 2))
    return {way: statistics.mean(values) for way, values in turns.items()}


def measure_beside(steps: TrainingSteps, seconds: float) -> dict[str, float]:
    """Return each way's steps per second beside a busy process, after the time that adapting the spinning takes."""
    found = {}
    for way in WAYS:
        with busy_process(), WAYS[way]():
            if way == TRAIN:
                step_for(steps, INTERVAL * (LOOKS + 1))
            found[way] = step_for(steps, seconds)
    return found


PLACES = {ALONE: measure_alone, BESIDE: measure_beside}


def measure(point: Point, overrides: list[str], seconds: float, passes: int) -> dict:
    """Return the steps per second of a recipe: a list, one value per pass, for every way and place."""
    found: dict[str, dict[str, list[float]]] = {way: {place: [] for place in PLACES} for way in WAYS}
    recipe = find_recipe(point.subject.removesuffix(COMPILED))
    compiled = f"run.compile={str(point.subject.endswith(COMPILED)).lower()}"
    with tempfile.TemporaryDirectory() as folder:
        steps = TrainingSteps(load_recipe(recipe, with_paths([*overrides, compiled], folder, None)))
        with steps.compiled():
            for _ in range(WARMUP):
                steps.step(0, steps.batches[0])
            for _ in range(passes):
                for place, measure_place in PLACES.items():
                    for way, value in measure_place(steps, seconds).items():
                        found[way][place].append(value)
    return found


def steps_a_second(results: Results, subject: str, way: str, place: str) -> list[float]:
    """Return what all rounds and passes of a recipe found."""
    rounds = [found for point, all_ in results.items() if point.subject == subject for found in successes(all_)]
    return [value for found in rounds for value in found[way][place]]


def ratio(above: list[float], below: list[float]) -> float | None:
    """Return the median of the passes' ratios, None where nothing was measured: a slow minute is in both terms."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True)) if above else None


def report(content: dict) -> str:
    """Return steps per second and their ratios as Markdown."""
    results = results_of(content)
    rows = []
    for subject in (point.subject for point in results):
        for way in WAYS:
            alone, beside = (steps_a_second(results, subject, way, place) for place in PLACES)
            share = ratio(beside, alone)
            written = "–" if share is None else f"{share:.2f}"
            rows.append([subject, way, median_and_range(alone), median_and_range(beside), written])
    introduction = (
        f"{name_machine(content['machine'])}. Medians (and ranges) of all passes, and the median of their ratios. The "
        "neighbour is a busy loop of lower priority (nice 10) in a session of its own."
    )
    columns = ["recipe", "OpenMP threads", ALONE, BESIDE, "of alone"]
    table = section("Training steps per second", columns, rows)
    return write_report("Training beside another process", introduction, table, failures(results))


def judge(results: Results) -> list[Bar]:
    """Return the bars of each recipe."""
    bars = []
    for subject in (point.subject for point in results):
        before = steps_a_second(results, subject, TORCH, ALONE)
        alone = steps_a_second(results, subject, TRAIN, ALONE)
        beside = steps_a_second(results, subject, TRAIN, BESIDE)
        bars.append(Bar(f"{subject}: beside a busy process, of alone", ratio(beside, alone), ">=", MIN_BESIDE))
        bars.append(Bar(f"{subject}: alone, of as torch starts", ratio(alone, before), ">=", MIN_ALONE))
    return bars


def check_machine() -> None:
    """Refuse a machine or an environment in which both ways are the same.

    Raises:
        UserError: one thread only, or OpenMP's waiting is set by the user.
    """
    chosen = [name for name in USER_VARIABLES if name in os.environ]
    if chosen:
        raise UserError(f"{chosen[0]} is {os.environ[chosen[0]]!r}, but this compares with how torch starts; unset it")
    if torch.get_num_threads() == 1:
        raise UserError("torch has 1 thread, and no barriers to wait at; at least 2 are needed")


def main(argv: list[str] | None = None) -> int:
    """Measure every recipe; return the exit status, 1 where a bar is missed."""
    parser = new_parser(__doc__, "runs/neighbour.cpu.json")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), metavar="RECIPE", help="(%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--rounds", type=positive_int, default=1, help="fresh processes of each recipe (%(default)s)")
    parser.add_argument("--passes", type=positive_int, default=3, help="measurements in each process (%(default)s)")
    parser.add_argument(
        "--seconds", type=non_negative_float, default=4.0, help="least seconds per measurement (%(default)s)"
    )
    arguments = parser.parse_args(argv)

    def command() -> int:
        check_machine()
        for name in arguments.recipes:  # a wrong one is named before minutes of measuring
            find_recipe(name.removesuffix(COMPILED))
        settings = {name: getattr(arguments, name) for name in ("overrides", "seconds", "passes")}
        record = Record(arguments.output, report, {"machine": describe_machine(torch.device("cpu")), **settings})
        points = [Point(name) for name in arguments.recipes]
        where = (arguments.overrides, arguments.seconds, arguments.passes)
        record.measure(points, measure, *where, rounds=arguments.rounds)
        show(record.text())
        return print_bars(judge(record.results))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
