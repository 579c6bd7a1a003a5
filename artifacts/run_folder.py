"""The folder of a run: what it contains, and when a command may write to it.

OUTPUT/recipe.json                      the recipe in full, as run
OUTPUT/data/                            the invented data, or the `datasets` cache of the given folder
OUTPUT/{pretrain,finetune,no_pretraining}/   finished models; each loads with `from_pretrained`
OUTPUT/checkpoints/                     the newest checkpoints of the current stage, and the tokenizer
OUTPUT/logs/                            TensorBoard
OUTPUT/.lock                            locked while a command runs
OUTPUT/predictions.dev.txt, results.json, report.md
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from configuration.errors import UserError
from configuration.schema import SECTIONS, Recipe

STAGES = ("pretrain", "finetune", "no_pretraining")
TRAINING_SECTIONS = ("seed", "data", "tokenizer", "model", "corruption", *STAGES)  # what a resumed run may not change


class RunError(UserError, RuntimeError):
    """A command that cannot run on this folder or model; the message is one line for the user."""


def write_json(path: Path, values: dict) -> None:
    """Write JSON completely or not at all: to a partial file beside it, then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # several processes may write it at once
    partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def training_record(model: str | Path) -> dict:
    """Read the record that training left in a finished model's folder; empty if there is none.

    Raises:
        RunError: the file contains something else.
    """
    path = Path(model) / "training.json"
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict:
    """Read the JSON object of a file; RunError where it contains anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path}: found {type(values).__name__}, wanted an object")
    return values


class RunFolder:
    """Paths inside a run's folder, and what is there already."""

    def __init__(self, output: str | Path):
        self.path = Path(output)
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.checkpoints / "tokenizer"
        self.data = self.path / "data"
        self.recipe = self.path / "recipe.json"
        self.results = self.path / "results.json"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's finished model."""
        return self.path / name

    def finished(self, name: str) -> bool:
        """Return whether a stage has left its model; one file suffices, since the folder is renamed when complete."""
        return (self.stage(name) / "config.json").is_file()

    @contextmanager
    def new_stage(self, name: str) -> Iterator[Path]:
        """Yield an empty folder for a stage's finished model; rename it to the stage's name if the block succeeds."""
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left of it
        partial.mkdir()
        yield partial
        os.replace(partial, self.stage(name))

    def training_record(self, name: str) -> dict:
        """Read a finished stage's record: minutes, steps, tokens, losses; empty if there is none."""
        return training_record(self.stage(name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder until the block ends; the system unlocks it when the process dies.

        Raises:
            RunError: another process has locked it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except Timeout as error:
            raise RunError(f"output {self.path}: another run is using this folder; choose another output") from error
        except OSError as error:
            raise RunError(f"output {self.path}: cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def claim(self, recipe: Recipe, stages: tuple[str, ...], scores: bool, resume: bool) -> None:
        """Check that a command may write to the folder, and write the recipe there.

        Args:
            recipe: what the command runs.
            stages: the stages that it trains.
            scores: whether it writes results.
            resume: whether it may continue what an earlier command left.

        Raises:
            RunError: the folder cannot be written, already has the command's outcome or another run's checkpoints, or
                its recipe is not the one to be resumed. Nothing was written then.
        """
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".write-test"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"output {path}: cannot be written: {error.strerror}") from error
        if resume:
            self.check_same_recipe(recipe)
        else:
            done = [self.stage(name) for name in stages if self.finished(name)]
            done += [self.results] if scores and self.results.exists() else []
            if done:
                raise RunError(f"output {path}: {done[0]} is there already; choose another --set output=FOLDER")
            if self.has_checkpoints(stages):
                raise RunError(f"output {path}: has an unfinished run; add --resume or choose another output")
        if stages:
            write_json(self.recipe, dataclasses.asdict(recipe))

    def has_checkpoints(self, stages: tuple[str, ...]) -> bool:
        """Return whether an earlier command left checkpoints of any of the stages."""
        return any(path for name in stages for path in self.checkpoints.glob(f"{name}-*"))

    def check_same_recipe(self, recipe: Recipe) -> None:
        """Raise RunError, with the key and both values, unless the folder's recipe trains exactly as this one does."""
        if not self.recipe.exists():  # --resume may be given from the start
            return
        before = read_json(self.recipe)
        now = json.loads(json.dumps(dataclasses.asdict(recipe)))  # tuples become lists, as in the file
        for section in TRAINING_SECTIONS:
            if before.get(section) == now[section]:
                continue
            if not isinstance(now[section], dict):
                raise RunError(
                    f"{self.recipe}: {section} was {before.get(section)}, now {now[section]}; cannot resume"
                )
            if not isinstance(before.get(section), dict):
                raise RunError(f"{self.recipe}: {section} was {before.get(section)!r}; cannot resume")
            defaults = {f.name: f.default for f in dataclasses.fields(SECTIONS[section])}
            for key, value in now[section].items():
                found = before[section].get(key, defaults[key])  # a key newer than the run had its default
                if found != value:
                    raise RunError(f"{self.recipe}: {section}.{key} was {found!r}, now {value!r}; cannot resume")
