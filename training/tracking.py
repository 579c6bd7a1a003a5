"""TensorBoard logs of one stage: a log that cannot be written warns once, and training goes on without it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from accelerate import Accelerator
from accelerate.logging import get_logger

logger = get_logger(__name__)


@contextmanager
def tracked(accelerator: Accelerator, stage: str, step: int) -> Iterator[None]:
    """Log to the Accelerator's trackers while the context lasts, in a folder of the stage's own.

    Args:
        accelerator: its `log_with` may be empty; then nothing is logged.
        stage: the stage's name.
        step: steps done. TensorBoard drops what a killed process has logged after them, which is logged again.
    """
    shown = threading.excepthook
    threading.excepthook = partial(report_thread_error, shown)
    with warn_and_untrack(accelerator):
        # A folder for each stage: TensorBoard drops later steps of all that is in a folder.
        accelerator.init_trackers(stage, init_kwargs={"tensorboard": {"purge_step": step + 1}})
    try:
        yield
    finally:
        with warn_and_untrack(accelerator):
            for tracker in accelerator.trackers:
                tracker.finish()
        accelerator.trackers.clear()
        threading.excepthook = shown


def report_thread_error(report: Callable, arguments: threading.ExceptHookArgs) -> None:
    """Report what a thread has raised, unless TensorBoard raises it again where it is called, as its writer does."""
    if not type(arguments.thread).__module__.startswith("tensorboard."):
        report(arguments)


def track(accelerator: Accelerator, values: dict[str, float], step: int) -> None:
    """Log values of a step."""
    with warn_and_untrack(accelerator):
        accelerator.log(values, step=step)


@contextmanager
def warn_and_untrack(accelerator: Accelerator) -> Iterator[None]:
    """Warn of whatever a tracker raises, and use none any more."""
    try:
        yield
    except Exception as error:  # of a full disk, a network, a library of its own
        accelerator.trackers.clear()
        logger.warning(f"the logs for TensorBoard cannot be written, training goes on without: {error}")
