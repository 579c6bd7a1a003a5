"""One run on several processes and machines, under the launchers and their shipped settings."""

import socket
import time

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from artifacts.run_folder import RunFolder
from data_scripts.bios_folder import FILES, read_lines
from tests.running import (
    ASKED_BEFORE_STEP,
    ROOT,
    SETTINGS,
    TORCHRUN,
    UNEVEN,
    call,
    command_line,
    finish,
    free_port,
    launcher,
    losses,
    patched,
    start,
    start_torchrun,
)

LATE_FOR_STEP_TWO = """
import os, time
from data_scripts.batches import TrainingBatches
original = TrainingBatches.rows
def rows(self, step, own=None):
    if step == 1 and os.environ["RANK"] == "1":
        time.sleep(9)
    return original(self, step, own)
TrainingBatches.rows = rows
"""


@pytest.fixture(scope="module")
def uneven(recipe, data, tmp_path_factory):
    """Return a finished pretraining of uneven batches in one process."""
    output = tmp_path_factory.mktemp("uneven") / "one"
    assert call("pretrain", recipe, data, output, *UNEVEN) == 0
    return output


def test_accelerate_launch_runs_the_same_program(run, recipe, data, tmp_path):
    result = finish(start(command_line("pretrain", recipe, data, tmp_path / "r"), launcher("cpu")))
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "r") == pytest.approx(losses(run), abs=1e-4)


def test_two_processes_have_the_losses_of_one_over_fifty_uneven_accumulated_steps(uneven, recipe, data, tmp_path):
    output = tmp_path / "two"
    result = finish(start_torchrun(command_line("pretrain", recipe, data, output, *UNEVEN)))
    assert result.returncode == 0, result.stderr
    one, two = (RunFolder(folder).training_record("pretrain") for folder in (uneven, output))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["tokens"] == one["tokens"]
    assert len(losses(output)) == 50
    assert losses(output) == pytest.approx(losses(uneven), abs=1e-4)


@pytest.mark.parametrize("world", [2, 3])
def test_loader_workers_have_the_losses_of_one_process_without(world, uneven, recipe, data, tmp_path):
    words = command_line("pretrain", recipe, data, tmp_path / "r", *UNEVEN, "run.loader_workers=2")
    result = finish(start_torchrun(words, "--nproc_per_node", str(world)))
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "r") == pytest.approx(losses(uneven), abs=1e-4)


def test_a_process_that_does_not_come_ends_the_run_after_the_recipes_minutes(recipe, data, tmp_path):
    words = command_line("pretrain", recipe, data, tmp_path / "r", "run.timeout_minutes=0.05")
    result = finish(start_torchrun(words, program=patched(tmp_path, LATE_FOR_STEP_TWO)))
    assert result.returncode != 0
    assert "error: another process did not come within 0.05 minutes (run.timeout_minutes)" in result.stderr


def test_a_run_goes_from_one_process_to_two_and_back_on_the_same_curve(uneven, recipe, data, tmp_path):
    output = tmp_path / "r"
    first = command_line("pretrain", recipe, data, output, *UNEVEN)
    again = command_line("pretrain", recipe, data, output, *UNEVEN, resume=True)
    stopping = patched(tmp_path, ASKED_BEFORE_STEP.format(15))
    assert finish(start(first, program=stopping)).returncode == 75
    stopped = finish(start_torchrun(again, program=stopping))
    assert "stopped at step 30 of pretrain" in stopped.stderr
    assert finish(start(again)).returncode == 0
    record = RunFolder(output).training_record("pretrain")
    assert [step for step, _ in record["history"]] == list(range(1, 51))
    assert record["tokens"] == RunFolder(uneven).training_record("pretrain")["tokens"]
    assert losses(output) == pytest.approx(losses(uneven), abs=1e-4)


def test_two_processes_score_every_question_once_and_publish_once(run, recipe, data, tmp_path, hub):
    output = tmp_path / "r"
    home = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    words = [*command_line("all", recipe, data, output), "--push_to_hub", "somebody/model"]
    torchrun = ("-m", "torch.distributed.run", *TORCHRUN)  # a new interpreter, which reads the address at import
    result = finish(start(words, torchrun, **home))
    assert result.returncode == 0, result.stderr
    assert RunFolder(output).training_record("pretrain")["processes"] == 2
    questions = read_lines(data / FILES["validation"])
    assert len(read_lines(output / "predictions.dev.txt")) == len(questions)
    assert f"{len(questions)} dev questions" in result.stdout
    assert result.stdout.count("dev questions") == 1
    assert hub.commits("somebody/model") == 1
    assert [request for request in hub.requests if "repos/create" in request] == ["POST /api/repos/create"] * 2


def test_several_processes_on_the_cpu_have_the_losses_of_one(run, recipe, data, tmp_path):
    words = command_line("pretrain", recipe, data, tmp_path / "r")
    result = finish(start(words, launcher("several_cpus", "--main_process_port", "0")))
    assert result.returncode == 0, result.stderr
    assert RunFolder(tmp_path / "r").training_record("pretrain")["processes"] == 2
    assert losses(tmp_path / "r") == pytest.approx(losses(run), abs=1e-4)


def test_two_machines_find_each_other_by_the_rendezvous(run, recipe, data, tmp_path):
    port = free_port()
    here = ("--main_process_ip", "127.0.0.1", "--main_process_port", str(port), "--rdzv_backend", "c10d")
    sizes = ("--num_machines", "2", "--num_processes", "2", "--mixed_precision", "no", "--max_restarts", "1")
    words = command_line("pretrain", recipe, data, tmp_path / "r", resume=True)
    machines = []
    for rank in "01":
        launch = launcher("several_machines", *here, *sizes, "--machine_rank", rank)
        machines.append(start(words, launch, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
        wait_for_port(port)
    for machine in machines:
        result = finish(machine)
        assert result.returncode == 0, result.stderr
    assert RunFolder(tmp_path / "r").training_record("pretrain")["processes"] == 2
    assert losses(tmp_path / "r") == pytest.approx(losses(run), abs=1e-4)


def wait_for_port(port):
    """Wait until somebody listens there."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port}")


@pytest.mark.parametrize("path", sorted(SETTINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_settings_are_what_accelerate_launch_understands(path):
    options = launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    options, settings, _ = _validate_launch_command(options)
    assert settings is not None
    assert f"configuration/accelerate/{path.name}" in (ROOT / "docs" / "training.md").read_text()
    wanted = {
        "cpu": {"use_cpu": True, "num_processes": 1},
        "several_cpus": {"multi_gpu": True, "use_cpu": True, "cpu": False, "num_processes": 2},
        "one_gpu": {"use_cpu": False, "num_processes": 1, "mixed_precision": "bf16"},
        "several_gpus": {"multi_gpu": True, "mixed_precision": "bf16"},
        "several_gpus_sharded": {"use_fsdp": True, "fsdp_version": 2, "fsdp_state_dict_type": "FULL_STATE_DICT"},
        "several_machines": {"multi_gpu": True, "num_machines": 2, "use_deepspeed": False},
    }[path.stem]
    assert {name: getattr(options, name) for name in wanted} == wanted
