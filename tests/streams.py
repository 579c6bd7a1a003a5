"""A command in a process of its own whose streams are closed, unread or of an encoding without most letters."""

import io
import multiprocessing
import os
import sys
from pathlib import Path

import torch

from modeling_minigpt import cli_minigpt

STREAMS = ("closed-stdin", "closed-stdout", "unread", "ascii")


def open_as_python(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Return a stream as the interpreter opens it."""
    return io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding, line_buffering=False)


def run_with_streams(words: list[str], streams: str, out: str, err: str) -> None:
    """Run `minigpt` and end the process as the interpreter does."""
    torch.set_num_threads(1)
    os.dup2(os.open(out, os.O_WRONLY), 1)
    os.dup2(os.open(err, os.O_WRONLY), 2)
    sys.stderr = open_as_python(2)
    sys.stdin = io.StringIO()
    if streams == "unread":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    sys.stdout = open_as_python(1, "ascii" if streams == "ascii" else "utf-8")
    if streams == "closed-stdin":
        os.close(0)
        sys.stdin = None
    elif streams == "closed-stdout":
        os.close(1)
        sys.stdout = None
    status = 1
    try:
        status = cli_minigpt.main(words)
    except SystemExit as exit:
        status = exit.code or 0
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored: {error!r}", file=sys.stderr)
        status = 120
    sys.stderr.flush()
    os._exit(status)


def minigpt_with_streams(words: list[str], streams: str, folder: Path) -> tuple[int, str, str]:
    """Return the exit status of `minigpt`, and what it wrote."""
    out = folder / "out"
    err = folder / "err"
    for path in (out, err):
        path.write_text("")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.runner", "hub.publish_model"])  # those of `tests.running`
    process = context.Process(target=run_with_streams, args=(words, streams, str(out), str(err)))
    process.start()
    process.join(120)
    return process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
