"""Feed a stage's loop with this process's rows of each batch, put together between the steps or ahead of them."""

import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from configuration.errors import UserError, one_line
from data_scripts.batches import TrainingBatches
from training.interruption import STOP_SIGNALS

Share = tuple[dict[str, torch.Tensor], int]  # rows of a batch, and the tokens of the whole batch that the loss counts


class LoaderError(UserError, RuntimeError):
    """A process that reads batches ahead has died."""


class PoolShares(torch.utils.data.Dataset):
    """The shares of one pool's batches after the other's: what a worker makes at once, as it draws a pool whole.

    Args:
        batches: of the stage.
        steps: the remaining ones.
        rows: which rows of a batch are this process's.
    """

    def __init__(self, batches: TrainingBatches, steps: range, rows: np.ndarray):
        self.batches = batches
        self.steps = steps
        self.rows = rows
        self.pool_steps = batches.stage.bucket_batches
        self.first_pool = steps.start // self.pool_steps

    def __len__(self) -> int:
        return max(0, -(-self.steps.stop // self.pool_steps) - self.first_pool)

    def __getitem__(self, number: int) -> list[tuple[dict[str, np.ndarray], int] | Exception]:
        """Return the shares of a pool's remaining batches; where one cannot be made, the exception, and no more."""
        first = (self.first_pool + number) * self.pool_steps
        shares = []
        for step in range(max(first, self.steps.start), min(first + self.pool_steps, self.steps.stop)):
            try:
                batch, targets = self.batches.share(step, self.rows)
            # Any: it is raised in the training process, as if the batch had been made there.
            except Exception as error:
                return [*shares, portable(error)]
            # Arrays travel through a pipe; tensors would take shared memory, of which containers have little.
            shares.append(({key: value.numpy() for key, value in batch.items()}, targets))
        return shares


def portable(error: Exception) -> Exception:
    """Return an exception that can travel to another process: the same, or one that says what it was."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a library's exception may be of any form
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return error


def as_it_is(shares: list) -> list:
    """Return what a worker has made; the loader's own function would make tensors of it."""
    return shares


def ignore_stop_signals(worker: int) -> None:
    """Leave requests to stop to the training process, which ends its workers once its state is saved."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def feed(batches: TrainingBatches, steps: range, rows: np.ndarray, workers: int) -> Iterator[Share]:
    """Yield this process's share of each batch.

    Args:
        batches: of the stage.
        steps: the remaining ones.
        rows: which rows of a batch are this process's.
        workers: processes that make shares ahead, each two pools of them; 0 makes each when it is asked for.

    Raises:
        Exception: what making a batch raises, whichever process made it.
    """
    if workers == 0:
        yield from (batches.share(step, rows) for step in steps)
        return
    loader = torch.utils.data.DataLoader(
        PoolShares(batches, steps, rows),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=ignore_stop_signals,
        # With a generator of its own, the loader draws nothing from the global one, which dropout continues with.
        generator=torch.Generator(),
    )
    for shares in loader:
        for share in shares:
            if isinstance(share, Exception):
                raise share
            arrays, targets = share
            yield {key: torch.from_numpy(value) for key, value in arrays.items()}, targets


@contextmanager
def as_loader_error() -> Iterator[None]:
    """Raise what PyTorch raises for a dead worker, at any point of the block, as a LoaderError."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise LoaderError(
            f"a process that reads batches ahead has died ({one_line(error)}), most likely because memory ran out; "
            "lower run.loader_workers (0: no such process) and continue with --resume"
        ) from error
