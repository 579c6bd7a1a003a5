"""Checkpoints of a stage under way: Accelerate's state and our place in the run, written whole or not at all."""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator

STATE_FILE = "progress.json"


@dataclass
class Progress:
    """Where a stage stands.

    Attributes:
        step: steps done.
        minutes: wall time spent in training, over all the processes' lives.
        tokens: target tokens seen.
        loss: mean loss since the last log line, in nats a target token.
        history: [step, loss] of every log line.
    """

    step: int = 0
    minutes: float = 0.0
    tokens: int = 0
    loss: float = float("nan")
    history: list[list[float]] = field(default_factory=list)


def checkpoints_of(folder: Path, stage: str) -> list[Path]:
    """Return a stage's complete checkpoints, the oldest first."""
    found = [path for path in folder.glob(f"{stage}-*") if re.fullmatch(rf"{stage}-\d+", path.name)]
    return sorted((path for path in found if (path / STATE_FILE).is_file()), key=lambda path: path.name)


def save_checkpoint(accelerator: Accelerator, folder: Path, stage: str, progress: Progress, keep: int) -> Path:
    """Write `FOLDER/STAGE-STEP`, rename it into place when whole, and remove all but the newest `keep`.

    Every process must call this; the main one writes what is common.
    """
    final = folder / f"{stage}-{progress.step:08d}"
    partial = folder / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / STATE_FILE).write_text(json.dumps(asdict(progress)))
        if final.exists():  # the same step, saved before: the new one has the same contents
            shutil.rmtree(final)
        os.replace(partial, final)
        for old in checkpoints_of(folder, stage)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load_newest(accelerator: Accelerator, folder: Path, stage: str) -> Progress:
    """Load the stage's newest checkpoint into the prepared model and optimizers; a fresh Progress where none."""
    found = checkpoints_of(folder, stage)
    if not found:
        return Progress()
    accelerator.load_state(str(found[-1]))
    return Progress(**json.loads((found[-1] / STATE_FILE).read_text()))


def remove_checkpoints(accelerator: Accelerator, folder: Path, stage: str) -> None:
    """Remove the checkpoints of a stage whose finished model stands in its own folder."""
    if accelerator.is_main_process:
        for path in checkpoints_of(folder, stage):
            shutil.rmtree(path)
