"""The errors that a user sees: one line each, whatever was in the input, and one way out of every command."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

MAX_LENGTH = 600  # characters of a message: a file's name, a key and some of what was found


def one_line(text: object) -> str:
    """Return a text on one line that every terminal and file can show, shortened in the middle if it is very long.

    White space becomes single spaces; characters that do not print, lone surrogates among them, are escaped.
    """
    line = " ".join(str(text).split())
    if len(line) > MAX_LENGTH:
        line = f"{line[: MAX_LENGTH - 200]} … {line[-190:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def show(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print a text, on stdout by default, as far as the stream can take it; a stream that is closed ends no command.

    Characters that its encoding does not have are escaped.
    """
    stream = stream or sys.stdout
    if stream is None:  # a program without a console
        return
    try:
        try:
            stream.write(text + end)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write((text + end).encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):  # whoever read it is gone, as in `| head`, or the terminal
        # Else what is still in its buffer would make the interpreter fail when it flushes it at the end.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class UserError(Exception):
    """A refusal that the user can act on; the base of every error that a command reports without a traceback.

    Attributes:
        exit_status: what the command's process returns.
        prefix: the text before the message.
    """

    exit_status = 2
    prefix = "error: "

    def __init__(self, message: object = ""):
        super().__init__(one_line(message))


def run_main(command: Callable[[], int | None], when_interrupted: str = "interrupted") -> int:
    """Run a command and return its exit status, 0 if it returns None; report a `UserError` as one line on stderr.

    Ctrl-C prints `when_interrupted` and returns 130, as shells do.
    """
    try:
        return command() or 0
    except UserError as error:
        show(f"{error.prefix}{error}", sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        show(when_interrupted, sys.stderr)
        return 130
