"""The training loop of one stage, on as many processes as Accelerate runs."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from training.arguments import RunArguments, StageArguments
from training.batches import TrainingBatches, count_targets
from training.checkpoints import Progress, load_newest, save_checkpoint
from training.optimizers import build_optimizers, learning_rate_factor


def micro_batches(batch: dict[str, torch.Tensor], accelerator: Accelerator) -> list[dict[str, torch.Tensor]]:
    """Return this process's share of a whole batch, in as many parts as gradients are accumulated over."""
    parts = accelerator.gradient_accumulation_steps
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = batch["input_ids"].shape[0]
    if rows < parts * world:
        raise ValueError(f"batch_size ({rows}) is less than {world} processes x {parts} accumulation steps")
    shares = []
    for part in range(parts):
        chosen = slice(rank * parts + part, None, parts * world)
        shares.append({key: value[chosen].to(accelerator.device) for key, value in batch.items()})
    return shares


def optimizer_step(model, optimizers, batch: dict, accelerator: Accelerator, clipping: float) -> torch.Tensor:
    """Take one step on a whole batch; return the loss in nats a target token, summed over processes by the caller.

    The loss of each part is divided by the target tokens of the whole batch, so that neither accumulation nor the
    number of processes changes the gradient.
    """
    targets = count_targets(batch["labels"])
    total = torch.zeros((), device=accelerator.device)
    scale = accelerator.num_processes * accelerator.gradient_accumulation_steps  # DDP and backward() average
    for part in micro_batches(batch, accelerator):
        with accelerator.accumulate(model):
            loss = model(**part, num_items_in_batch=targets, use_cache=False).loss
            total += loss.detach()
            accelerator.backward(loss * scale)
            if accelerator.sync_gradients and clipping > 0:
                accelerator.clip_grad_norm_(model.parameters(), clipping)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return total


def set_learning_rates(optimizers, factor: float) -> None:
    """Set every group's learning rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


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
        """Begin a new stretch."""
        self.since, self.first_step, self.first_token = time.monotonic(), self.progress.step, self.progress.tokens
        self.losses = torch.zeros((), device=self.accelerator.device)

    def add(self, loss: torch.Tensor, tokens: int) -> None:
        """Count one step: its loss on this process, not yet fetched from the device, and its target tokens."""
        self.losses += loss
        self.progress.step += 1
        self.progress.tokens += tokens
        self.bar.update()

    def log(self, learning_rate_factor: float) -> None:
        """Close a stretch: show, record and track its mean loss and its speed.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        progress, seconds = self.progress, time.monotonic() - self.since
        progress.loss = self.accelerator.reduce(self.losses, "sum").item() / (progress.step - self.first_step)
        progress.minutes += seconds / 60
        progress.history.append([progress.step, progress.loss])
        speed = (progress.tokens - self.first_token) / seconds
        self.bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} tokens/s")
        values = {"loss": progress.loss, "tokens_per_second": speed, "learning_rate_factor": learning_rate_factor}
        self.accelerator.log({f"{self.name}/{key}": value for key, value in values.items()}, step=progress.step)
        if not math.isfinite(progress.loss):
            self.bar.close()
            raise FloatingPointError(
                f"{self.name}: the loss is {progress.loss} at step {progress.step}; lower the learning rate"
            )
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
    """
    accelerator.gradient_accumulation_steps = stage.gradient_accumulation_steps
    prepared, *optimizers = accelerator.prepare(model, *build_optimizers(model, stage))
    prepared.train()
    progress = load_newest(accelerator, checkpoints, name)
    total, last_save = len(batches), time.monotonic()
    meter = Meter(name, progress, total, accelerator)
    # With a generator of its own, the loader draws nothing from the global one, which dropout goes on with.
    remaining = range(progress.step, total)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=remaining, generator=torch.Generator())
    for step, batch in zip(remaining, loader, strict=True):
        factor = learning_rate_factor(step, total, stage)
        set_learning_rates(optimizers, factor)
        loss = optimizer_step(prepared, optimizers, batch, accelerator, stage.gradient_clipping)
        meter.add(loss, count_targets(batch["labels"]))
        last_step = progress.step == total
        if progress.step % run.log_steps == 0 or last_step:
            meter.log(factor)
            due = time.monotonic() - last_save > 60 * run.checkpoint_minutes
            if last_step or flag_from_main(accelerator, due):
                save_checkpoint(accelerator, checkpoints, name, progress, run.keep_checkpoints)
                if on_checkpoint is not None and accelerator.is_main_process:
                    on_checkpoint(accelerator.unwrap_model(prepared, keep_fp32_wrapper=False), progress)
                last_save = time.monotonic()
    meter.bar.close()
    accelerator.free_memory()
    return accelerator.unwrap_model(prepared, keep_fp32_wrapper=False), progress


def flag_from_main(accelerator: Accelerator, flag: bool) -> bool:
    """Return the main process's flag on every process, since clocks differ."""
    value = torch.tensor(float(flag and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(value, "sum").item() > 0)
