"""What the command lines of benchmarks share: options that refuse a wrong value before anything is measured.

The types are argparse's: functions of the text that return its value, or raise an error of one line that says what was
found and what is wanted.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from configuration.errors import UserError
from configuration.recipe_file import RecipeError
from configuration.recipe_names import find_recipe

MAX_COUNT = 2**31 - 1  # torch and numpy take it everywhere
MAX_SEED = 2**32 - 1  # numpy's, and a recipe's
MAX_THREADS = 1024  # for many more the system may refuse to start one, which ends the process without a word
WRITTEN = (".json", ".md", ".svg")  # what is beside the results, under the same name


class OutputError(UserError, RuntimeError):
    """An output that cannot be written; the message is one line for the user."""


def find_existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there; OSError where a file is in its place."""
    for path in (folder, *folder.parents):
        try:
            path.lstat()
        except FileNotFoundError:
            continue
        return path
    return folder  # the root is always there


def check_writable(path: Path) -> None:
    """Check that files can be written at a path, whose folder may yet have to be made; leave nothing behind.

    Raises:
        OutputError: there is a folder instead, or no file can be written beside it.
    """
    try:
        for suffix in WRITTEN:
            if path.with_suffix(suffix).is_dir():
                raise OutputError(f"{path.with_suffix(suffix)}: cannot be written: found a folder, wanted a file")
        # Permissions alone would not do: the superuser has them on a disk that is mounted read-only, too.
        with tempfile.TemporaryFile(dir=find_existing(path.absolute().parent)):
            pass
    except OSError as error:
        # Not the error's own text, which names the file of the trial; and a long message would lose its middle.
        raise OutputError(f"{path!s:.300}: cannot be written: {error.strerror or error}") from error


def output_file(text: str) -> Path:
    """Return the path of a results file; its folder may yet have to be made."""
    path = Path(text)
    if path.suffix != ".json":  # its report has the same name with .md, and must not replace it
        raise argparse.ArgumentTypeError(f"must end with .json, found {text!r:.200}")
    try:
        check_writable(path)
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def output_folder(text: str) -> Path:
    """Return the path of a folder to write to, which may yet have to be made."""
    path = Path(text)
    try:
        check_writable(path / "results.json")
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def whole_number(least: int = 1, most: int = MAX_COUNT) -> Callable[[str], int]:
    """Return a type for a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, found {text!r:.80}") from None
        check_bounds(value, text, least, most)
        return value

    return parse


def check_bounds(value: float, text: str, least: float, most: float) -> None:
    """Raise ArgumentTypeError for a value below `least` or above `most`."""
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, found {text:.80}")
    if value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, found {text:.80}")


def finite(text: str) -> float:
    """Return a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, found {text!r:.80}")
    return value


def non_negative_float(text: str) -> float:
    """Return a finite number of at least 0."""
    value = finite(text)
    check_bounds(value, text, 0, math.inf)
    return value


def positive_float(text: str) -> float:
    """Return a finite number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, found {text:.80}")
    return value


positive_int = whole_number()
non_negative_int = whole_number(least=0)
seed_number = whole_number(0, MAX_SEED)
thread_count = whole_number(most=MAX_THREADS)


def available_device(text: str) -> str:
    """Return the name of a device of torch that is there."""
    try:
        kind = torch.device(text)
        if kind.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("no CUDA device is available")
        if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"the last one is cuda:{torch.cuda.device_count() - 1}")
        if kind.type == "meta":
            raise RuntimeError("it computes nothing")
        if kind.type not in ("cpu", "cuda"):  # on CUDA this would take memory from the process that is measured
            torch.empty(1, device=kind)
    except Exception as error:  # each backend that is not there raises its own
        reason = " ".join(str(error).split())[:200]
        raise argparse.ArgumentTypeError(f"must be a device of this machine, found {text!r:.80}: {reason}") from error
    return text


def recipe_file(text: str) -> Path:
    """Return the file of a recipe, by its path or its name in `configuration/recipes/`, as `train.py` finds it."""
    try:
        return find_recipe(text)
    except RecipeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def default_device() -> str:
    """Return "cuda" where there is a CUDA device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def new_parser(description: str | None, output: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring as its help and takes `--output FILE.json`.

    Args:
        output: the default of `--output`; without one the option must be given.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "" if output is None else f" (default: {output})"
    parser.add_argument(
        "--output", type=output_file, metavar="FILE.json", default=output, required=output is None,
        help=f"where to write the results{default}",
    )  # fmt: skip
    return parser


def add_recipe_options(parser: argparse.ArgumentParser, recipe: str) -> None:
    """Add `--recipe` and `--set`, as `train.py` understands them, to a parser.

    Args:
        recipe: the default of `--recipe`.
    """
    parser.add_argument(
        "--recipe", type=recipe_file, default=recipe, metavar="RECIPE",
        help="the recipe to run: its name in configuration/recipes/, or a YAML file (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
