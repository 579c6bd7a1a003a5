"""Log lines on the console: `warning: …` on stderr, beside the progress bars, from the main process alone.

Where stderr is a file or a pipe there are no bars, whose carriage returns would make one line of a whole training, but
plain lines now and then.

Modules log through `accelerate.logging.get_logger(__name__)`, which drops the lines of all processes but the first.
"""

import logging
import sys
from contextlib import AbstractContextManager

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

PACKAGES = ("artifacts", "configuration", "data_scripts", "evaluation", "hub", "training")  # whose log lines are shown
RANK_PREFIX = "[RANK 0] "  # which newer versions of Accelerate add, though no other process logs


class ConsoleFormatter(logging.Formatter):
    """Format a record as errors are reported, `warning: MESSAGE`; information has no prefix."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record).removeprefix(RANK_PREFIX)
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


def configure_logging(level: int = logging.INFO) -> None:
    """Show the project's log lines on stderr; every entry point calls this once.

    The root logger keeps its settings: at this level the Hub's HTTP client would log each request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(ConsoleFormatter())
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]  # not added to: a second call in one process would repeat every line
        logger.setLevel(level)


def draws_bars() -> bool:
    """Return whether a progress bar can be drawn: on a terminal, or in a notebook."""
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    return in_notebook or sys.stderr.isatty()


def format_duration(seconds: float) -> str:
    """Write a duration as people say it: `50 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressBar(tqdm):
    """A progress bar that stops where nobody reads it any more, as after `2>&1 | head`; training goes on."""

    def __init__(self, *arguments, **settings):
        try:
            super().__init__(*arguments, **settings)
        except (OSError, ValueError):
            super().__init__(*arguments, **{**settings, "disable": True})

    def display(self, *arguments, **settings):
        try:
            return super().display(*arguments, **settings)
        except (OSError, ValueError):
            self.disable = True

    def close(self):
        try:
            super().close()
        except (OSError, ValueError):
            self.disable = True


def log_above_bars() -> AbstractContextManager[None]:
    """Return a context in which log lines are written above a progress bar instead of into it."""
    return logging_redirect_tqdm([logging.getLogger(name) for name in PACKAGES])
