"""What the tests of runs, signals and disks share."""

import signal

SAVED = "pretrain/model.safetensors"
WRITTEN = {"pretrain": SAVED, "finetune": "finetune/model.safetensors", "evaluate": "predictions.dev.txt"}


def raise_signals(*numbers):
    """Return a function that sends this process signals, one right after the other."""
    return lambda: [signal.raise_signal(number) for number in numbers]


def checkpoint_names(output):
    return sorted(path.name for path in (output / "checkpoints").glob("*-*"))


def the_error(capfd) -> str:
    """Return the one line that says why a command has failed; there is no traceback beside it."""
    err = capfd.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line
