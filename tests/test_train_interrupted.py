"""Runs that die, hang or are asked to stop, and resume to the same model."""

import re

import pytest
from safetensors.torch import load_file

from artifacts.run_folder import RunFolder
from tests.running import call, command_line, finish, patched, start, start_torchrun

OFTEN = ("run.log_steps=2", "run.checkpoint_minutes=1e-9")

KILLED_AFTER_SAVING = """
import os
import training.loop
original = training.loop.save_checkpoint
def save_and_die(*arguments):
    original(*arguments)
    os.kill(os.getpid(), 9)
training.loop.save_checkpoint = save_and_die
"""

ASKED_IN_THE_FIRST_STEP = """
import signal
import training.stepper
original = training.stepper.optimizer_step
def step_and_be_asked(*arguments):
    signal.raise_signal(signal.{})
    return original(*arguments)
training.stepper.optimizer_step = step_and_be_asked
"""

STALLED_AT_STEP_FIVE = """
import time
from data_scripts.batches import TrainingBatches
original = TrainingBatches.rows
def rows(self, step, own=None):
    if step == 4:
        time.sleep(600)
    return original(self, step, own)
TrainingBatches.rows = rows
"""

SECOND_WORKER_KILLED_ONCE = """
import os
import training.stepper
original = training.stepper.optimizer_step
steps = []
def step_or_die(*arguments):
    steps.append(1)
    if len(steps) == 4 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), 9)
    return original(*arguments)
training.stepper.optimizer_step = step_or_die
"""


def test_a_run_killed_by_the_kernel_resumes_to_the_same_model(run, recipe, data, tmp_path):
    output = tmp_path / "killed"
    words = command_line("all", recipe, data, output, *OFTEN)
    assert finish(start(words, program=patched(tmp_path, KILLED_AFTER_SAVING))).returncode == -9
    assert not (output / "pretrain").exists()
    assert call("all", recipe, data, output, resume=True) == 0
    assert_same_models(output, run)


def test_a_run_of_compiled_blocks_in_bfloat16_resumes_to_the_same_model(recipe, data, tmp_path):
    settings = (
        "run.compile=true",
        'run.mixed_precision="bf16"',
        "pretrain.muon_bfloat16=true",
        "model.attention_type=[vanilla, bigbird]",
        "pretrain.steps=60",
        "run.log_steps=30",
        OFTEN[1],
    )
    words = command_line("pretrain", recipe, data, tmp_path / "whole", *settings)
    assert finish(start(words)).returncode == 0
    output = tmp_path / "killed"
    words = command_line("pretrain", recipe, data, output, *settings)
    assert finish(start(words, program=patched(tmp_path, KILLED_AFTER_SAVING))).returncode == -9
    assert finish(start([*words, "--resume"])).returncode == 0
    one, other = (folder / "pretrain" / "model.safetensors" for folder in (output, tmp_path / "whole"))
    assert one.read_bytes() == other.read_bytes()


def assert_same_models(one, other):
    for stage in ("pretrain", "finetune"):
        name = f"{stage}/model.safetensors"
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_that_is_asked_to_stop_exits_with_a_status_of_its_own_and_resumes(run, recipe, data, tmp_path, name):
    output = tmp_path / "stopped"
    words = command_line("all", recipe, data, output)
    stopped = finish(start(words, program=patched(tmp_path, ASKED_IN_THE_FIRST_STEP.format(name))))
    assert stopped.returncode == 75, stopped.stderr
    assert "stopped at step 1 of pretrain" in stopped.stderr.splitlines()[-1]
    assert call("all", recipe, data, output, resume=True) == 0
    assert_same_models(output, run)


def test_a_second_run_in_one_folder_is_refused(recipe, data, tmp_path, capsys):
    with RunFolder(tmp_path / "run").lock():
        assert call("pretrain", recipe, data, tmp_path / "run") == 2
    assert "another run is using this folder" in capsys.readouterr().err
    assert call("pretrain", recipe, data, tmp_path / "run") == 0


def test_a_loader_that_hangs_ends_the_run_which_names_what_it_waited_for(run, recipe, data, tmp_path):
    output = tmp_path / "stalled"
    words = command_line("pretrain", recipe, data, output, *OFTEN, "run.stall_minutes=0.05")
    stalled = finish(start(words, program=patched(tmp_path, STALLED_AT_STEP_FIVE)))
    assert stalled.returncode == 2
    assert re.fullmatch(
        r"error: no batch came in 0\.05 minutes for step 5 of pretrain "
        r"\((document \d+, ){7}document \d+ and \d+ more\); "
        r"the last good checkpoint is \S*pretrain-00000004; continue from there with --resume",
        stalled.stderr.splitlines()[-1],
    )
    assert call("pretrain", recipe, data, output, resume=True) == 0
    name = "pretrain/model.safetensors"
    assert (output / name).read_bytes() == (run / name).read_bytes()


def test_a_worker_that_hangs_ends_the_run_too(run, recipe, data, tmp_path):
    output = tmp_path / "stalled"
    words = command_line("pretrain", recipe, data, output, *OFTEN, "run.stall_minutes=0.05", "run.loader_workers=1")
    stalled = finish(start(words, program=patched(tmp_path, STALLED_AT_STEP_FIVE)))
    assert stalled.returncode == 2
    # A worker makes a pool's batches together, here all of them.
    assert "error: no batch came in 0.05 minutes for step 1 of pretrain" in stalled.stderr
    assert call("pretrain", recipe, data, output, "run.loader_workers=1", resume=True) == 0
    name = "pretrain/model.safetensors"
    assert (output / name).read_bytes() == (run / name).read_bytes()


def test_after_a_worker_has_died_torchrun_restarts_all_from_the_newest_checkpoint(recipe, data, tmp_path):
    unharmed = tmp_path / "unharmed"
    harmed = tmp_path / "harmed"
    words = command_line("pretrain", recipe, data, unharmed, *OFTEN)
    assert finish(start_torchrun(words)).returncode == 0
    words = command_line("pretrain", recipe, data, harmed, *OFTEN)
    program = patched(tmp_path, SECOND_WORKER_KILLED_ONCE)
    restarts = ("--max-restarts", "1")
    result = finish(start_torchrun(words, *restarts, program=program, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
    assert result.returncode == 0, result.stderr
    assert re.search(r"resuming from \S*pretrain-00000003", result.stderr)  # within a logging interval
    one, other = (RunFolder(folder).training_record("pretrain") for folder in (unharmed, harmed))
    assert one["history"] == other["history"]
    one, other = (load_file(folder / "pretrain" / "model.safetensors") for folder in (unharmed, harmed))
    assert all(one[name].equal(other[name]) for name in one)
