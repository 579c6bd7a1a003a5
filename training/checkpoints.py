"""Checkpoints of a stage in training: its state and its progress, written completely or not at all.

A checkpoint is written to a folder of another name, synced to the disk and renamed. Its manifest, written last, has
the SHA-256 of every file; a checkpoint that does not agree with its manifest is never resumed from.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError

from artifacts.files import folder_size, free_space, put_in_place, remove, sha256
from artifacts.run_folder import RunError
from configuration.errors import UserError
from modeling_minigpt.source_minigpt import reset_modes
from training.state import TrainingState

PROGRESS = "progress.json"
MANIFEST = "manifest.json"
LIMIT = 1e30  # minutes or nats: beyond any run, but finite

logger = get_logger(__name__)


class CheckpointError(RunError):
    """A checkpoint that cannot be written or resumed from; the message is one line for the user."""


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        step: steps done.
        minutes: wall time spent in training, over all the processes' lives.
        tokens: target tokens seen.
        loss: mean loss since the last log line, in nats per target token.
        history: [step, loss] of every log line.
        pending: the losses summed since the last log line, one number a process.
    """

    step: int = 0
    minutes: float = 0.0
    tokens: int = 0
    loss: float = float("nan")
    history: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)


def list_checkpoints(folder: Path, stage: str) -> list[Path]:
    """Return a stage's checkpoints, the oldest first, valid or not."""
    # The pattern alone would also take the folders of a stage whose name begins with this one's.
    found = [path for path in folder.glob(f"{stage}-*") if re.fullmatch(rf"{stage}-\d+", path.name)]
    return sorted(found, key=lambda path: path.name)  # steps have eight digits, so names sort as numbers


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(folder)): sha256(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    reset_modes(folder, like=MANIFEST)


def verify(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, None if every file is as it was written."""
    try:
        link = next((path for path in (checkpoint, *checkpoint.rglob("*")) if path.is_symlink()), None)
        if link is not None:  # its target was not written here, and may change later
            return f"{link.name} is a link"
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        found = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()} - {MANIFEST}
        # Compared before any file is opened: a manifest may name files outside the folder.
        if not isinstance(manifest, dict) or found != set(manifest):
            return f"{MANIFEST} does not list the files that are there"
        for name, expected in manifest.items():
            if sha256(checkpoint / name) != expected:
                return f"{name} is not as written"
    except (OSError, ValueError, RecursionError) as error:  # the last from JSON that is nested too deeply
        return f"{MANIFEST} cannot be read: {error}"
    return None


def latest_valid(folder: Path, stage: str) -> Path | None:
    """Return a stage's newest checkpoint that is as it was written; warn of each newer one that is not."""
    for path in reversed(list_checkpoints(folder, stage)):
        fault = verify(path)
        if fault is None:
            return path
        logger.warning(f"checkpoint {path} is skipped: {fault}")
    return None


def save_checkpoint(state: TrainingState, folder: Path, stage: str, progress: Progress, keep: int) -> Path:
    """Write `FOLDER/STAGE-STEP`, rename it into place when complete, and remove all but the newest `keep`.

    Every process must call this; the main one writes what is common.

    Raises:
        CheckpointError: it cannot be written, as on a full disk; those before it stay.
    """
    accelerator = state.accelerator
    final = folder / f"{stage}-{progress.step:08d}"
    # Starts with a dot and has no valid name: whatever a kill leaves of it is never taken for a checkpoint.
    partial = folder / f".{final.name}.partial"
    try:
        with writing(state, partial):
            if accelerator.is_main_process:
                remove(partial)
                partial.mkdir(parents=True)
        with writing(state, partial):
            state.save(partial)
        with writing(state, partial):
            if accelerator.is_main_process:
                (partial / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
                write_manifest(partial)  # of the files of all processes
                remove(final)  # the same step, saved before: the new one has the same contents
                put_in_place(partial, final)
                # Only now that the new one is on the disk: at every moment there is one to resume from.
                for old in list_checkpoints(folder, stage)[:-keep]:
                    shutil.rmtree(old, ignore_errors=True)
    except CheckpointError:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


@contextmanager
def failing_together(accelerator: Accelerator) -> Iterator[None]:
    """Wait for all processes after the block; where it has raised a UserError on one, raise one on every process."""
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    # Else the others would wait for a process that is gone, and report its absence instead of the reason.
    messages = [message for message in gather_object([failure and str(failure)]) if message]
    if failure is not None:
        raise failure
    if messages:
        raise CheckpointError(messages[0])


@contextmanager
def writing(state: TrainingState, partial: Path) -> Iterator[None]:
    """Write a part of a checkpoint; raise CheckpointError on every process where it fails on one."""
    with failing_together(state.accelerator), as_checkpoint_error(partial, state.size()):
        yield


@contextmanager
def as_checkpoint_error(partial: Path, size: int) -> Iterator[None]:
    """Raise what prevents the writing of a checkpoint as a CheckpointError: why, the space needed and left, in MB.

    Args:
        partial: the folder that it is written to.
        size: bytes that it has at least.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk makes each library raise its own
        folder = partial.parent
        others = [path for path in folder.glob("[!.]*-*") if (path / MANIFEST).is_file()]
        written = folder_size(partial)
        # Estimated from earlier checkpoints too, since this one is cut off at an unknown place.
        needed = max([size, written, *map(folder_size, others)])
        free = free_space(folder) + written  # which is removed
        previous = f"{max(others, key=modification_time)} stays" if others else "there is none before it"
        raise CheckpointError(
            f"{folder}: a checkpoint cannot be written: {' '.join(str(error).split())[:200]}; at least "
            f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; {previous}"
        ) from error


def modification_time(path: Path) -> float:
    """Return when a file or folder was last changed, 0 if it has vanished."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def load_latest(state: TrainingState, folder: Path, stage: str) -> tuple[Progress, Path | None]:
    """Load the stage's latest valid checkpoint, if there is one; every process must call this.

    Returns:
        The stage's progress, at step 0 without a checkpoint, and the checkpoint.

    Raises:
        CheckpointError: it is as it was written, but not of this stage, or contains something that no checkpoint may.
    """
    accelerator = state.accelerator
    # One process chooses for all: on a network disk they may not see the same files at the same time.
    chosen = [str(latest_valid(folder, stage) or "") if accelerator.is_main_process else None]
    broadcast_object_list(chosen)
    if not chosen[0]:
        return Progress(), None
    checkpoint = Path(chosen[0])
    logger.info(f"{stage}: resuming from {checkpoint}")
    try:
        progress = read_progress(checkpoint)
        state.load(checkpoint)
    except Exception as error:  # each of the libraries raises its own
        reason = str(error)[:300] or repr(error)
        raise CheckpointError(
            f"checkpoint {checkpoint} cannot be resumed from: {reason}; remove it to resume from the one before it"
        ) from error
    return progress, checkpoint


def read_progress(checkpoint: Path) -> Progress:
    """Read a checkpoint's progress; ValueError or TypeError where its file contains something else."""
    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))
    numbers = [progress.minutes, *progress.pending, *(loss for _, loss in progress.history)]
    numbers += [progress.loss] if progress.history else []  # before the first log line it is NaN
    steps = [progress.step, progress.tokens, *(step for step, _ in progress.history)]
    # `type`, not `isinstance`: true is an int, too. The comparisons are false for NaN and infinity.
    if not all(type(step) is int and 0 <= step < 2**63 for step in steps):
        raise ValueError(f"{PROGRESS} contains steps or tokens that are not whole numbers")
    if not all(type(number) in (int, float) and abs(number) < LIMIT for number in numbers) or progress.minutes < 0:
        raise ValueError(f"{PROGRESS} contains minutes or losses that are not numbers")
    if not checkpoint.name.endswith(f"-{progress.step:08d}"):
        raise ValueError(f"{PROGRESS} is of step {progress.step}")
    return progress


def remove_checkpoints(accelerator: Accelerator, folder: Path, stage: str) -> None:
    """Remove the checkpoints of a stage whose finished model is in its own folder."""
    if accelerator.is_main_process:
        for path in list_checkpoints(folder, stage):
            shutil.rmtree(path, ignore_errors=True)
