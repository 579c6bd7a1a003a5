"""A run's curves, settings and results in TensorBoard, or in any other tracker that Accelerate knows.

Each stage is a run of its own there, and the results are one more. A tracker that cannot be written to warns once
a stage, and the stage continues without it.

A resumed run repeats steps that the killed run has already logged, with the same values. TensorBoard deletes the old
points (`purge_step`). Other trackers are not sent them twice: `logs/tracked.json` has each stage's last logged step,
and the id under which a service like W&B continues the stage.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.tracking import GeneralTracker, get_available_trackers

from artifacts.files import write_json
from artifacts.run_folder import RunError, read_json, settings_without_paths
from configuration.schema import Recipe

logger = get_logger(__name__)

PROJECT = "minigpt"  # where a tracker puts runs together
RECORD = "tracked.json"
TENSORBOARD = "tensorboard"
RESULTS = "results"  # the run of the accuracies and of trust


def check_installed(names: list[str]) -> None:
    """Raise RunError where a tracker's library is not installed."""
    available = {str(kind.value) for kind in get_available_trackers()}
    for name in names:
        if name not in available:
            raise RunError(f"run.trackers: {name} is not installed; pip install {name}, or leave it out")


def tracked_settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's settings by dotted keys, as trackers show them: without paths, which are of this machine."""
    found = settings_without_paths(asdict(recipe))
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in found.items()}


def wandb_settings() -> dict[str, Any]:
    """Return settings with which W&B sends no path of this machine and loses little where the process is killed."""
    import wandb  # not before it is asked for, since few have it

    wanted = {
        "x_disable_meta": True,  # the command line, the interpreter and the working folder
        "console": "off",  # what is printed, among it folders and warnings of libraries
        "x_transaction_log_flush_interval": 0.1,  # seconds; by default 15, which a resumed run would not repeat
    }
    # Not every version has all of them, and an unknown one raises.
    return {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}


class StageTrackers:
    """The trackers of one stage, on the main process; `accelerator.log_with` says which, and may be empty.

    Args:
        accelerator: not used by another stage at the same time.
        stage: the stage's name.
        settings: of the recipe, shown beside the curves.
    """

    def __init__(self, accelerator: Accelerator, stage: str, settings: Mapping[str, Any] | None = None):
        self.accelerator = accelerator
        self.stage = stage
        self.settings = dict(settings or {})
        self.logs = Path(accelerator.logging_dir or ".")
        self.record: dict[str, dict] = {}
        self.logged_before = -1  # the last step that an earlier process has logged

    @cached_property
    def key(self) -> str:
        """The stage's key in the record: a stage that trains otherwise in the same folder is another run."""
        # A resumed run may change the others.
        trained = {key: value for key, value in self.settings.items() if not key.startswith(("run.", "evaluate."))}
        text = json.dumps(trained, sort_keys=True)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """Open the trackers while the context lasts.

        Args:
            step: steps done.
        """
        shown = threading.excepthook
        threading.excepthook = partial(report_thread_error, shown)
        kinds = list(self.accelerator.log_with)
        found: list[GeneralTracker] = []
        for kind in kinds:
            # One at a time: each has its own options, and one that fails does not affect the others.
            name = str(getattr(kind, "value", kind))
            with self.warn(name):
                self.accelerator.log_with = [kind]
                self.accelerator.trackers = []
                self.open(name, step)
            found += self.accelerator.trackers
        self.accelerator.log_with = kinds
        self.accelerator.trackers = found
        try:
            yield
        finally:
            for tracker in list(self.accelerator.trackers):
                with self.warn(tracker.name):
                    tracker.finish()
            self.accelerator.trackers = []
            threading.excepthook = shown

    def open(self, name: str, step: int) -> None:
        """Open one tracker."""
        if name == TENSORBOARD:
            # A folder for each stage: TensorBoard drops later steps of all that is in a folder.
            self.accelerator.init_trackers(self.stage, init_kwargs={name: {"purge_step": step + 1}})
            return
        self.read_record()
        own = self.record[self.key]
        run = Path(self.accelerator.project_dir or ".").name
        options: dict[str, Any] = {}
        if name == "wandb":
            identity = f"{own['id']}-{self.stage}"
            options = {"name": f"{run}/{self.stage}", "group": run, "id": identity, "resume": "allow"}
            options["dir"] = str(self.logs)
            options["settings"] = wandb_settings()
        elif name == "mlflow":
            options = {"run_name": f"{run}/{self.stage}"}
        elif name == "dvclive":  # which else empties the folder of the stage before
            options = {"dir": str(self.logs / name / self.stage), "resume": own["step"] >= 0}
        self.accelerator.init_trackers(PROJECT, config=self.settings, init_kwargs={name: options})

    def read_record(self) -> None:
        """Read which steps were logged before, or begin a record."""
        if self.key in self.record:  # for another tracker: the id must stay
            return
        if self.accelerator.is_main_process:
            self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / RECORD
        self.record = read_json(path) if path.is_file() else {}
        own = self.record.setdefault(self.key, {"id": secrets.token_hex(4), "step": -1})
        self.logged_before = own["step"]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values of a step, if there are any; several times, where a step has several."""
        if not values:
            return
        own = self.record.get(self.key)
        is_new = own is None or step > self.logged_before
        for tracker in list(self.accelerator.trackers):
            if tracker.name == TENSORBOARD or is_new:
                with self.warn(tracker.name):
                    tracker.log(dict(values), step=step)
        # Where a service has failed it did not get the step, and gets it when it is there again.
        was_sent = any(tracker.name != TENSORBOARD for tracker in self.accelerator.trackers)
        if own is not None and is_new and was_sent and self.accelerator.is_main_process:
            own["step"] = step
            with self.warn(RECORD):
                write_json(self.logs / RECORD, self.record)

    @contextmanager
    def warn(self, name: str) -> Iterator[None]:
        """Warn of whatever a tracker raises, and do not use it any more."""
        try:
            yield
        except Exception as error:  # of a full disk, a network, a library of its own
            self.accelerator.trackers = [one for one in self.accelerator.trackers if one.name != name]
            what = "TensorBoard" if name == TENSORBOARD else name
            logger.warning(f"the logs for {what} cannot be written, training goes on without: {error}")


def report_thread_error(report: Callable, arguments: threading.ExceptHookArgs) -> None:
    """Report a thread's exception, except that of TensorBoard's writer, which is raised again at the next call."""
    if not type(arguments.thread).__module__.startswith("tensorboard."):
        report(arguments)


def track_results(accelerator: Accelerator, settings: Mapping[str, Any], results: dict) -> None:
    """Log a run's accuracies and how far it can be trusted, of the first relation, beside its settings.

    In TensorBoard they are a row of the HParams page.
    """
    # "accuracy" comes last: `trust` has one, too, of the pipeline's answers.
    numbers = {**(results["trust"] or {}), **results["baselines"], "accuracy": results[results["split"]]["accuracy"]}
    values = {
        f"{RESULTS}/{name}": float(value)
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    trackers = StageTrackers(accelerator, RESULTS, settings)
    with trackers.opened(0):
        trackers.log(values, 0)
        for tracker in accelerator.trackers if accelerator.is_main_process else ():
            if tracker.name == TENSORBOARD:
                with trackers.warn(TENSORBOARD):
                    tracker.tracker.add_hparams(dict(settings), values, run_name=".")
