"""Stop a run that has gone wrong, with the step, the examples and the last good checkpoint: one line each."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from configuration.errors import UserError
from data_scripts.batches import TrainingBatches

SHOWN = 8  # examples in a message


class DivergenceError(UserError, FloatingPointError):
    """The loss or the gradient ran away; the message says at which step and examples."""


class Watchdog:
    """What watches over one stage.

    Args:
        name: the stage's name.
        batches: names the examples of a step.
        gradient_limit: the largest norm of the gradient that is let pass; 0 for any that is finite.
        stall_minutes: the longest wait for a batch; 0 for any.
        checkpoint: the last good checkpoint; the loop sets it anew after each save.
    """

    def __init__(
        self,
        name: str,
        batches: TrainingBatches,
        gradient_limit: float,
        stall_minutes: float,
        checkpoint: Path | None,
    ):
        self.name, self.batches, self.checkpoint = name, batches, checkpoint
        self.gradient_limit, self.stall_minutes = gradient_limit, stall_minutes

    def check(self, step: int, loss: torch.Tensor, gradient_norm: torch.Tensor, accelerator: Accelerator) -> None:
        """Raise DivergenceError, on all processes alike, where the loss or the gradient ran away.

        Args:
            step: steps done.
            loss: (), this process's losses since the last log line, summed.
            gradient_norm: (), the largest norm before clipping since then, the same on all processes.
        """
        loss = accelerator.reduce(loss.detach().clone(), "sum").item()
        norm = gradient_norm.item()
        limit = self.gradient_limit or float("inf")
        if not abs(loss) < float("inf"):
            fault = "the loss is not finite"
        elif not norm < float("inf"):
            fault = "the gradient is not finite"
        elif norm > limit:
            fault = f"the gradient's norm, {norm:.3g}, is above gradient_limit ({limit:g})"
        else:
            return
        examples = self.batches.name(self.batches.rows(step - 1).examples)
        raise DivergenceError(f"{fault} at {self.describe(step, examples)}; lower the learning rate")

    def describe(self, step: int, examples: Sequence[str]) -> str:
        """Return where a run stands: stage, step, examples, last checkpoint."""
        shown = ", ".join(examples[:SHOWN]) + (f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else "")
        return f"step {step} of {self.name} ({shown}); the last good checkpoint is {self.checkpoint or 'none'}"

    def watch(self, loader: Iterable, first: int) -> Iterator:
        """Yield a loader's batches, from step number `first` (from 0); end the process where one does not come.

        A read that hangs cannot be interrupted, so the process ends without clean-up, with status 2. The examples are
        those of the step's pool: which of them hangs is not known.
        """
        iterator, step = iter(loader), first
        while True:
            timer = threading.Timer(60 * self.stall_minutes, self.give_up, [step])
            timer.daemon = True
            if self.stall_minutes:
                timer.start()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                timer.cancel()
            yield batch
            step += 1

    def give_up(self, step: int) -> None:
        """Say that no batch came and end the process."""
        where = self.describe(step + 1, self.batches.drawn_for(step))
        text = f"no batch came in {self.stall_minutes:g} minutes for {where}; go on from there with --resume"
        os.write(2, f"\nerror: {text}\n".encode())  # no lock that the main thread may hold
        os._exit(2)
