"""One optimizer step at a time: learning rates, forward, backward, clipping, update.

The training loop, the benchmarks and the attention laboratory all step through this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.distributed.tensor import DTensor

from configuration.schema import StageArguments
from data_scripts.batches import count_targets
from training.optimizers import build_optimizers, learning_rate_factor


@dataclass(frozen=True)
class Stepper:
    """A model and its optimizers, ready to learn from one batch after another.

    Attributes:
        model: the prepared model.
        optimizers: the prepared optimizers.
        stage: schedule and clipping.
        accelerator: device, processes and precision.
        total_steps: length of the learning-rate schedule.
    """

    model: torch.nn.Module
    optimizers: Sequence[AcceleratedOptimizer]
    stage: StageArguments
    accelerator: Accelerator
    total_steps: int

    @classmethod
    def prepare(
        cls,
        model: torch.nn.Module,
        stage: StageArguments,
        accelerator: Accelerator,
        total_steps: int,
        muon_dtype: torch.dtype = torch.float32,
    ) -> "Stepper":
        """Build the stage's optimizers for a plain model and prepare both on the accelerator; see `prepare`."""
        prepared, optimizers = prepare(model, stage, accelerator, muon_dtype)
        return cls(prepared, optimizers, stage, accelerator, total_steps)

    def step(
        self, number: int, batch: dict[str, torch.Tensor], targets: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take step `number` (from 0) of the schedule; all else is as for `optimizer_step`."""
        set_learning_rates(self.optimizers, learning_rate_factor(number, self.total_steps, self.stage))
        return optimizer_step(
            self.model, self.optimizers, batch, self.accelerator, self.stage.gradient_clipping, targets
        )


def own_rows(rows: int, accelerator: Accelerator) -> np.ndarray:
    """Return which rows of a batch are this process's.

    Args:
        rows: of the batch.
        accelerator: number of processes, and of parts that gradients are accumulated over.

    Raises:
        ValueError: there are fewer rows than parts, and some process would have none.
    """
    parts = accelerator.gradient_accumulation_steps
    world = accelerator.num_processes
    if rows < parts * world:
        raise ValueError(f"batch_size ({rows}) is less than {world} processes x {parts} accumulation steps")
    # Dealt out, since a batch may be sorted by length: each process, and each of its parts, has rows of all lengths,
    # and as many as the others or one fewer. 5 rows on 2 processes of 1 part: rows 0, 2, 4 and rows 1, 3.
    numbers = np.arange(rows)
    return numbers[numbers // parts % world == accelerator.process_index]


def micro_batches(batch: dict[str, torch.Tensor], accelerator: Accelerator) -> list[dict[str, torch.Tensor]]:
    """Split this process's rows of a batch, tensors of (B, ...), into a part for each accumulation step."""
    parts = accelerator.gradient_accumulation_steps
    return [{key: value[part::parts].to(accelerator.device) for key, value in batch.items()} for part in range(parts)]


def prepare(
    model: torch.nn.Module, stage: StageArguments, accelerator: Accelerator, muon_dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, list[AcceleratedOptimizer]]:
    """Return the model and the stage's optimizers, ready for `optimizer_step` on this accelerator.

    `muon_dtype` is the format of Muon's products, unless the stage wants float32: the run's `NumberFormats` has it.
    """
    # Set here, not where the Accelerator is built: the stages of one run may accumulate differently.
    accelerator.gradient_accumulation_steps = stage.gradient_accumulation_steps
    dtype = muon_dtype if stage.muon_bfloat16 else torch.float32
    optimizers = build_optimizers(model, stage, accelerator.is_fsdp2, dtype)
    # Together, since FSDP2 replaces the parameters and must find them again in the optimizers.
    prepared, *optimizers = accelerator.prepare(model, *optimizers)
    return prepared.train(), optimizers


def optimizer_step(
    model, optimizers, batch: dict, accelerator: Accelerator, clipping: float, targets: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one step on this process's rows of a batch.

    The loss of each part is divided by the target tokens of the whole batch, so that neither accumulation nor the
    number of processes changes the gradient.

    Args:
        batch: `input_ids` and `labels`, (B, T) of this process's rows.
        clipping: largest norm of the gradient; 0 does not clip.
        targets: the target tokens of the whole batch; those of `batch` where not given.

    Returns:
        The loss in nats per target token, to be summed over processes by the caller, and the norm of the gradient
        before clipping, the same on all processes; both () and on the device.
    """
    if targets is None:
        targets = count_targets(batch["labels"])
    targets = max(1, targets)  # rows that are all title have none, and no loss
    total = torch.zeros((), device=accelerator.device)
    # DDP takes the mean over processes, and `backward` over accumulation steps; ours is a sum already.
    scale = accelerator.num_processes * accelerator.gradient_accumulation_steps
    for part in micro_batches(batch, accelerator):
        with accelerator.accumulate(model):
            loss = model(**part, num_items_in_batch=targets, use_cache=False, skip_logits=True).loss
            total += loss.detach()
            accelerator.backward(loss * scale)
            if accelerator.sync_gradients:
                # Called without a limit too, for the norm that the watchdog looks at.
                norm = accelerator.clip_grad_norm_(model.parameters(), clipping or float("inf"))
            for optimizer in optimizers:  # Accelerate skips both calls until the last part
                optimizer.step()
                optimizer.zero_grad()
    return total, norm.full_tensor() if isinstance(norm, DTensor) else norm


def set_learning_rates(optimizers, factor: float) -> None:
    """Set every group's learning rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
