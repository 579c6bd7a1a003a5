"""Stop at the next step when a scheduler or a person asks for it, with everything saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from configuration.errors import UserError

EXIT_TEMPFAIL = 75  # EX_TEMPFAIL of sysexits.h: to be tried again, with --resume
FEATURE_NAMES = (signal.SIGTERM, signal.SIGINT)


class Interrupted(UserError):
    """A run that was asked to stop and has saved its state."""

    exit_status = EXIT_TEMPFAIL
    prefix = ""


class StopRequest:
    """Whether this or any other process of the run was asked to stop, and by what."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    def receive(self, number: int, frame) -> None:
        """Remember the signal; a second one ends the process at once."""
        self.signal = signal.Signals(number)
        for each in FEATURE_NAMES:
            signal.signal(each, signal.SIG_DFL)

    def anywhere(self, accelerator: Accelerator) -> bool:
        """Tell, on every process alike, whether any of them was asked."""
        asked = self.signal is not None
        if accelerator.num_processes == 1:
            return asked
        count = accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum")
        return bool(count.item() > 0)


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as requests to stop until the block ends."""
    request = StopRequest()
    try:
        before = {each: signal.signal(each, request.receive) for each in FEATURE_NAMES}
    except ValueError:  # not the main thread: signals go elsewhere
        yield request
        return
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
