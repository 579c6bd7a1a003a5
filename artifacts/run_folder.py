"""The folder of a run: what is where in it, and when a command may write to it.

OUTPUT/recipe.json                      the recipe in full, as run
OUTPUT/data/                            the invented data, or the `datasets` cache of the given folder
OUTPUT/{pretrain,finetune,no_pretraining}/   finished models; each loads with `from_pretrained`
OUTPUT/checkpoints/                     the newest checkpoints of the stage under way, and the tokenizer
OUTPUT/logs/                            TensorBoard
OUTPUT/.lock                            held by the run under way
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
    """A command that cannot be carried out on this folder; the message is one line for the user."""


def write_json(path: Path, values: dict) -> None:
    """Write JSON at once or not at all: to a neighbour first, then renamed."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.partial")
    neighbour.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(neighbour, path)


def training_record(model: str | Path) -> dict:
    """Return what the training of a finished model noted in its folder; empty if there is nothing.

    Raises:
        RunError: what is there is no such record.
    """
    path = Path(model) / "training.json"
    return read_record(path) if path.is_file() else {}


def read_record(path: Path) -> dict:
    """Return the JSON object of a file; RunError where it holds none."""
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
    """Paths inside a run's folder, and its state."""

    def __init__(self, output: str | Path):
        self.path = Path(output)
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.checkpoints / "tokenizer"
        self.logs = self.path / "logs"
        self.data = self.path / "data"
        self.recipe = self.path / "recipe.json"
        self.results = self.path / "results.json"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's finished model."""
        return self.path / name

    def finished(self, name: str) -> bool:
        """Tell whether a stage has left its model; the folder appears whole, by a rename."""
        return (self.stage(name) / "config.json").is_file()

    def publish_stage(self, name: str, save) -> None:
        """Let `save(folder)` write a finished model beside its place, then rename it into place."""
        neighbour = self.path / f".{name}.partial"
        shutil.rmtree(neighbour, ignore_errors=True)
        neighbour.mkdir()
        save(neighbour)
        os.replace(neighbour, self.stage(name))

    def training_record(self, name: str) -> dict:
        """Return what a finished stage noted of itself: minutes, steps, tokens, loss; empty if there is none."""
        return training_record(self.stage(name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder until the block ends; the system lets go of it when the process dies.

        Raises:
            RunError: another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except Timeout as error:
            raise RunError(f"output {self.path}: another run is under way there; choose another output") from error
        except OSError as error:
            raise RunError(f"output {self.path}: cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def claim(self, recipe: Recipe, stages: tuple[str, ...], scores: bool, resume: bool) -> None:
        """Make the folder ready for a command which trains `stages` and, with `scores`, writes results.

        Raises:
            RunError: the folder cannot be written, holds the command's outcome or another run's beginning, or its
                recipe is not the one to be resumed. Nothing was written then.
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
            if stages and self.unfinished(stages):
                raise RunError(f"output {path}: holds an unfinished run; go on with --resume or choose another output")
        if stages:
            write_json(self.recipe, dataclasses.asdict(recipe))

    def unfinished(self, stages: tuple[str, ...]) -> bool:
        """Tell whether an earlier command left checkpoints of any of the stages."""
        return any(path for name in stages for path in self.checkpoints.glob(f"{name}-*"))

    def check_same_recipe(self, recipe: Recipe) -> None:
        """Raise RunError, with the key, unless the folder's recipe trains exactly as this one does."""
        if not self.recipe.exists():
            return
        before, now = read_record(self.recipe), json.loads(json.dumps(dataclasses.asdict(recipe)))
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
                found = before[section].get(key, defaults[key])  # a key that is newer than the run had its default
                if found != value:
                    raise RunError(f"{self.recipe}: {section}.{key} was {found!r}, now {value!r}; cannot resume")
