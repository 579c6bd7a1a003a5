"""A run whose weights, gradients and optimizer state are sharded over processes (FSDP2)."""

import os

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from tests.running import (
    ASKED_BEFORE_STEP,
    SETTINGS,
    UNEVEN,
    call,
    command_line,
    finish,
    losses,
    patched,
    start,
    start_torchrun,
)

# Accelerate shards on accelerators alone: let it take the CPU processes for those.
SHARDED_ON_CPU = """
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
import training.stepper
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
original = training.stepper.optimizer_step
def step(model, *arguments):
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert all(2 * p.to_local().shape[0] == p.shape[0] for p in model.parameters())
    return original(model, *arguments)
training.stepper.optimizer_step = step
"""


def sharded():
    """Return the environment that `accelerate launch` gives its workers for the shipped settings."""
    file = SETTINGS / "several_gpus_sharded.yaml"
    options = launch_command_parser().parse_args(["--config_file", str(file), "--mixed_precision", "no", "train.py"])
    options, _, _ = _validate_launch_command(options)
    before = set(os.environ.items())
    return dict(set(prepare_multi_gpu_env(options).items()) - before)


def assert_same_weights(one, other, stage, tolerance):
    one, other = (load_file(folder / stage / "model.safetensors") for folder in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name] - other[name]).abs().max() < tolerance, name


def test_a_sharded_model_learns_what_a_whole_one_does(run, recipe, data, tmp_path):
    output = tmp_path / "r"
    result = finish(
        start_torchrun(
            command_line("all", recipe, data, output), program=patched(tmp_path, SHARDED_ON_CPU), **sharded()
        )
    )
    assert result.returncode == 0, result.stderr
    for stage in ("pretrain", "finetune", "no_pretraining"):
        assert losses(output, stage) == pytest.approx(losses(run, stage), abs=1e-4)
        assert_same_weights(output, run, stage, 1e-4)


def test_a_sharded_run_resumes_unsharded_and_an_unsharded_one_sharded(recipe, data, tmp_path):
    whole = tmp_path / "whole"
    output = tmp_path / "r"
    few = (*UNEVEN, "pretrain.steps=9")
    assert call("pretrain", recipe, data, whole, *few) == 0
    first = command_line("pretrain", recipe, data, output, *few)
    again = command_line("pretrain", recipe, data, output, *few, resume=True)
    asked = ASKED_BEFORE_STEP.format(3)
    stopped = finish(start_torchrun(first, program=patched(tmp_path, SHARDED_ON_CPU + asked), **sharded()))
    assert "stopped at step 3" in stopped.stderr
    assert finish(start(again, program=patched(tmp_path, asked))).returncode == 75
    assert finish(start_torchrun(again, program=patched(tmp_path, SHARDED_ON_CPU), **sharded())).returncode == 0
    assert losses(output) == pytest.approx(losses(whole), abs=1e-4)
