"""Checkpoints that were tampered with, some with a manifest that agrees: resumed from, skipped, or one line."""

import json
import math
import pickle
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.cases import NAMES_OUTSIDE, assert_one_line, cases, json_values, paths_of, quickly, replaced
from tests.tampering import Thief, rewrite_manifest, tiny_state
from training import checkpoints
from training.checkpoints import (
    MANIFEST,
    CheckpointError,
    Progress,
    load_latest,
    save_checkpoint,
    verify,
)
from training.state import TrainingState

STAGE = "pretrain"


@pytest.fixture(scope="module")
def state() -> TrainingState:
    return tiny_state()


@pytest.fixture(scope="module")
def whole(state, tmp_path_factory) -> Path:
    """Return a whole checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    progress = Progress(step=4, minutes=0.5, tokens=70, loss=2.5, history=[[2, 3.0], [4, 2.5]], pending=[])
    return save_checkpoint(state, folder, STAGE, progress, 1)


@pytest.fixture
def checkpoint(whole, tmp_path) -> Path:
    """Return the place of a copy of the whole checkpoint; `fresh` makes it anew."""
    return tmp_path / "checkpoints" / whole.name


def fresh(whole: Path, checkpoint: Path) -> Path:
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return shutil.copytree(whole, checkpoint)


def resume(state: TrainingState, folder: Path) -> Progress | None:
    """Resume from the latest checkpoint: its progress, at step 0 after a warning, or None after one line."""
    try:
        with quickly(), patch.object(checkpoints.logger, "warning") as warning:
            progress, _ = load_latest(state, folder, STAGE)
    except CheckpointError as error:
        assert_one_line(error, naming=str(folder))
        return None
    skipped = [call.args[0] for call in warning.call_args_list if " is skipped: " in call.args[0]]
    assert progress.step == (0 if skipped else 4)
    if progress.step:
        assert 0 <= progress.minutes < math.inf
        assert all(math.isfinite(loss) for _, loss in progress.history)
        assert all(weight.isfinite().all() for weight in state.model.parameters())
    return progress


def test_the_checkpoint_that_is_tampered_with_is_whole(state, whole, checkpoint):
    assert resume(state, fresh(whole, checkpoint).parent).step == 4


@cases(120)
@given(data=st.data(), value=json_values, sealed=st.booleans())
def test_one_other_value_in_progress(state, whole, checkpoint, data, value, sealed):
    path = fresh(whole, checkpoint) / "progress.json"
    values = json.loads(path.read_text())
    place = data.draw(st.sampled_from([(), *paths_of(values), ("new",)]))
    path.write_text(json.dumps(replaced(values, place, value) if place else value))
    if sealed:
        rewrite_manifest(checkpoint)
    resume(state, checkpoint.parent)


@cases(120)
@given(data=st.data(), value=json_values, name=st.sampled_from(NAMES_OUTSIDE[:5]) | st.none())
def test_a_manifest_of_other_files_is_skipped_and_nothing_else_is_read(state, whole, checkpoint, data, value, name):
    path = fresh(whole, checkpoint) / MANIFEST
    values = json.loads(path.read_text())
    place = data.draw(st.sampled_from([(), *paths_of(values)]))
    if name is not None:
        values[name] = "0" * 64
    elif place == () or values[place[0]] != value:
        values = replaced(values, place, value) if place else value
    path.write_text(json.dumps(values))
    assert verify(checkpoint)
    assert resume(state, checkpoint.parent).step == 0


FILES = ["model.safetensors", "optimizer.safetensors", "random_0.safetensors"]


@cases(60)
@given(
    name=st.sampled_from(FILES),
    content=st.sampled_from(["thief", "torch", "bare"]) | st.binary(max_size=30) | json_values,
)
def test_no_pickle_of_a_sealed_checkpoint_is_run(state, whole, checkpoint, tmp_path, name, content):
    path, mark = fresh(whole, checkpoint) / name, tmp_path / "mark"
    if content == "bare":
        path.write_bytes(pickle.dumps(Thief(mark)))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"random_state": Thief(mark)} if content in ("thief", "torch") else content, path)
    rewrite_manifest(checkpoint)
    assert verify(checkpoint) is None
    assert resume(state, checkpoint.parent) is None
    assert not mark.exists()


@cases(60)
@given(data=st.data(), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_bytes_lost_from_a_sealed_checkpoint(state, whole, checkpoint, data, place, byte, cut):
    names = sorted(path.name for path in fresh(whole, checkpoint).iterdir() if path.name != MANIFEST)
    path = checkpoint / data.draw(st.sampled_from(names))
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at : len(content) if cut else at + 1] = b"" if cut else bytes([byte])
    path.write_bytes(content)
    rewrite_manifest(checkpoint)
    resume(state, checkpoint.parent)
