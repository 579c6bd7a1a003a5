"""The training loop of one stage, on as many processes as Accelerate runs."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from configuration.schema import RunArguments, StageArguments
from data_scripts.batches import TrainingBatches, count_targets
from training.checkpoints import Progress, load_newest, save_checkpoint
from training.interruption import Interrupted, listen
from training.optimizers import learning_rate_factor
from training.precision import compiled_parts
from training.state import TrainingState
from training.stepper import Stepper
from training.watchdog import Watchdog

MIN_STEPS_TO_COMPILE = 200  # steps of a stage; in a shorter one compiling takes longer than it saves


class Meter:
    """Loss and speed between log lines: on the progress bar, in the trackers and in the stage's `Progress`."""

    def __init__(self, name: str, progress: Progress, total: int, accelerator: Accelerator):
        self.name, self.progress, self.accelerator = name, progress, accelerator
        self.bar = tqdm(
            total=total,
            initial=progress.step,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not accelerator.is_main_process,
        )
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch, or go on with one that an interrupted run has begun."""
        progress, accelerator = self.progress, self.accelerator
        self.since, self.first_token = time.monotonic(), progress.tokens
        self.first_step = progress.history[-1][0] if progress.history else 0
        pending = progress.pending
        if len(pending) != accelerator.num_processes:  # none, or those of another number of processes
            pending = [float(sum(pending)), *[0.0] * (accelerator.num_processes - 1)]
        self.losses = torch.tensor(pending[accelerator.process_index], device=accelerator.device)
        self.gradient_norm = torch.zeros((), device=accelerator.device)
        progress.pending = []

    def pause(self) -> None:
        """Put an unfinished stretch into the `Progress`, to be saved and gone on with."""
        self.progress.pending = self.accelerator.gather(self.losses[None]).tolist()
        self.progress.minutes += (time.monotonic() - self.since) / 60

    def add(self, loss: torch.Tensor, gradient_norm: torch.Tensor, tokens: int) -> None:
        """Count one step: its loss on this process and its gradient's norm, still on the device; its target tokens."""
        self.losses += loss
        self.gradient_norm = torch.maximum(self.gradient_norm, gradient_norm)  # not a number, once one is not
        self.progress.step += 1
        self.progress.tokens += tokens
        self.bar.update()

    def log(self, learning_rate_factor: float) -> None:
        """Close a stretch: show, record and track its mean loss and its speed."""
        progress, seconds = self.progress, time.monotonic() - self.since
        progress.loss = self.accelerator.reduce(self.losses, "sum").item() / (progress.step - self.first_step)
        progress.minutes += seconds / 60
        progress.history.append([progress.step, progress.loss])
        speed = (progress.tokens - self.first_token) / seconds
        self.bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} tokens/s")
        values = {
            "loss": progress.loss,
            "largest_gradient_norm": self.gradient_norm.item(),
            "tokens_per_second": speed,
            "learning_rate_factor": learning_rate_factor,
        }
        self.accelerator.log({f"{self.name}/{key}": value for key, value in values.items()}, step=progress.step)
        self.restart()


def train_stage(
    name: str,
    model: torch.nn.Module,
    batches: TrainingBatches,
    stage: StageArguments,
    run: RunArguments,
    accelerator: Accelerator,
    checkpoints: Path,
    on_checkpoint: Callable[[torch.nn.Module, Progress], None] | None = None,
) -> tuple[torch.nn.Module, Progress]:
    """Train a model through one stage, from its newest checkpoint if there is one.

    Args:
        name: the stage's name, for checkpoints, logs and the progress bar.
        model: the model, not yet prepared.
        batches: what to learn from, by step.
        stage, run: lengths, learning rates, how often to save and to log.
        accelerator: device, processes, precision, trackers.
        checkpoints: the folder for checkpoints.
        on_checkpoint: called with the unwrapped model on the main process after each checkpoint.

    Returns:
        The trained model, unwrapped, and where the stage ended.

    Raises:
        Interrupted: a signal asked the run to stop, and its state is saved.
        DivergenceError: as `Watchdog.check`.
        CheckpointError: as `save_checkpoint`.
    """
    maker = type(model)
    total = len(batches)
    stepper = Stepper.prepare(model, stage, accelerator, total)
    prepared = stepper.model
    state = TrainingState(accelerator, prepared, stepper.optimizers)
    progress, checkpoint = load_newest(state, checkpoints, name)
    guard = Watchdog(name, batches, stage.gradient_limit, run.stall_minutes, checkpoint)
    last_save = time.monotonic()
    meter = Meter(name, progress, total, accelerator)
    # With a generator of its own, the loader draws nothing from the global one, which dropout goes on with.
    remaining = range(progress.step, total)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=remaining, generator=torch.Generator())
    parts = accelerator.num_processes * accelerator.gradient_accumulation_steps
    rows = -(-stage.batch_size // parts) if run.compile and total >= MIN_STEPS_TO_COMPILE else None
    with meter.bar, listen() as request, compiled_parts(model, accelerator.device, rows):
        for step, batch in zip(remaining, guard.watch(loader, progress.step), strict=True):
            loss, gradient_norm = stepper.step(step, batch)
            meter.add(loss, gradient_norm, count_targets(batch["labels"]))
            last_step = progress.step == total
            logged = progress.step % run.log_steps == 0 or last_step
            asked = request.anywhere(accelerator) and not last_step
            if logged or asked or accelerator.device.type == "cpu":  # elsewhere each look would wait for the device
                guard.check(progress.step, meter.losses, meter.gradient_norm, accelerator)
            if logged:
                meter.log(learning_rate_factor(step, total, stage))
                due = time.monotonic() - last_save > 60 * run.checkpoint_minutes
                if last_step or flag_from_main(accelerator, due):
                    guard.checkpoint = save_checkpoint(state, checkpoints, name, progress, run.keep_checkpoints)
                    if on_checkpoint is not None:
                        whole = unwrap(prepared, maker, accelerator, still_trains=True)
                        if accelerator.is_main_process:
                            on_checkpoint(whole, progress)
                    last_save = time.monotonic()
            if asked:
                if not logged:
                    meter.pause()
                saved = save_checkpoint(state, checkpoints, name, progress, run.keep_checkpoints)
                raise Interrupted(f"stopped at step {progress.step} of {name}, saved in {saved}; go on with --resume")
    trained = unwrap(prepared, maker, accelerator)
    accelerator.free_memory()
    return trained, progress


def unwrap(
    prepared: torch.nn.Module, maker: type[PreTrainedModel], accelerator: Accelerator, still_trains: bool = False
) -> PreTrainedModel:
    """Return the plain model; where it is sharded, a copy of it, whole on the main process alone.

    Every process must call this. A model that still trains keeps the wrapper that sets its precision.
    """
    if not accelerator.is_fsdp2:
        return accelerator.unwrap_model(prepared, keep_fp32_wrapper=still_trains)
    weights, sharded = accelerator.get_state_dict(prepared), accelerator.unwrap_model(prepared)
    model = maker(sharded.config)
    model.generation_config = sharded.generation_config
    if accelerator.is_main_process:
        model.load_state_dict(weights)
    return model.to(accelerator.device)


def flag_from_main(accelerator: Accelerator, flag: bool) -> bool:
    """Return the main process's flag on every process, since clocks differ."""
    value = torch.tensor(float(flag and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(value, "sum").item() > 0)
