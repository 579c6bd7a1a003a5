"""Lay runs side by side: what differs in their recipes, and how well, how trustworthily and how fast each came out.

    python -m evaluation.compare runs/*
    python -m evaluation.compare runs/cs224n-* --relation birthplace --csv runs.csv

Runs that differ in nothing but the seed, neither in their recipes nor in the data that they learned from and were
scored on, are one row: the mean of each figure ± the standard deviation between seeds. Each seed may have started from
its own weights; where a seed is there twice, the weights count, too. Prints a Markdown table. The CSV has a row a run
and a column for each figure and for each setting that differs. What has no results yet, is damaged or is no run, is
named and left out.
"""

import argparse
import csv
import hashlib
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from artifacts.run_folder import RunError, RunFolder, read_json, settings_without_paths
from configuration.data_schema import INVENTED_SOURCES
from configuration.errors import run_main, show
from evaluation.report import by_relation, training_minutes
from evaluation.tables import markdown_table, mean_and_spread
from evaluation.trust_report import HEADINGS

# Settings in which runs of one row may differ: the seed, and where things are or how they are run.
NOT_COMPARED = ("seed", "output", "run")
TRUST = {
    heading + (", %" if is_share else ""): (key, 100 if is_share else 1, 1 if is_share else 3)
    for key, (heading, is_share) in HEADINGS.items()
}
FIGURES = {  # heading: (where it is in the results, what it is multiplied by, digits)
    "accuracy, %": ("accuracy", 100, 1),
    "no pretraining, %": ("no_pretraining", 100, 1),
    **TRUST,
    "minutes": ("minutes", 1, 1),
    "parameters, M": ("parameters", 1e-6, 2),
}


@dataclass(frozen=True)
class RunResults:
    """What a run's folder says of it.

    Attributes:
        folder: the run's folder.
        seed: its seed.
        settings: its recipe by dotted keys, without those of `NOT_COMPARED` and without paths; and the digests of the
            files that it learned from and of the questions that it was scored on, where its people are not invented.
        starts: the digests of the weights that it started from, by the keys of their paths.
        figures: by the names in `FIGURES`; None where one was not measured.
    """

    folder: Path
    seed: int
    settings: dict[str, str]
    starts: dict[str, str]
    figures: dict[str, float | None]


def comparable_settings(recipe: dict) -> dict[str, str]:
    """Return a recipe's settings that make two runs different, by dotted keys."""
    compared = {name: part for name, part in recipe.items() if name not in NOT_COMPARED}
    return {key: str(value) for key, value in settings_without_paths(compared).items()}


def short_digests(run: RunFolder) -> dict[str, str]:
    """Return eight digits for each thing that a run learned from; none for a run that did not record them."""
    inputs = read_json(run.inputs) if run.inputs.is_file() else {}
    return {name: hashlib.sha256(str(digest).encode()).hexdigest()[:8] for name, digest in inputs.items()}


def scored_digest(run: RunFolder) -> dict[str, str]:
    """Return eight digits for the questions that a run was scored on; none for a run that did not record them."""
    found = read_json(run.scoring) if run.scoring.is_file() else {}
    return {"scored": str(found["scored"])[:8]} if "scored" in found else {}


def read_run(folder: Path, relation: str | None = None) -> RunResults:
    """Read the recipe and the results of a run that has been scored.

    Args:
        relation: whose figures, by default those of the first.

    Raises:
        RunError: one of its files is damaged, or it has no such relation.
    """
    run = RunFolder(folder)
    recipe = read_json(run.recipe)
    results = read_json(run.results)
    digests = short_digests(run)
    try:
        views = by_relation(results)
        if relation is not None and relation not in views:
            raise RunError(f"{folder}: has no relation {relation!r}, only {', '.join(views)}")
        view = next(iter(views.values())) if relation is None else views[relation]
        trust = view.get("trust") or {}
        figures = {
            **{name: trust.get(name) for name, _, _ in FIGURES.values()},
            "accuracy": view[view["split"]]["accuracy"],
            "no_pretraining": view["baselines"]["no_pretraining"],
            "minutes": training_minutes(results) if results["train_minutes"] else None,
            "parameters": results["parameters"],
        }
        starts = {name: digest for name, digest in digests.items() if name.endswith(".start_from")}
        files = {name: digest for name, digest in digests.items() if name not in starts}
        # Each seed invents people of its own, and they are still one experiment.
        is_invented = recipe["data"].get("source") in INVENTED_SOURCES
        settings = {**comparable_settings(recipe), **({} if is_invented else {**files, **scored_digest(run)})}
        return RunResults(folder, recipe["seed"], settings, starts, figures)
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise RunError(f"{folder}: {run.recipe.name} or {run.results.name} is damaged: lacks {error}") from error


def read_runs(folders: list[Path], relation: str | None = None) -> list[RunResults]:
    """Read runs; name on standard error what has not been scored, is damaged or is no run.

    Raises:
        RunError: no run is left; if that is because of their files, as for the first of them in `read_run`.
    """
    runs = []
    errors = []
    for folder in {folder.resolve(): folder for folder in folders}.values():  # each once, however it is written
        run = RunFolder(folder)
        if not run.recipe.is_file():  # `runs/*` also has what benchmarks write there
            show(f"{folder}: left out, it is no run: it has no {run.recipe.name}", sys.stderr)
        elif not run.results.is_file():
            show(f"{folder}: left out, it has no results yet", sys.stderr)
        else:
            try:
                runs.append(read_run(folder, relation))
            except RunError as error:
                errors.append(error)
    if not runs:
        raise errors[0] if errors else RunError("none of these runs has results: python train.py evaluate scores one")
    for error in errors:
        show(f"{error}; left out", sys.stderr)
    # Seeds of one recipe may each have started from weights of their own; the same seed twice is two experiments.
    alike = Counter((run.seed, *sorted(run.settings.items())) for run in runs)
    if max(alike.values()) > 1:
        return [replace(run, settings={**run.settings, **run.starts}) for run in runs]
    return runs


def find_differences(runs: list[RunResults]) -> list[str]:
    """Return the settings, by dotted keys, that are not the same in all runs, or not there in all."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]


def comparison_table(runs: list[RunResults]) -> str:
    """Return the Markdown table, a row for each recipe: its folder, what differs, and its figures over the seeds."""
    differences = find_differences(runs)
    recipes: dict[tuple, list[RunResults]] = defaultdict(list)
    for run in runs:
        recipes[tuple(run.settings.get(key, "–") for key in differences)].append(run)
    rows = []
    for values, same in recipes.items():
        name = same[0].folder.resolve().name + (f" and {len(same) - 1} more" if len(same) > 1 else "")
        cells = []
        for figure, scale, digits in FIGURES.values():
            measured = [run.figures[figure] for run in same]
            found = [scale * value for value in measured if value is not None]
            some = f" ({len(found)} of {len(same)})" if 0 < len(found) < len(same) else ""
            cells.append(mean_and_spread(found, digits) + some)
        rows.append([name, ", ".join(str(seed) for seed in sorted(run.seed for run in same)), *values, *cells])
    return markdown_table(["run", "seeds", *differences, *FIGURES], rows)


def write_csv(runs: list[RunResults], path: Path) -> None:
    """Write a row a run: its folder, seed, the settings that differ and every figure; an empty cell for none.

    Raises:
        RunError: the file cannot be written.
    """
    differences = find_differences(runs)
    figures = [name for name, _, _ in FIGURES.values()]
    rows = [["run", "seed", *differences, *figures]]
    for run in runs:
        settings = [run.settings.get(key, "") for key in differences]
        rows.append([str(run.folder), str(run.seed), *settings, *(run.figures[name] for name in figures)])
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    """Print the comparison; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--relation", help="the relation to compare (default: the first)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write one row per run to this file")
    arguments = parser.parse_args(argv)

    def command() -> None:
        runs = read_runs(arguments.runs, arguments.relation)
        if arguments.csv is not None:
            write_csv(runs, arguments.csv)
        show(comparison_table(runs), end="")

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
