"""The job file for Slurm, under commands of the tests' own in place of Slurm's: stopped, queued again, continued."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from artifacts.run_folder import RunFolder
from tests.outside.helpers import checkpoint_names, the_error
from tests.running import ROOT, call, command_line

JOB = ROOT / "configuration" / "slurm" / "train.sbatch"
# Runs the command once for each node and has the highest exit status; kills all of them at a SIGTERM, as srun does.
SRUN = """#!{python}
import os, signal, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
count = os.environ["SLURM_NNODES"]
nodes = [
    subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(node), "SLURM_STEP_NUM_TASKS": count}})
    for node in range(int(count))
]
with open(os.environ["SRUN_PIDS"], "w") as file:
    file.write(" ".join(str(node.pid) for node in nodes))
signal.signal(signal.SIGTERM, lambda number, frame: [node.kill() for node in nodes])
statuses = [node.wait() for node in nodes]
sys.exit(max(status % 256 for status in statuses))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo 127.0.0.1; echo 127.0.0.2; else echo "$@" >> "$SCONTROL_LOG"; fi
"""
# Signals the tasks of the job's steps, and not its shell, as scancel does without --batch.
SCANCEL = """#!/bin/sh
[ "$1" = --signal=TERM ] && [ "$2" = "$SLURM_JOB_ID" ] && kill -TERM $(cat "$SRUN_PIDS")
"""
# Stands for torchrun: ends with the status that it is given.
STATUS = """#!/bin/sh
exit "$TORCHRUN_STATUS"
"""


@pytest.fixture
def submit(tmp_path):
    """Return a function that starts the job with some words, nodes and settings; its `scontrol` writes to a file."""
    commands = tmp_path / "bin"
    commands.mkdir()

    def write(name, text):
        (commands / name).write_text(text.format(python=sys.executable) if name == "srun" else text)
        (commands / name).chmod(0o755)

    write("srun", SRUN)
    write("scontrol", SCONTROL)
    write("scancel", SCANCEL)

    def start(*words, nodes=2, **settings):
        if "TORCHRUN_STATUS" in settings:
            write("torchrun", STATUS)
        environment = {
            **os.environ,
            "PATH": f"{commands}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(os.getpid()),  # so that its port is nobody else's
            "SLURM_NNODES": str(nodes),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SCONTROL_LOG": str(tmp_path / "scontrol.log"),
            "SRUN_PIDS": str(tmp_path / "pids"),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            **settings,
        }
        log = (tmp_path / "job.log").open("a")
        return subprocess.Popen(["bash", str(JOB), *words], env=environment, stdout=log, stderr=log)

    return start


def wait_until(condition, process, seconds=180):
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_whose_time_is_over_is_saved_queued_again_and_continued(submit, recipe, data, tmp_path):
    output = tmp_path / "r"
    settings = ("pretrain.steps=400", "run.log_steps=10", "run.checkpoint_minutes=1e-9")
    words = command_line("pretrain", recipe, data, output, *settings)
    job = submit(*words)
    wait_until(lambda: checkpoint_names(output), job)
    job.send_signal(signal.SIGTERM)  # as --signal=B:TERM@120 does: the batch shell alone
    assert job.wait(180) == 75
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {os.getpid()}\n"
    log = (tmp_path / "job.log").read_text()
    stopped = int(re.search(r"stopped at step (\d+) of pretrain", log)[1])
    assert checkpoint_names(output)[-1] == f"pretrain-{stopped:08}"
    assert not RunFolder(output).finished("pretrain")
    assert submit(*words, SLURM_RESTART_COUNT="1").wait(300) == 0
    assert "resuming from" in (tmp_path / "job.log").read_text().removeprefix(log)
    record = RunFolder(output).training_record("pretrain")
    assert (record["processes"], record["history"][-1][0]) == (2, 400)
    assert (tmp_path / "scontrol.log").read_text().count("requeue") == 1


@pytest.mark.parametrize(("status", "queued"), [("75", True), ("0", False), ("2", False)])
def test_only_a_run_that_can_be_resumed_is_queued_again(submit, tmp_path, status, queued):
    assert submit(nodes=1, TORCHRUN_STATUS=status).wait(60) == int(status)
    assert (tmp_path / "scontrol.log").exists() == queued


def test_tasks_of_srun_that_do_not_know_each_other_are_refused(recipe, data, tmp_path, monkeypatch, capfd):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert call("pretrain", recipe, data, tmp_path / "r") == 2
    assert "srun has started 2 tasks" in the_error(capfd)
    assert not (tmp_path / "r").exists()
