"""The training loop of one stage, on as many processes as Accelerate runs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import PreTrainedModel

from configuration.schema import RunArguments, StageArguments
from data_scripts.batches import TrainingBatches
from training.checkpoints import Progress, load_latest, save_checkpoint
from training.console import ProgressBar, draws_bars, format_duration, log_above_bars
from training.feed import as_loader_error, feed
from training.interruption import Interrupted, StopRequest, handle_signals
from training.optimizers import learning_rate_factor
from training.precision import compiled_parts
from training.state import TrainingState
from training.stepper import Stepper, own_rows
from training.tracking import StageTrackers
from training.watchdog import Watchdog

logger = get_logger(__name__)

MIN_STEPS_TO_COMPILE = 200  # steps of a stage; in a shorter one compiling takes longer than it saves
MIN_POINTS = 20  # of a stage's loss curve, if it has that many steps
LINE_SECONDS = 5.0  # shortest time between two progress lines, where no bar can be drawn


class Meter:
    """Measure loss and speed in intervals: for the progress bar or lines, the trackers and the stage's `Progress`.

    Args:
        name: the stage's name.
        progress: what is done so far; updated at every step.
        total: steps of the whole stage.
        accelerator: the processes.
        trackers: where the intervals are logged.
    """

    def __init__(self, name: str, progress: Progress, total: int, accelerator: Accelerator, trackers: StageTrackers):
        self.name = name
        self.trackers = trackers
        self.progress = progress
        self.total = total
        self.accelerator = accelerator
        self.began = (time.monotonic(), progress.step)
        self.last_line = 0.0  # never
        self.bar = ProgressBar(
            total=total,
            initial=progress.step,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not (accelerator.is_main_process and draws_bars()),
        )
        self.start_interval()

    def start_interval(self) -> None:
        """Begin a logging interval, or continue the one that an interrupted run has stored."""
        progress = self.progress
        accelerator = self.accelerator
        self.start = time.monotonic()
        self.first_token = progress.tokens
        # From the last log line, not from this process's first step: the interval may have begun before a kill.
        self.first_step = progress.history[-1][0] if progress.history else 0
        pending = progress.pending
        # Stored by another number of processes, or not at all: the first takes the sum, and the mean is the same.
        if len(pending) != accelerator.num_processes:
            pending = [float(sum(pending)), *[0.0] * (accelerator.num_processes - 1)]
        # On the device: reading a number back at every step would make a GPU wait.
        self.losses = torch.tensor(pending[accelerator.process_index], device=accelerator.device)
        self.gradient_norm = torch.zeros((), device=accelerator.device)
        progress.pending = []

    def save_interval(self) -> None:
        """Store the partial logging interval, so that a resumed run continues it; every process must call this."""
        self.progress.pending = self.accelerator.gather(self.losses[None]).tolist()
        self.progress.minutes += (time.monotonic() - self.start) / 60

    @contextmanager
    def interval_stored(self) -> Iterator[None]:
        """Store the partial logging interval for what is saved in the block, and continue it afterwards."""
        gradient_norm = self.gradient_norm
        self.save_interval()
        yield
        self.start_interval()
        self.gradient_norm = gradient_norm

    def add(self, loss: torch.Tensor, gradient_norm: torch.Tensor, tokens: int) -> None:
        """Count one step.

        Args:
            loss: (), of this process, on the device.
            gradient_norm: (), before clipping, on the device.
            tokens: target tokens of the whole batch.
        """
        self.losses += loss
        # Unlike Python's max, maximum keeps a NaN, so the watchdog sees it at the next log line.
        self.gradient_norm = torch.maximum(self.gradient_norm, gradient_norm)
        self.progress.step += 1
        self.progress.tokens += tokens
        self.bar.update()

    def log(self, learning_rate_factor: float) -> None:
        """Close a logging interval: show, store and track its mean loss and its speed in tokens per second."""
        progress = self.progress
        seconds = time.monotonic() - self.start
        # A sum over processes, not a mean: each has divided its losses by the targets of the whole batch.
        progress.loss = self.accelerator.reduce(self.losses, "sum").item() / (progress.step - self.first_step)
        progress.minutes += seconds / 60
        progress.history.append([progress.step, progress.loss])
        speed = (progress.tokens - self.first_token) / seconds
        self.bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} tokens/s")
        self.write_line(speed)
        values = {
            "loss": progress.loss,
            "largest_gradient_norm": self.gradient_norm.item(),
            "tokens_per_second": speed,
            "learning_rate_factor": learning_rate_factor,
        }
        self.trackers.log({f"{self.name}/{key}": value for key, value in values.items()}, progress.step)
        self.start_interval()

    def write_line(self, speed: float) -> None:
        """Say how far the stage is, where no bar does: `pretrain 100/900  loss 1.90  9,100 tokens/s  50 s left`."""
        now = time.monotonic()
        progress = self.progress
        is_last = progress.step == self.total
        if draws_bars() or (now - self.last_line < LINE_SECONDS and not is_last):
            return
        self.last_line = now
        start, first = self.began
        left = (self.total - progress.step) * (now - start) / (progress.step - first)
        logger.info(
            f"{self.name} {progress.step:,}/{self.total:,}  loss {progress.loss:.2f}  {speed:,.0f} tokens/s  "
            f"{format_duration(left)} left"
        )


AfterCheckpoint = Callable[[PreTrainedModel, Progress], Mapping[str, float] | None]


class CheckpointSaver:
    """Save a stage's checkpoints when they are due, and hand each one's model to a callback.

    Args:
        name: the stage's name.
        state: what is saved besides the progress.
        model_class: the class of the model before it was prepared.
        run: how often to save, and how many checkpoints to keep.
        folder: the folder for checkpoints.
        trackers: where what the callback returns is logged.
        on_checkpoint: called with the unwrapped model on the main process after each checkpoint.
    """

    def __init__(
        self,
        name: str,
        state: TrainingState,
        model_class: type[PreTrainedModel],
        run: RunArguments,
        folder: Path,
        trackers: StageTrackers,
        on_checkpoint: AfterCheckpoint | None,
    ):
        self.name = name
        self.state = state
        self.model_class = model_class
        self.run = run
        self.folder = folder
        self.trackers = trackers
        self.on_checkpoint = on_checkpoint
        self.last_save = time.monotonic()

    def save(self, progress: Progress) -> Path:
        """Save a checkpoint now; every process must call this. CheckpointError as `save_checkpoint`."""
        return save_checkpoint(self.state, self.folder, self.name, progress, self.run.keep_checkpoints)

    def is_due(self, is_last_step: bool) -> bool:
        """Return whether a checkpoint is due: after the stage's last step and every `checkpoint_minutes`.

        Every process must call this.
        """
        # After the last step in any case: calibrating and saving the model may fail, and must not cost the training.
        due = time.monotonic() - self.last_save > 60 * self.run.checkpoint_minutes
        return is_last_step or broadcast_flag(self.state.accelerator, due)

    def save_and_report(self, progress: Progress) -> Path:
        """Save a checkpoint and hand its model to the callback; return its folder. Every process must call this."""
        accelerator = self.state.accelerator
        checkpoint = self.save(progress)
        if self.on_checkpoint is not None:
            # On all processes, though one uses it: collecting a sharded model's weights takes them all.
            model = unwrap(self.state.model, self.model_class, accelerator, still_trains=True)
            if accelerator.is_main_process:
                values = self.on_checkpoint(model, progress) or {}
                self.trackers.log({f"{self.name}/{key}": value for key, value in values.items()}, progress.step)
        # After the callback: its time, such as an upload's, is not part of the minutes between checkpoints.
        self.last_save = time.monotonic()
        return checkpoint


def train_stage(
    name: str,
    model: PreTrainedModel,
    batches: TrainingBatches,
    stage: StageArguments,
    run: RunArguments,
    accelerator: Accelerator,
    checkpoints: Path,
    on_checkpoint: AfterCheckpoint | None = None,
    muon_dtype: torch.dtype = torch.float32,
    settings: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, Progress]:
    """Train a model through one stage, from its latest valid checkpoint if there is one.

    Args:
        name: the stage's name, for checkpoints, logs and the progress bar.
        model, batches: the model, not yet prepared, and what to learn from, by step.
        stage, run: lengths, learning rates, how often to save and to log.
        accelerator, checkpoints: device, processes, precision, trackers; the folder for checkpoints.
        on_checkpoint: called on the main process with the unwrapped model of each checkpoint; returns what to track.
        muon_dtype, settings: number format of Muon's products; of the recipe, shown by trackers.

    Returns:
        The trained model, unwrapped, and the progress at its end.

    Raises:
        Interrupted: a signal asked the run to stop, and its state is saved.
        DivergenceError: as `Watchdog.check`.
        CheckpointError: as `save_checkpoint`.
        LoaderError: a process that reads batches ahead has died.
    """
    model_class = type(model)  # asked before FSDP2 changes it in place
    stepper = Stepper.prepare(model, stage, accelerator, len(batches), muon_dtype)
    state = TrainingState(accelerator, stepper.model, stepper.optimizers)
    progress, checkpoint = load_latest(state, checkpoints, name)  # before the meter, which continues from it
    watchdog = Watchdog(name, batches, stage.gradient_limit, run.stall_minutes, checkpoint)
    trackers = StageTrackers(accelerator, name, settings)
    saver = CheckpointSaver(name, state, model_class, run, checkpoints, trackers, on_checkpoint)
    meter = Meter(name, progress, len(batches), accelerator, trackers)
    with (
        handle_signals() as request,
        meter.bar,
        log_above_bars(),
        trackers.opened(progress.step),
        compiled_parts(model, accelerator.device, rows_to_compile(stage, run, accelerator, len(batches))),
        as_loader_error(),
    ):
        train_steps(stepper, batches, meter, watchdog, saver, request)
    trained = unwrap(stepper.model, model_class, accelerator)
    accelerator.free_memory()  # Accelerate remembers all it prepared: the next stage needs the optimizers' memory
    return trained, progress


def train_steps(
    stepper: Stepper,
    batches: TrainingBatches,
    meter: Meter,
    watchdog: Watchdog,
    saver: CheckpointSaver,
    request: StopRequest,
) -> None:
    """Take the stage's remaining steps. The order within one is the point: check, log, save, stop."""
    progress = meter.progress
    accelerator = stepper.accelerator
    remaining = range(progress.step, stepper.total_steps)
    interval = steps_between_points(saver.run, stepper.total_steps)
    shares = feed(batches, remaining, own_rows(stepper.stage.batch_size, accelerator), saver.run.loader_workers)
    # Strict: a loader that ends early is an error, not a shorter training.
    for step, share in zip(remaining, watchdog.batches_with_timeout(shares, progress.step), strict=True):
        batch, targets = share
        loss, gradient_norm = stepper.step(step, batch, targets)
        meter.add(loss, gradient_norm, targets)
        is_last = progress.step == stepper.total_steps
        logs = progress.step % interval == 0 or is_last
        stops = request.requested_on_any_rank(accelerator)
        saves = saver.is_due(is_last)  # not only with a log line, which may be hours away
        # On a GPU each check would wait for the device, so there it comes only before something is written.
        if logs or stops or saves or accelerator.device.type == "cpu":
            watchdog.check(progress.step, meter.losses, meter.gradient_norm, accelerator)
        saved = None
        if logs:
            meter.log(learning_rate_factor(step, stepper.total_steps, stepper.stage))
        if saves:
            with meter.interval_stored():
                saved = watchdog.checkpoint = saver.save_and_report(progress)
        if stops:
            if saved is None:
                if not logs:  # else the interval has just been closed, and the next one is empty
                    meter.save_interval()
                saved = saver.save(progress)
            raise Interrupted(f"stopped at step {progress.step} of {meter.name}, saved in {saved}; {request.remedy}")


def steps_between_points(run: RunArguments, total_steps: int) -> int:
    """Return after how many steps the loss is logged: `log_steps`, or fewer where a stage is short."""
    return min(run.log_steps, max(1, total_steps // MIN_POINTS))


def rows_to_compile(
    stage: StageArguments, run: RunArguments, accelerator: Accelerator, total_steps: int
) -> int | None:
    """Return the rows of one forward pass, for which the model is compiled; None where that is not worth it."""
    if not run.compile or total_steps < MIN_STEPS_TO_COMPILE:
        return None
    parts = accelerator.num_processes * stage.gradient_accumulation_steps
    return -(-stage.batch_size // parts)  # rounded up: 13 rows in 6 parts are 3, 2, 2, 2, 2, 2


def unwrap(
    prepared: torch.nn.Module, model_class: type[PreTrainedModel], accelerator: Accelerator, still_trains: bool = False
) -> PreTrainedModel:
    """Return the plain model; where it is sharded, a copy of it, complete on the main process alone.

    Every process must call this. A model that still trains keeps the wrapper that sets its precision.
    """
    if not accelerator.is_fsdp2:
        return accelerator.unwrap_model(prepared, keep_fp32_wrapper=still_trains)
    weights = accelerator.get_state_dict(prepared)
    sharded = accelerator.unwrap_model(prepared)
    model = model_class(sharded.config)
    model.generation_config = sharded.generation_config
    if accelerator.is_main_process:
        model.load_state_dict(weights)
    return model.to(accelerator.device)


def broadcast_flag(accelerator: Accelerator, flag: bool) -> bool:
    """Return the main process's flag on every process, since their clocks differ."""
    if accelerator.num_processes == 1:  # the reduction would wait for a GPU at every step
        return flag
    # A sum, in which the other processes' flags are 0: it works alike with every backend.
    value = torch.tensor(float(flag and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(value, "sum").item() > 0)
