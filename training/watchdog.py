"""Stop a run that has gone wrong, in one line that names the step, its examples and the last good checkpoint."""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from configuration.errors import UserError
from data_scripts.batches import TrainingBatches

MAX_EXAMPLES = 8  # named in a message


class DivergenceError(UserError, FloatingPointError):
    """A loss or gradient that is not finite, or too large; the message names the step and its examples."""


class ProcessTimeout(UserError, RuntimeError):
    """Another process did not come within `run.timeout_minutes`."""


@contextmanager
def as_process_timeout(minutes: float) -> Iterator[None]:
    """Raise what gloo raises when it has waited too long for another process as a ProcessTimeout."""
    # On GPUs NCCL's own watchdog ends the process, with a message of its own.
    try:
        yield
    except RuntimeError as error:
        if "Timed out waiting" not in str(error):
            raise
        raise ProcessTimeout(
            f"another process did not come within {minutes:g} minutes (run.timeout_minutes): see what it reports; "
            "continue with --resume"
        ) from error


class Watchdog:
    """Stop one stage when its numbers diverge or its data do not come.

    Args:
        name: the stage's name.
        batches: names the examples of a step.
        gradient_limit: largest allowed norm of the gradient, before clipping; 0 allows any finite one.
        stall_minutes: longest allowed wait for a batch, in minutes; 0 allows any.
        checkpoint: the last good checkpoint, for the messages; the loop replaces it after each save.
    """

    def __init__(
        self,
        name: str,
        batches: TrainingBatches,
        gradient_limit: float,
        stall_minutes: float,
        checkpoint: Path | None,
    ):
        self.name = name
        self.batches = batches
        self.gradient_limit = gradient_limit
        self.stall_minutes = stall_minutes
        self.checkpoint = checkpoint

    def check(self, step: int, loss: torch.Tensor, gradient_norm: torch.Tensor, accelerator: Accelerator) -> None:
        """Check that loss and gradient are finite and not too large; every process must call this.

        Args:
            step: steps done.
            loss: (), this process's losses since the last log line, summed.
            gradient_norm: (), the largest norm before clipping since then, the same on all processes.

        Raises:
            DivergenceError: they are not; raised on all processes alike.
        """
        # A loss that is not finite on one process makes the sum so on all: they stop together, and none waits.
        loss = accelerator.reduce(loss.detach().clone(), "sum").item()
        norm = gradient_norm.item()
        limit = self.gradient_limit or float("inf")
        # Written as `not x < y`, since every comparison with NaN is false.
        if not abs(loss) < float("inf"):
            fault = "the loss is not finite"
        elif not norm < float("inf"):
            fault = "the gradient is not finite"
        elif norm > limit:
            fault = f"the gradient's norm, {norm:.3g}, is above gradient_limit ({limit:g})"
        else:
            return
        # Drawn again, which is cheap and exact, instead of stored at every step.
        examples = self.batches.name(self.batches.rows(step - 1).examples)
        raise DivergenceError(f"{fault} at {self.describe(step, examples)}; lower the learning rate")

    def describe(self, step: int, examples: Sequence[str]) -> str:
        """Describe where the run is: stage, step, examples, last checkpoint."""
        named = ", ".join(examples[:MAX_EXAMPLES])
        more = f" and {len(examples) - MAX_EXAMPLES} more" if len(examples) > MAX_EXAMPLES else ""
        return f"step {step} of {self.name} ({named}{more}); the last good checkpoint is {self.checkpoint or 'none'}"

    def batches_with_timeout(self, loader: Iterable, first: int) -> Iterator:
        """Yield a loader's batches; end the process, with status 2, when one takes too long.

        Args:
            loader: the batches.
            first: the first batch's step (from 0), for the message.
        """
        # A timer per batch, in a thread of its own: the main thread may hang inside a read of the file system.
        iterator = iter(loader)
        step = first
        while True:
            timer = threading.Timer(60 * self.stall_minutes, self.abort, [step])
            timer.daemon = True  # else the process would wait for the timer before it exits
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

    def abort(self, step: int) -> None:
        """Report that the batch of a step (from 0) did not come, and end the process without clean-up.

        A read that hangs in the main thread cannot be interrupted, so neither an exception nor a signal would help.
        """
        # All examples of the step's pool are named: they are drawn together, and any one of them may hang.
        where = self.describe(step + 1, self.batches.drawn_for(step))
        text = f"no batch came in {self.stall_minutes:g} minutes for {where}; continue from there with --resume"
        # Not print or a logger: the main thread may hold their locks.
        os.write(2, f"\nerror: {text}\n".encode())
        for worker in multiprocessing.active_children():  # a loader's, which may hang instead of this process
            worker.kill()
        os._exit(2)
