"""Checkpoints whose manifest agrees with their files, but from which no stage can resume."""

import json
import math
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tampering import Thief, rewrite_manifest, tiny_state
from training.checkpoints import MANIFEST, CheckpointError, Progress, load_latest, save_checkpoint, sha256, verify


@pytest.fixture
def state():
    return tiny_state()


@pytest.fixture
def checkpoint(state, tmp_path):
    progress = Progress(step=4, minutes=0.5, tokens=70, loss=2.5, history=[[4, 2.5]])
    return save_checkpoint(state, tmp_path, "pretrain", progress, 1)


def set_progress(**changes):
    def change(checkpoint, mark):
        path = checkpoint / "progress.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def set_tensors(name, **changes):
    def change(checkpoint, mark):
        save_file({**load_file(checkpoint / name), **changes}, checkpoint / name)

    return change


def steal(name):
    return lambda checkpoint, mark: (checkpoint / name).write_bytes(pickle.dumps(Thief(mark)))


MOMENTUM = "model.layers.0.self_attn.q_proj.weight.momentum_buffer"
TAMPERING = {
    "step": (set_progress(step=5), "progress.json is of step 5"),
    "text as step": (set_progress(step="4"), "steps or tokens that are not whole numbers"),
    "minutes": (set_progress(minutes=float("nan")), "minutes or losses that are not numbers"),
    "history": (set_progress(history=[[4, None]]), "minutes or losses that are not numbers"),
    "unknown key": (set_progress(new=1), "unexpected keyword argument 'new'"),
    "random states": (set_tensors("random_0.safetensors", cpu=torch.zeros(3, dtype=torch.uint8)), "RNG state"),
    "no random states": (lambda path, mark: (path / "random_0.safetensors").unlink(), "random_0.safetensors"),
    "pickled random states": (steal("random_0.safetensors"), "header"),
    "pickled optimizer": (steal("optimizer.safetensors"), "header"),
    "foreign tensor": (
        set_tensors("optimizer.safetensors", **{"a.b": torch.zeros(1)}),
        "contains a.b, float32 of (1,)",
    ),
    "another shape": (set_tensors("optimizer.safetensors", **{MOMENTUM: torch.zeros(2, 2)}), "float32 of (2, 2)"),
    "other weights": (set_tensors("model.safetensors", **{"lm_head.weight": torch.zeros(2, 8)}), "size mismatch"),
    "no numbers": (
        set_tensors("model.safetensors", **{"model.norm.weight": torch.full((8,), math.nan)}),
        "not finite",
    ),
    "momentum": (set_tensors("optimizer.safetensors", **{MOMENTUM: torch.full((8, 8), math.inf)}), "not finite"),
    "weights": (lambda path, mark: (path / "model.safetensors").write_bytes(b"x"), "cannot be resumed from"),
}


@pytest.mark.parametrize(("tamper", "wanted"), TAMPERING.values(), ids=TAMPERING)
def test_a_consistent_checkpoint_that_cannot_be_resumed_from_is_one_line(state, checkpoint, tamper, wanted):
    mark = checkpoint.parent / "mark"
    tamper(checkpoint, mark)
    rewrite_manifest(checkpoint)
    assert verify(checkpoint) is None
    with pytest.raises(CheckpointError) as caught:
        load_latest(state, checkpoint.parent, "pretrain")
    assert str(caught.value).startswith(f"checkpoint {checkpoint} cannot be resumed from: ")
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_link_in_a_checkpoint_is_a_fault(checkpoint, tmp_path):
    (checkpoint / "progress.json").rename(tmp_path / "elsewhere.json")
    (checkpoint / "progress.json").symlink_to(tmp_path / "elsewhere.json")
    assert sha256(checkpoint / "progress.json") == json.loads((checkpoint / MANIFEST).read_text())["progress.json"]
    assert verify(checkpoint) == "progress.json is a link"


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd"])
def test_a_manifest_that_names_files_outside_is_a_fault(checkpoint, name):
    (checkpoint.parent / "elsewhere").write_text("x")
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps({**manifest, name: "0" * 64}))
    assert verify(checkpoint) == "manifest.json does not list the files that are there"


def test_a_manifest_nested_too_deeply_is_a_fault(checkpoint):
    (checkpoint / MANIFEST).write_text("[" * 100_000)
    assert "manifest.json cannot be read" in verify(checkpoint)
