"""Stop at the next step when a scheduler or a person asks for it, with everything saved."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from configuration.errors import UserError

EXIT_TEMPFAIL = 75  # of sysexits.h: a temporary failure, try again (here with --resume)
# Schedulers announce the end of a job's time by any of these (Slurm's --signal, Grid Engine's -notify, CPU limits);
# SIGHUP says that the terminal is gone. Windows has the first two.
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOP_SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
RESUME = "continue with --resume"
REPEAT_SECONDS = 3.0  # a SIGINT that comes later than this after the first request is a second Ctrl-C


class Interrupted(UserError):
    """A run that was asked to stop and has saved its state."""

    exit_status = EXIT_TEMPFAIL
    prefix = ""


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        signal: the signal that asked first, None before one came.
        remedy: what to do after a stop, for messages; it depends on the command.
    """

    def __init__(self, remedy: str = RESUME):
        self.remedy = remedy
        self.signal: signal.Signals | None = None
        self.time = 0.0
        self.raises = False

    def receive(self, number: int, frame) -> None:
        """Remember the first signal, as its handler; repeats change nothing, except for a second Ctrl-C."""
        if self.signal is None:
            self.signal = signal.Signals(number)
            self.time = time.monotonic()
            if self.raises:
                raise KeyboardInterrupt
        # One request arrives as several signals within milliseconds: a scheduler signals every process of a job, and
        # torchrun and make pass on what they get. Saving may hang on a dead disk: then Ctrl-C again ends the process.
        elif number == signal.SIGINT and time.monotonic() - self.time > REPEAT_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    @contextmanager
    def interruptible(self, doing: str) -> Iterator[None]:
        """Stop the block at once when a signal comes: there is nothing to be saved.

        Args:
            doing: when it was stopped and what is there, for the message, as in "before training".

        Raises:
            Interrupted: a signal came, perhaps before the block.
        """
        try:
            self.raises = True
            if self.signal is not None:
                raise KeyboardInterrupt
            # KeyboardInterrupt, which libraries know not to catch, unlike any other exception of ours.
            yield
        except KeyboardInterrupt:
            if self.signal is None:  # raised by something else
                raise
            raise Interrupted(f"stopped by {self.signal.name} {doing}; {self.remedy}") from None
        finally:
            self.raises = False

    def requested_on_any_rank(self, accelerator: Accelerator) -> bool:
        """Return, on all processes alike, whether any of them was asked to stop; every process must call this."""
        requested = self.signal is not None
        # One process alone has no other to ask, and on a GPU the reduction would wait for the device at every step.
        if accelerator.num_processes == 1:
            return requested
        count = accelerator.reduce(torch.tensor(float(requested), device=accelerator.device), "sum")
        return bool(count.item() > 0)


_active: StopRequest | None = None  # the request of the outermost `handle_signals`, which owns the handlers


@contextmanager
def handle_signals(ends_process: bool = False, remedy: str = RESUME) -> Iterator[StopRequest]:
    """Take `STOP_SIGNALS` as requests to stop until the block ends.

    A block within another one yields the outer one's request, so that no signal is lost between two stages. A request
    that nobody has answered by raising an exception is passed on, at the end, to the handler that was there before.
    In a thread other than the main one, as in a notebook's worker, nothing is handled. A signal that the process was
    started to ignore stays ignored: SIGHUP under nohup, SIGINT in the background of a shell script.

    Args:
        ends_process: whether the process ends after the block; then signals that repeat a request do not kill it.
        remedy: of the request; that of the outermost block counts.
    """
    global _active
    if _active is not None:
        yield _active
        return
    request = StopRequest(remedy)
    try:
        previous = {each: signal.signal(each, request.receive) for each in STOP_SIGNALS if not is_ignored(each)}
    except ValueError:  # not the main thread
        yield request
        return
    _active = request
    try:
        yield request
    finally:
        _active = None
        ignored = ends_process and request.signal is not None
        for each, handler in previous.items():
            if not ignored:
                signal.signal(each, handler)
            elif each != signal.SIGINT:  # which must end a process that hangs on its way out
                signal.signal(each, signal.SIG_IGN)
    if request.signal is not None and not ends_process:
        signal.raise_signal(request.signal)


def is_ignored(number: signal.Signals) -> bool:
    """Return whether this process ignores a signal, as whoever started it may have asked for."""
    return signal.getsignal(number) == signal.SIG_IGN
