"""The streams of a command: closed perhaps, a pipe whose reader has left, or of an encoding without most letters."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from .cli_models_minigpt import CommandError

BROKEN_PIPE = 141  # the exit status of a command whose reader has left, as shells report SIGPIPE


def prepare_streams() -> None:
    """Give a command an output and an error stream that take any text."""
    # Python has None for a stream that was closed: `print` to it writes to stdout, and a table cannot be written.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard what is still in the buffer of stdout: the interpreter would fail when it flushes it at the end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def report_error(error: object) -> None:
    """Write an error as one line on stderr, if anybody reads it."""
    with suppress(OSError):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def to_json(value: dict) -> str:
    """Return an object as JSON in characters that stdout can write."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)  # \u00e9; the \xe9 that replaces it in a plain text is no JSON
    return text


def check_stdin() -> None:
    """Raise CommandError where there is no stdin to read."""
    if sys.stdin is None:
        raise CommandError("stdin is closed: wanted names, or --file FILE")


def read_stdin() -> Iterator[str]:
    """Yield the lines of stdin without empty ones; ask a person for each, until an empty line.

    Raises:
        CommandError: it cannot be read.
    """
    is_prompt = sys.stdin.isatty()
    while True:
        if is_prompt:
            # stdout may be a file or a pipe, in which a prompt is no answer.
            print("name or question> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"stdin: cannot be read: {error}") from error
        name = line.strip()
        if name:
            yield name
        elif is_prompt or not line:
            break
    if is_prompt and not line:
        print(file=sys.stderr)
