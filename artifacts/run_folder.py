"""The folder of a run: what it contains, and when a command may write to it.

OUTPUT/recipe.json                      the recipe in full, as run; written when training begins
OUTPUT/inputs.json                      digests of what it learns from: data files, weights to start from
OUTPUT/machine.json                     the number formats that training computes in, and how fast each was
OUTPUT/data/                            the prepared corpus, without `prepare.folder`, and the tokens of it
OUTPUT/{pretrain,finetune,no_pretraining}/   finished models; each loads with `from_pretrained`
OUTPUT/checkpoints/                     the newest checkpoints of the current stage, and the tokenizer
OUTPUT/logs/                            curves, for TensorBoard and other trackers
OUTPUT/.lock                            locked while a command runs
OUTPUT/predictions.dev.txt, predictions.test.txt, results.json
OUTPUT/scoring.json                     what of `evaluate` the results depend on; not published, since it has paths
OUTPUT/report.md, report.html           the report, with its plots beside it; as one file that has them inside
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from artifacts.files import remove, write_json, written_aside
from configuration.data_schema import default_relations
from configuration.errors import UserError
from configuration.file_system import take_lock
from configuration.schema import SECTIONS, Recipe

STAGES = ("pretrain", "finetune", "no_pretraining")
FOLDERS = (*STAGES, "checkpoints", "checkpoints/tokenizer", "data")
FILES = (
    "recipe.json",
    "inputs.json",
    "machine.json",
    "results.json",
    "scoring.json",
    "report.md",
    "report.html",
    "trust.png",
    "losses.png",
    "pretraining.png",
    "predictions.dev.txt",
    "predictions.test.txt",
)
PATHS = ("path", "start_from")  # keys whose contents count, not their names
PLACES = ("output", "evaluate.model", "evaluate.sets.", "prepare.folder")  # other keys that name places
ELSEWHERE = "choose another --set output=FOLDER"
TRAINING_SECTIONS = (
    "seed",
    "relations",
    "data",
    "tokenizer",
    "model",
    "corruption",
    *STAGES,
)  # what a resumed run may not change


logger = logging.getLogger(__name__)  # not Accelerate's, which is not up when a folder is locked


def dotted(values: object, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one: `{"model": {"preset": "minigpt"}}` is `{"model.preset": "minigpt"}`."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value
        for name, part in values.items()
        for key, value in dotted(part, f"{prefix}.{name}" if prefix else name).items()
    }


def settings_without_paths(recipe: dict) -> dict[str, Any]:
    """Return a recipe's settings by dotted keys, without its output folder and other paths."""
    found = dotted(recipe)
    return {
        key: value
        for key, value in found.items()
        if key.rsplit(".", 1)[-1] not in PATHS and not key.startswith(PLACES)
    }


class RunError(UserError, RuntimeError):
    """A command that cannot run on this folder or model; the message is one line for the user."""


def to_json(values: object) -> Any:
    """Return dataclasses, by themselves or in a dict, as a JSON file has them: tuples as lists."""
    return json.loads(json.dumps(values, default=dataclasses.asdict))


def default_of(section: type, key: str) -> Any:
    """Return a field's default value as a JSON file has it; None where it has none."""
    field = next(field for field in dataclasses.fields(section) if field.name == key)
    if field.default_factory is not dataclasses.MISSING:
        return to_json(field.default_factory())
    return None if field.default is dataclasses.MISSING else field.default


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
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a byte-order mark
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
        self.inputs = self.path / "inputs.json"
        self.machine = self.path / "machine.json"
        self.results = self.path / "results.json"
        self.scoring = self.path / "scoring.json"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's finished model."""
        return self.path / name

    def finished(self, name: str) -> bool:
        """Return whether a stage has left its model; one file suffices, since the folder is renamed when complete."""
        return (self.stage(name) / "config.json").is_file()

    @contextmanager
    def new_stage(self, name: str) -> Iterator[Path]:
        """Yield an empty folder for a stage's finished model; rename it to the stage's name if the block succeeds."""
        with written_aside(self.stage(name)) as partial:
            partial.mkdir()
            yield partial

    def training_record(self, name: str) -> dict:
        """Read a finished stage's record: minutes, steps, tokens, losses; empty if there is none."""
        return training_record(self.stage(name))

    @contextmanager
    def lock(self, keeps_data: bool = False) -> Iterator[None]:
        """Lock the folder until the block ends; the system unlocks it when the process dies.

        Where the file system has no locks, a warning says so. A folder that is made here and in which nothing is
        trained or scored is removed again, unless prepared data are to stay.

        Raises:
            RunError: another process has locked it, or the folder cannot be written.
        """
        path = self.path / ".lock"
        is_new = not os.path.exists(self.path)  # unlike pathlib, False where the name is too long to be one
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            has_locks = take_lock(lock, blocking=False)
        except Timeout as error:
            raise RunError(f"output {self.path}: {describe_holder(path)}") from error
        except OSError as error:
            raise RunError(f"output {self.path}: cannot be written: {error.strerror}") from error
        if not has_locks:
            logger.warning(f"{self.path}: its file system has no locks; start no second run in this folder")
        try:
            yield
        finally:
            lock.release()  # of one that was not taken changes nothing
            if is_new and not keeps_data:
                self.remove_if_unused()

    def remove_if_unused(self) -> None:
        """Remove the folder unless something was trained or scored there, or somebody else's file is in it.

        Parts of a preparation that was stopped stay: they may have taken hours.
        """
        with suppress(OSError):
            if any((self.data / "corpus" / "parts").glob("*.parquet")):
                return
            names = {path.name for path in self.path.iterdir()}
            if names <= {".lock", "data", "checkpoints"} and not self.has_checkpoints(STAGES):
                for name in names:
                    remove(self.path / name)
                self.path.rmdir()

    def claim(self, recipe: Recipe, stages: tuple[str, ...], scores: bool, resume: bool) -> None:
        """Check that a command may write to the folder; nothing is left there.

        Args:
            recipe: what the command runs.
            stages: the stages that it trains.
            scores: whether it writes results.
            resume: whether it may continue what an earlier command left.

        Raises:
            RunError: the folder cannot be written, already has the command's outcome or another run's checkpoints, or
                its recipe is not the one to be resumed.
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
                raise RunError(f"output {path}: {done[0]} already exists; {ELSEWHERE}")
            if self.has_checkpoints(stages):
                raise RunError(f"output {path}: has an unfinished run; add --resume or choose another output")
        self.check_nothing_in_the_way(stages)

    def check_nothing_in_the_way(self, stages: tuple[str, ...]) -> None:
        """Raise RunError, with its name, where something lies at a place that the run must write to."""
        # Found now, not at the rename after hours of training.
        for name in FOLDERS:
            place = self.path / name
            if os.path.lexists(place) and not place.is_dir():
                raise RunError(f"{place}: is in the way of a folder of that name; move it away or {ELSEWHERE}")
        for name in FILES:
            if (self.path / name).is_dir():
                raise RunError(
                    f"{self.path / name}: is in the way of a file of that name; move it away or {ELSEWHERE}"
                )
        for place in (self.stage(name) for name in stages if not self.finished(name)):
            if place.is_symlink() or (place.is_dir() and any(place.iterdir())):
                raise RunError(f"{place}: is in the way, it is not empty and no model; move it away or {ELSEWHERE}")

    def begin(self, recipe: Recipe, inputs: dict, formats: dict) -> None:
        """Write down what is run, what it learns from and the number formats it computes in, as training begins."""
        write_json(self.recipe, dataclasses.asdict(recipe))
        write_json(self.inputs, inputs)
        write_json(self.machine, formats)

    def number_formats(self) -> dict:
        """Read the number formats that the run computes in; empty where none are recorded.

        Raises:
            RunError: the record is damaged.
        """
        if not self.machine.exists():
            return {}
        values = read_json(self.machine)
        rates = values.get("rates", {})
        are_numbers = isinstance(rates, dict) and all(isinstance(rate, (int, float)) for rate in rates.values())
        if not are_numbers or not all(isinstance(values.get(key), str) for key in ("model", "muon", "reason")):
            raise RunError(
                f"{self.machine}: no record of number formats: wanted model, muon and reason as texts, and rates as "
                "numbers"
            )
        return values

    def is_in_use(self) -> bool:
        """Return whether an earlier command left a model or a checkpoint, which later ones build on."""
        return self.has_checkpoints(STAGES) or any(self.finished(stage) for stage in STAGES)

    def has_checkpoints(self, stages: tuple[str, ...]) -> bool:
        """Return whether an earlier command left checkpoints of any of the stages."""
        return any(path for name in stages for path in self.checkpoints.glob(f"{name}-*"))

    def check_same_recipe(self, recipe: Recipe) -> None:
        """Raise RunError, with the key and both values, unless the folder's recipe trains exactly as this one does.

        Of a path counts only whether there is one: `check_same_inputs` compares what it leads to.
        """
        if not self.recipe.exists():  # --resume may be given from the start
            return
        before = read_json(self.recipe)
        before.setdefault("relations", to_json(default_relations()))  # of a run before there were others
        now = to_json(recipe)
        for section in TRAINING_SECTIONS:
            if before.get(section) == now[section]:
                continue
            if section not in SECTIONS:
                raise self.changed(section, before.get(section), now[section])
            if not isinstance(before.get(section), dict):
                raise RunError(f"{self.recipe}: {section} was {before.get(section)!r}; cannot resume; {ELSEWHERE}")
            for key, value in now[section].items():
                found = before[section].get(key, default_of(SECTIONS[section], key))  # of a key newer than the run
                is_path = key in PATHS and isinstance(found, str) and isinstance(value, str)
                if found != value and not is_path:
                    raise self.changed(f"{section}.{key}", found, value)

    def changed(self, key: str, before: object, now: object) -> RunError:
        """Return the error of a recipe's value that is not what it was, with what to do."""
        text = f"{self.recipe}: {key} was {before!r}, now {now!r}; cannot resume"
        return RunError(f"{text}: set {key} as it was, or {ELSEWHERE}")

    def check_same_inputs(self, inputs: dict) -> None:
        """Raise RunError, with its name, where an input is not what it was when the run began.

        Args:
            inputs: by name, the digest of what is there now. A run from before inputs were recorded is not compared.
        """
        before = read_json(self.inputs) if self.inputs.exists() else {}
        for name, digest in inputs.items():
            if before.get(name, digest) != digest:
                raise RunError(
                    f"{name} is not what it was when the run in {self.path} began: its contents have changed; cannot "
                    f"resume: restore it, or {ELSEWHERE}"
                )


def describe_holder(lock: Path) -> str:
    """Return who has locked a folder, and what to do."""
    # Where flock does not exist the library makes a file with process and host, which outlives a killed process.
    try:
        process, host = lock.read_text(encoding="utf-8").split()[:2]
    except (OSError, ValueError):  # a true lock, whose file is empty
        return "another run is using this folder; choose another output"
    return f"process {process} on {host} is using this folder; if it is not running any more, remove {lock}"
