"""`train.py sweep`: train a recipe once for each combination of some values and seeds, and lay the runs side by side.

    python train.py sweep --config cs224n --set data.path=FOLDER --set data.validation_questions=300 \\
        --grid pretrain.learning_rate=1e-3,3e-3 --grid pretrain.batch_size=64,128 --seeds 0 1 2

Each run is in a folder of its own below the output folder, named after its values, and scored on training questions
that were held out; no dev label is read. What is finished is skipped, what was interrupted is continued, and a run
that fails does not end the others. `--part 2/8` runs every eighth point from the second on: a job array, or several
machines that share the folder, take a part each.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate.logging import get_logger

from artifacts.run_folder import RunError, RunFolder
from configuration.errors import UserError, show
from configuration.recipe import RecipeError, load_recipe
from configuration.schema import Recipe
from evaluation.compare import comparison_table, read_runs
from training.interruption import Interrupted
from training.runner import run_command
from training.torchrun_env import has_peers

logger = get_logger(__name__)

MAX_NAME = 255  # bytes, of a folder, in all file systems of today


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        name: of its folder: its values, `pretrain.learning_rate=0.003,seed=1`.
        recipe: what it runs.
    """

    name: str
    recipe: Recipe


def parse_grid(texts: Sequence[str]) -> list[list[str]]:
    """Return the overrides, `KEY=VALUE`, that each axis of a grid chooses among.

    Raises:
        RecipeError: an axis that is not `KEY=VALUE,VALUE,…`, or a key that is there twice.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, separator, values = text.partition("=")
        choices = [value.strip() for value in values.split(",")]
        if not separator or not key or not all(choices):
            raise RecipeError(f"--grid {text}: wanted KEY=VALUE,VALUE,…")
        if key == "seed":
            raise RecipeError(f"--grid {text}: seeds are given by --seeds")
        if key == "output":
            raise RecipeError(f"--grid {text}: each run has a folder of its own below the output folder")
        if key in axes:
            raise RecipeError(f"--grid {text}: {key} is there twice")
        axes[key] = [f"{key}={value}" for value in dict.fromkeys(choices)]
    return list(axes.values())


def plan_sweep(
    path: Path, overrides: Sequence[str], grid: Sequence[str], seeds: Sequence[int] | None
) -> list[SweepPoint]:
    """Return all runs of a sweep, every combination with every seed, or the recipe's own; each is checked now.

    Raises:
        RecipeError: as `load_recipe` and `parse_grid`, or nothing is held out to compare a run on, or two runs would
            be the same or in the same folder.
    """
    base = load_recipe(path, list(overrides))
    points: list[SweepPoint] = []
    own_seeds = dict.fromkeys([base.seed] if seeds is None else seeds)
    for chosen in itertools.product(*parse_grid(grid), [f"seed={seed}" for seed in own_seeds]):
        name = ",".join(chosen).replace("/", "_")
        point = SweepPoint(name, load_recipe(path, [*overrides, *chosen, f"output={Path(base.output, name)}"]))
        check_point(point, points)
        points.append(point)
    return points


def check_point(point: SweepPoint, others: Sequence[SweepPoint]) -> None:
    """Raise RecipeError where a run cannot be compared, or is the same as one of the others."""
    if not point.recipe.data.validation_questions:
        raise RecipeError(
            f"{point.name}: a sweep is scored on held-out training questions: "
            "--set data.validation_questions=300, for example"
        )
    if len(point.name.encode()) > MAX_NAME:
        raise RecipeError(f"{point.name}: wanted at most {MAX_NAME} bytes, as the name of a folder")
    for other in others:
        if other.name == point.name:
            raise RecipeError(f"{point.name}: two combinations would have this folder")
        if replace(other.recipe, output=point.recipe.output) == point.recipe:
            raise RecipeError(f"{other.name} and {point.name}: wanted different runs, found the same recipe")


def choose_part(points: Sequence[SweepPoint], part: str | None) -> list[SweepPoint]:
    """Return every N-th point from the I-th on for a part "I/N"; all where it is None.

    Raises:
        RecipeError: the part is not of the form I/N with 1 ≤ I ≤ N.
    """
    if part is None:
        return list(points)
    first, _, count = part.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise RecipeError(f"--part {part}: wanted I/N with I from 1 to N, 2/8 for example")
    return list(points[int(first) - 1 :: int(count)])


def run_point(recipe: Recipe) -> None:
    """Train and score one run, without the baseline; what is done already is skipped. Raises as `run_command`."""
    if RunFolder(recipe.output).results.is_file():
        return
    starts = ("finetune",) if recipe.finetune.start_from else ("pretrain", "finetune")
    for command in (*starts, "evaluate"):
        run_command(recipe, command, resume=True)


def sweep(
    path: Path,
    overrides: Sequence[str],
    grid: Sequence[str],
    seeds: Sequence[int] | None = None,
    part: str | None = None,
) -> int:
    """Run a sweep, or its part, and print the table of all that is finished; return the exit status, 1 if one failed.

    Raises:
        RecipeError: as `plan_sweep` and `choose_part`.
        RunError: several processes were launched.
        Interrupted: a signal asked to stop; the same command continues.
    """
    if has_peers():
        raise RunError(
            "a sweep trains one run after the other in one process; start several of it, each with its --part I/N"
        )
    every = plan_sweep(path, overrides, grid, seeds)
    own = choose_part(every, part)
    failed = 0
    for number, point in enumerate(own, start=1):
        show(f"{number} of {len(own)}: {point.name}")
        try:
            run_point(point.recipe)
        except Interrupted:
            raise
        except UserError as error:
            failed += 1
            logger.error(f"{point.name}: {error}")
        except Exception as error:  # such as too little memory for one of several sizes
            failed += 1
            logger.error(f"{point.name}: {type(error).__name__}: {error}", exc_info=True)
    finished = [Path(point.recipe.output) for point in every if RunFolder(point.recipe.output).results.is_file()]
    if finished:
        show(comparison_table(read_runs(finished)), end="")
    return int(failed > 0)
