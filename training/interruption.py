"""Stop at the next step when a scheduler or a person asks for it, with everything saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from configuration.errors import UserError

EXIT_TEMPFAIL = 75  # of sysexits.h: a temporary failure, try again (here with --resume)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(UserError):
    """A run that was asked to stop and has saved its state."""

    exit_status = EXIT_TEMPFAIL
    prefix = ""


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        signal: the signal that asked, None before one came.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    def receive(self, number: int, frame) -> None:
        """Remember a signal, as its handler; a second one ends the process at once."""
        self.signal = signal.Signals(number)
        # Saving may hang on a dead disk: whoever presses Ctrl-C again wants the process gone.
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def requested_on_any_rank(self, accelerator: Accelerator) -> bool:
        """Return, on all processes alike, whether any of them was asked to stop; every process must call this."""
        requested = self.signal is not None
        # One process alone has no other to ask, and on a GPU the reduction would wait for the device at every step.
        if accelerator.num_processes == 1:
            return requested
        count = accelerator.reduce(torch.tensor(float(requested), device=accelerator.device), "sum")
        return bool(count.item() > 0)


@contextmanager
def handle_signals() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as requests to stop until the block ends."""
    request = StopRequest()
    try:
        previous = {each: signal.signal(each, request.receive) for each in STOP_SIGNALS}
    except ValueError:  # Python sets handlers in the main thread only, as a notebook's worker thread is not
        yield request
        return
    try:
        yield request
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
