"""The training loop of one stage, on as many processes as Accelerate runs."""

import math
import time
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


def train_stage(
    name: str,
    model: torch.nn.Module,
    batches: TrainingBatches,
    stage: StageArguments,
    run: RunArguments,
    accelerator: Accelerator,
    checkpoints: Path,
) -> tuple[torch.nn.Module, Progress]:
    """Train a model through one stage, from its newest checkpoint if there is one.

    Args:
        name: the stage's name, for checkpoints, logs and the progress bar.
        model: the model, not yet prepared.
        batches: what to learn from, by step.
        stage, run: lengths, learning rates, how often to save and to log.
        accelerator: device, processes, precision, trackers.
        checkpoints: the folder for checkpoints.

    Returns:
        The trained model, unwrapped, and where the stage ended.
    """
    accelerator.gradient_accumulation_steps = stage.gradient_accumulation_steps
    prepared, *optimizers = accelerator.prepare(model, *build_optimizers(model, stage))
    progress = load_newest(accelerator, checkpoints, name)
    prepared.train()
    first = progress.step
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(first, len(batches)), generator=torch.Generator()
    )
    bar = tqdm(
        total=len(batches), initial=first, desc=name, unit="step", dynamic_ncols=True,
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    last_save = mark = time.monotonic()
    losses, tokens_at_mark = torch.zeros((), device=accelerator.device), progress.tokens
    steps_at_mark = first
    for step, batch in enumerate(loader, start=first):
        factor = learning_rate_factor(step, len(batches), stage)
        set_learning_rates(optimizers, factor)
        losses += optimizer_step(prepared, optimizers, batch, accelerator, stage.gradient_clipping)
        progress.step, progress.tokens = step + 1, progress.tokens + count_targets(batch["labels"])
        bar.update()
        last_step = progress.step == len(batches)
        if progress.step % run.log_steps == 0 or last_step:
            now = time.monotonic()
            progress.loss = accelerator.reduce(losses, "sum").item() / (progress.step - steps_at_mark)
            speed = (progress.tokens - tokens_at_mark) / (now - mark)
            progress.minutes += (now - mark) / 60
            progress.history.append([progress.step, progress.loss])
            bar.set_postfix_str(f"loss {progress.loss:.3f}, {speed:,.0f} tokens/s")
            values = {"loss": progress.loss, "tokens_per_second": speed, "learning_rate_factor": factor}
            accelerator.log({f"{name}/{key}": value for key, value in values.items()}, step=progress.step)
            if not math.isfinite(progress.loss):
                raise FloatingPointError(
                    f"{name}: the loss is {progress.loss} at step {progress.step}; lower the learning rate"
                )
            losses, mark, tokens_at_mark, steps_at_mark = torch.zeros_like(losses), now, progress.tokens, progress.step
            due = now - last_save > 60 * run.checkpoint_minutes
            if last_step or flag_from_main(accelerator, due):
                save_checkpoint(accelerator, checkpoints, name, progress, run.keep_checkpoints)
                last_save = mark = time.monotonic()
    bar.close()
    accelerator.free_memory()
    return accelerator.unwrap_model(prepared), progress


def flag_from_main(accelerator: Accelerator, flag: bool) -> bool:
    """Return the main process's flag on every process, since clocks differ."""
    value = torch.tensor(float(flag and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(value, "sum").item() > 0)
