"""The training step in each number format, and whether `run.mixed_precision: auto` chooses the faster one.

    python -m benchmarks.number_formats FOLDER --output benchmarks/results/number_formats.cpu.json      # two minutes
    python -m benchmarks.number_formats --recipes quickstart --output number_formats.json

Steps of a recipe's pretraining are timed, uncompiled, with the recipe's batches and optimizers, in rounds of a new
order each: a quarter of an hour where bfloat16 is emulated. The choice is timed as well: it is what training waits for
before it begins. A choice is right if the other format is not more than 2 % faster. Exits with 1 where a choice is
wrong or takes longer than 1.5 seconds.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState

from artifacts.machine import describe_machine, name_machine
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import default_device, new_parser, positive_int
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
from benchmarks.inputs import folder_digests
from benchmarks.training_steps import TrainingSteps, with_paths
from configuration.errors import run_main, show
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from training.precision import PRECISIONS, measured_formats

CHOICE = "auto"
SLOWER = 1.02  # times the time of the faster format that the chosen one may take
MAX_SECONDS = 1.5  # of choosing


def data_of(recipe: str, data: Path | None) -> Path | None:
    """Return the folder that a recipe reads; None for those that invent their people."""
    return None if Path(recipe).stem.startswith("quickstart") else data


def measure(point: Point, data: Path | None, steps: int) -> dict:
    """Time a recipe's steps in one format, or the choice between the formats."""
    path = find_recipe(point.task)
    with tempfile.TemporaryDirectory() as folder:
        overrides = with_paths(["run.compile=false"], folder, data_of(point.task, data))
        if point.subject == CHOICE:
            state = PartialState()
            recipe = load_recipe(path, overrides)
            start = time.perf_counter()
            formats = measured_formats(recipe, state.device)
            return {"seconds": time.perf_counter() - start, "formats": asdict(formats)}
        precision = f'run.mixed_precision="{PRECISIONS[point.subject]}"'
        return {
            "seconds": statistics.median(TrainingSteps(load_recipe(path, [*overrides, precision])).seconds(1, steps))
        }


def seconds_of(results: Results, subject: str, recipe: str) -> list[float]:
    """Return the seconds of all rounds of a point; none where it failed."""
    return [found["seconds"] for found in successes(results.get(Point(subject, recipe), []))]


def slowdowns(results: Results, recipe: str) -> list[float]:
    """Return for each choice how many times as long its steps take as those of the faster format."""
    times = {name: statistics.median(found) for name in PRECISIONS if (found := seconds_of(results, name, recipe))}
    chosen = [found["formats"]["model"] for found in successes(results.get(Point(CHOICE, recipe), []))]
    return [times[name] / min(times.values()) for name in chosen if len(times) == len(PRECISIONS)]


def recipes_of(results: Results) -> list[str]:
    """Return the recipes of a record."""
    return sorted({point.task for point in results})


def report(content: dict) -> str:
    """Return the results as Markdown."""
    results = results_of(content)
    rows = []
    for recipe in recipes_of(results):
        steps = [median_and_range(seconds_of(results, name, recipe), 1e3) for name in PRECISIONS]
        choices = successes(results.get(Point(CHOICE, recipe), []))
        chosen = ", ".join(sorted({found["formats"]["model"] for found in choices})) or "–"
        found = slowdowns(results, recipe)
        is_right = "–" if not found else "yes" if max(found) <= SLOWER else "no"
        why = choices[0]["formats"]["reason"] if choices else "–"
        waited = median_and_range(seconds_of(results, CHOICE, recipe), 1e3)
        rows.append([recipe, *steps, chosen, is_right, waited, why])
    columns = [
        "recipe",
        *(f"{name}, ms per step" for name in PRECISIONS),
        "auto chooses",
        "the faster",
        "ms to choose",
        "why",
    ]
    introduction = (
        f"{name_machine(content['machine'])}. Medians (and ranges) of {content['rounds']} rounds of "
        f"{content['steps']} steps, uncompiled; Muon in what it was timed to be faster in."
    )
    table = section("Steps and choices", columns, rows)
    return write_report("The number format that training computes in", introduction, table, failures(results))


def judge(results: Results) -> list[Bar]:
    """Return the bars: the choice is the faster format, and does not take long."""
    bars = []
    for recipe in recipes_of(results):
        found = slowdowns(results, recipe)
        waited = seconds_of(results, CHOICE, recipe)
        bars.append(Bar(f"{recipe}: time of a step over the faster format's", max(found, default=None), "<=", SLOWER))
        bars.append(Bar(f"{recipe}: seconds to choose", max(waited, default=None), "<=", MAX_SECONDS))
    return bars


def main(argv: list[str] | None = None) -> int:
    """Measure every recipe; return the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?", metavar="FOLDER", help="the four files, for cs224n")
    parser.add_argument("--recipes", nargs="+", default=["cs224n", "quickstart"], help="default: %(default)s")
    parser.add_argument(
        "--steps", type=positive_int, default=8, help="steps per round, after one to warm up (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=5, help="times each point is measured (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    points = [Point(name, recipe) for recipe in arguments.recipes for name in (CHOICE, *PRECISIONS)]

    def command() -> int:
        for recipe in arguments.recipes:  # a wrong one is named before minutes of measuring
            load_recipe(find_recipe(recipe), with_paths([], "unused", data_of(recipe, arguments.data)))
        machine = describe_machine(torch.device(default_device()))
        settings = {
            "machine": machine,
            "data": folder_digests(arguments.data),
            "steps": arguments.steps,
            "rounds": arguments.rounds,
        }
        record = Record(arguments.output, report, settings)
        record.measure(points, measure, arguments.data, arguments.steps, rounds=arguments.rounds)
        show(record.text())
        return print_bars(judge(record.results))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
