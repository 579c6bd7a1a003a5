"""Checkpoints of a stage under way: its state and our place in the run, written whole or not at all.

A checkpoint is written to a folder of another name, synced to the disk and renamed. Its manifest, written last, holds
the SHA-256 of every file; what does not agree with it is not gone on from.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from artifacts.run_folder import RunError
from training.state import TrainingState

STATE_FILE, MANIFEST = "progress.json", "manifest.json"


class CheckpointError(RunError):
    """A checkpoint that cannot be written or gone on from; the message is one line for the user."""


@dataclass
class Progress:
    """Where a stage stands.

    Attributes:
        step: steps done.
        minutes: wall time spent in training, over all the processes' lives.
        tokens: target tokens seen.
        loss: mean loss since the last log line, in nats a target token.
        history: [step, loss] of every log line.
        pending: the losses summed since the last log line, a number a process.
    """

    step: int = 0
    minutes: float = 0.0
    tokens: int = 0
    loss: float = float("nan")
    history: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)


def checkpoints_of(folder: Path, stage: str) -> list[Path]:
    """Return a stage's checkpoints, the oldest first, whole or not."""
    found = [path for path in folder.glob(f"{stage}-*") if re.fullmatch(rf"{stage}-\d+", path.name)]
    return sorted(found, key=lambda path: path.name)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder's files and sync all of it to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(folder)): digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def verify(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, None where every file is as it was written."""
    try:
        link = next((path for path in (checkpoint, *checkpoint.rglob("*")) if path.is_symlink()), None)
        if link is not None:  # what it leads to was not written here
            return f"{link.name} is a link"
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        found = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()} - {MANIFEST}
        if not isinstance(manifest, dict) or found != set(manifest):
            return f"{MANIFEST} does not list the files that are there"
        return next(
            (f"{name} is not as written" for name in manifest if digest(checkpoint / name) != manifest[name]), None
        )
    except (OSError, ValueError, RecursionError) as error:
        return f"{MANIFEST} cannot be read: {error}"


def latest_valid(folder: Path, stage: str) -> Path | None:
    """Return a stage's newest checkpoint that is as it was written; a warning names each newer one that is not."""
    for path in reversed(checkpoints_of(folder, stage)):
        fault = verify(path)
        if fault is None:
            return path
        warnings.warn(f"checkpoint {path} is skipped: {fault}", stacklevel=2)
    return None


def save_checkpoint(state: TrainingState, folder: Path, stage: str, progress: Progress, keep: int) -> Path:
    """Write `FOLDER/STAGE-STEP`, rename it into place when whole, and remove all but the newest `keep`.

    Every process must call this; the main one writes what is common.

    Raises:
        CheckpointError: it cannot be written, as on a full disk; those before it stay.
    """
    accelerator, final = state.accelerator, folder / f"{stage}-{progress.step:08d}"
    partial = folder / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        state.save(partial)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / STATE_FILE).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            write_manifest(partial)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk makes each library raise its own
        raise CheckpointError(describe_failure(partial, error)) from error
    if accelerator.is_main_process:
        if final.exists():  # the same step, saved before: the new one has the same contents
            shutil.rmtree(final)
        os.replace(partial, final)
        sync(folder)
        for old in checkpoints_of(folder, stage)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def describe_failure(partial: Path, error: Exception) -> str:
    """Clear a checkpoint that could not be written away; return why, what room it needs and what is left."""
    others = [path for path in partial.parent.glob("*-*") if (path / MANIFEST).is_file()]
    sizes = [sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in (partial, *others)]
    shutil.rmtree(partial, ignore_errors=True)
    free = shutil.disk_usage(partial.parent).free
    stays = f"{max(others, key=lambda path: path.stat().st_mtime)} stays" if others else "there is none before it"
    return (
        f"{partial.parent}: a checkpoint cannot be written: {' '.join(str(error).split())[:200]}; at least "
        f"{max(sizes) / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; {stays}"
    )


def load_newest(state: TrainingState, folder: Path, stage: str) -> tuple[Progress, Path | None]:
    """Load the stage's newest whole checkpoint, if there is one; return where the stage stands, and the checkpoint.

    Raises:
        CheckpointError: it is as it was written, but not of this stage, or nothing that a checkpoint may hold.
    """
    accelerator = state.accelerator
    chosen = [str(latest_valid(folder, stage) or "") if accelerator.is_main_process else None]
    broadcast_object_list(chosen)
    if not chosen[0]:
        return Progress(), None
    checkpoint = Path(chosen[0])
    accelerator.print(f"{stage}: going on from {checkpoint}")
    try:
        progress = read_progress(checkpoint)
        state.load(checkpoint)
    except Exception as error:  # each of the libraries raises its own
        told = str(error)[:300] or repr(error)
        raise CheckpointError(
            f"checkpoint {checkpoint} cannot be gone on from: {told}; remove it to go on from the one before it"
        ) from error
    return progress, checkpoint


def read_progress(checkpoint: Path) -> Progress:
    """Return a checkpoint's place in the run; ValueError or TypeError where its file holds something else."""
    progress = Progress(**json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")))
    numbers = [progress.minutes, *progress.pending, *(loss for _, loss in progress.history)]
    numbers += [progress.loss] if progress.history else []  # before the first log line it is NaN
    steps = [progress.step, progress.tokens, *(step for step, _ in progress.history)]
    if not all(type(step) is int and 0 <= step < 2**63 for step in steps):
        raise ValueError(f"{STATE_FILE} holds steps or tokens that are no whole numbers")
    if not all(type(number) in (int, float) and abs(number) < 1e30 for number in numbers) or progress.minutes < 0:
        raise ValueError(f"{STATE_FILE} holds minutes or losses that are no numbers")
    if not checkpoint.name.endswith(f"-{progress.step:08d}"):
        raise ValueError(f"{STATE_FILE} is of step {progress.step}")
    return progress


def remove_checkpoints(accelerator: Accelerator, folder: Path, stage: str) -> None:
    """Remove the checkpoints of a stage whose finished model stands in its own folder."""
    if accelerator.is_main_process:
        for path in checkpoints_of(folder, stage):
            shutil.rmtree(path)
