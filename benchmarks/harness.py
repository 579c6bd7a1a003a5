"""What all benchmarks share around their measurements: points, rounds, a record that can be resumed, and its report.

A benchmark lists its points and has a function that measures one. `Record.measure` calls it once per point and round,
each time in a fresh process, and after every measurement writes the record as JSON and, beside it, as Markdown. The
Markdown and the figure follow from the JSON alone: `python -m benchmarks.harness FILE.json …` writes them again.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from artifacts.files import as_disk_error, write_json, write_text
from artifacts.run_folder import RunError, read_json
from benchmarks.command_line import OutputError, check_writable, output_file
from configuration.errors import run_main
from configuration.file_system import take_lock
from evaluation.tables import markdown_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One thing to measure. What a benchmark does not vary stays None.

    Attributes:
        subject: what is compared: a model, an attention variant, a setting.
        task: what it does.
        size: how large the task is: tokens of a context, rows of a batch.
        seed: the seed that it runs with.
    """

    subject: str
    task: str | None = None
    size: int | None = None
    seed: int | None = None

    def key(self) -> dict:
        """Return the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        named = {"size": "{:,}", "seed": "seed {}"}
        return ", ".join(named.get(name, "{}").format(value) for name, value in self.key().items())


Results = dict[Point, list[dict]]  # of each point, what each of its rounds returned: its measurements, or {"error": …}


def catch_errors(measure: Callable[..., dict], *arguments) -> dict:
    """Return `measure(*arguments)`, or `{"error": …}`: not every exception can travel to another process."""
    try:
        return measure(*arguments)
    except torch.OutOfMemoryError:
        return {"error": "out of memory"}
    except Exception as error:  # one point that cannot be measured must not lose the others
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def exit_with_parent(parent: int) -> None:
    """End this process soon after its parent has ended: nothing computes on after a benchmark that was killed."""

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
            return {"error": "killed, most likely because memory ran out"}


def in_this_process(measure: Callable[..., dict], *arguments) -> dict:
    """Return `measure(*arguments)`; its errors end the benchmark."""
    return measure(*arguments)


class Record:
    """The measurements of one command, in a JSON file with a Markdown report beside it.

    What an earlier run of the same command left in the file is kept; what failed there is tried again.

    Args:
        path: the JSON file.
        report: writes the Markdown from the file's content.
        settings: what all points share. A file with other settings is refused.
        notes: what the report says besides; a later run may change it.

    Raises:
        OutputError: the files cannot be written.
        RunError: the file is not a record, or it is one of other settings or another machine.
    """

    def __init__(self, path: Path, report: Callable[[dict], str], settings: dict, notes: dict | None = None):
        self.path = path
        self.report = report
        self.settings = settings
        self.notes = notes or {}
        check_writable(path)  # now, not when the first point has been measured
        self.results = self.earlier()
        self.seen = set(self.results)

    def earlier(self) -> Results:
        """Return the points in the file of which no round failed; RunError where it has other settings."""
        if not self.path.exists():
            return {}
        content = read_record(self.path)
        for key, value in self.settings.items():
            if content.get(key) != value:
                raise RunError(
                    f"{self.path}: has measurements with other settings: {key} was {content.get(key)}, now {value}; "
                    "choose another --output"
                )
        return {point: rounds for point, rounds in results_of(content).items() if not failed(rounds)}

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs from the record until the block ends; take in what one has added since it was read.

        Raises:
            OutputError: the folder cannot be written.
            RunError: another run is measuring what goes into the record.
        """
        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            if not take_lock(lock, blocking=False):
                logger.warning(f"{self.path}: its file system has no locks; start no second run with this --output")
        except Timeout as error:
            raise RunError(
                f"{self.path}: another run is measuring what goes into it; wait for it, or choose another --output"
            ) from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            for point, rounds in self.earlier().items():
                if point in self.results or point not in self.seen:  # else it is to be measured again
                    self.results[point] = rounds
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is locked: whoever has just opened it sees that it is gone
            lock.release()

    def content(self) -> dict:
        """Return what the JSON file has."""
        points = [{**point.key(), "rounds": rounds} for point, rounds in self.results.items()]
        return {**self.settings, **self.notes, "points": points}

    def text(self) -> str:
        """Return the report."""
        return self.report(self.content())

    def add(self, point: Point, result: dict) -> None:
        """Add one round of a point, and write the files."""
        self.results.setdefault(point, []).append(result)
        self.write()

    def write(self) -> None:
        """Write both files; DiskError where the disk refuses, which leaves the last ones that were complete."""
        with as_disk_error("--output", self.path, "make room, then repeat the command: it measures what is missing"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.content())
            write_text(self.path.with_suffix(".md"), self.text())

    def measure(
        self,
        points: Sequence[Point],
        measure: Callable[..., dict],
        *arguments,
        rounds: int = 1,
        run: Callable[..., dict] | None = None,
    ) -> None:
        """Add `measure(point, *arguments)` of every point until each has `rounds` rounds; skip those that failed.

        Several rounds have a new order each, so that a slow minute of the machine hits all points alike.

        Args:
            run: calls `measure`, by default `in_fresh_process`.
        """
        call = run or in_fresh_process
        with self.claimed(), tqdm(total=rounds * len(points), unit="point", dynamic_ncols=True) as bar:
            for number in range(rounds):
                order = points if rounds == 1 else random.Random(number).sample(list(points), len(points))
                for point in order:
                    bar.set_description(str(point))
                    earlier = self.results.get(point, [])
                    if len(earlier) <= number and not failed(earlier):
                        self.add(point, call(measure, point, *arguments))
                    bar.update()
            self.write()  # also when all was there before: the notes may be new


def read_record(path: Path) -> dict:
    """Return the content of a record's file; RunError where it is not one."""
    content = read_json(path)
    try:
        for rounds in results_of(content).values():
            failed(rounds)
    except (KeyError, TypeError) as error:
        raise RunError(f"{path}: not the results of a benchmark: {error!r} in its points") from error
    return content


def results_of(content: dict) -> Results:
    """Return the measurements in a record's content."""
    fields = Point.__dataclass_fields__
    return {
        Point(**{name: entry[name] for name in fields if name in entry}): entry["rounds"]
        for entry in content["points"]
    }


def failed(rounds: list[dict]) -> bool:
    """Return whether one of a point's rounds failed."""
    return any("error" in result for result in rounds)


def successes(rounds: list[dict]) -> list[dict]:
    """Return the rounds that did not fail."""
    return [result for result in rounds if "error" not in result]


def failures(results: Results) -> str:
    """Return a section that names each point that failed and why; empty if none did."""
    errors = {
        f"- {point}: {result['error']}" for point, rounds in results.items() for result in rounds if "error" in result
    }
    return "\n".join(["## What failed\n", *sorted(errors), ""]) if errors else ""


def write_report(title: str, introduction: str, *sections: str) -> str:
    """Return a report as Markdown; empty sections are left out."""
    return "\n\n".join(section.strip() for section in (f"# {title}", introduction, *sections) if section) + "\n"


def section(heading: str, columns: list[str], rows: list[list[str]]) -> str:
    """Return a heading and a table below it; without rows, an empty string."""
    return f"## {heading}\n\n{markdown_table(columns, rows)}" if rows else ""


def write_number(value: float) -> str:
    """Write three digits, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def median_and_range(values: Sequence[float] | None, scale: float = 1) -> str:
    """Write the median of `scale` times the values, and their range unless all are written alike; a dash for none."""
    if not values:
        return "–"
    low, middle, high = (
        write_number(scale * value) for value in (min(values), statistics.median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}–{high})"


def benchmark_of(path: Path) -> ModuleType:
    """Return the module of the benchmark that a results file is named after; RunError where there is none."""
    name = path.name.split(".")[0]
    is_there = (Path(__file__).parent / f"{name}.py").is_file()
    module = importlib.import_module(f"benchmarks.{name}") if is_there else None
    if not hasattr(module, "report"):
        raise RunError(f"{path}: no benchmark {name!r}; wanted a name that begins with one, as speedrun.cpu.json")
    return module


@contextmanager
def as_wrong_results(path: Path) -> Iterator[None]:
    """Raise what a report raises for content of another form as a RunError.

    Args:
        path: of the results, for the message.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunError(f"{path}: not results of {path.name.split('.')[0]}: {error!r}") from error


def rewrite_report(path: Path) -> str:
    """Return the report of a results file, by the `report` of its benchmark; RunError where it is not such a file."""
    report = benchmark_of(path).report
    content = read_record(path)
    with as_wrong_results(path):
        return report(content)


def redraw_figure(path: Path) -> None:
    """Draw the figure of a results file again, beside it, if its benchmark draws one; raises as `rewrite_report`."""
    draw = getattr(benchmark_of(path), "draw", None)
    if draw is not None:
        content = read_record(path)
        with as_wrong_results(path):
            draw(content, path.with_suffix(".svg"))


def main(argv: list[str] | None = None) -> int:
    """Write the reports of results files again, and draw their figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "paths", type=output_file, nargs="+", metavar="FILE.json", help="results, named BENCHMARK.….json"
    )
    arguments = parser.parse_args(argv)

    def command() -> None:
        for path in arguments.paths:
            write_text(path.with_suffix(".md"), rewrite_report(path))
            redraw_figure(path)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
