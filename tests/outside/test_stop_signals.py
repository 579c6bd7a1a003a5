"""Runs that are asked to stop: by what, how often, and when."""

import importlib
import os
import shutil
import signal
import threading
import time

import pytest

import train
from tests.outside.helpers import WRITTEN, checkpoint_names, raise_signals
from tests.running import call, command_line, finish, patched, start, start_torchrun
from training import interruption, stepper
from training.interruption import STOP_SIGNALS, handle_signals

pytestmark = pytest.mark.usefixtures("plain_signals")


REQUESTS = {
    "SIGTERM twice": [signal.SIGTERM] * 2,
    "SIGINT twice": [signal.SIGINT] * 2,
    "SIGTERM, SIGINT": [signal.SIGTERM, signal.SIGINT],
    **{each.name: [each] for each in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)},
}


@pytest.mark.row("T3")
@pytest.mark.parametrize("numbers", REQUESTS.values(), ids=REQUESTS)
def test_signals_that_repeat_one_request_leave_a_checkpoint(recipe, data, tmp_path, before_call, capfd, numbers):
    before_call(stepper, "set_learning_rates", raise_signals(*numbers), number=3)
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    assert call("pretrain", recipe, data, tmp_path / "r") == 75
    assert capfd.readouterr().err.splitlines()[-1].startswith("stopped at step 3 of pretrain, saved in ")
    assert checkpoint_names(tmp_path / "r") == ["pretrain-00000003"]
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers


@pytest.mark.row("T3")
def test_a_sweep_that_is_asked_to_stop_advises_what_it_can_take(recipe, data, tmp_path, before_call, capfd):
    before_call(stepper, "set_learning_rates", raise_signals(signal.SIGTERM), number=2)
    words = command_line("sweep", recipe, data, tmp_path / "s", "data.validation_questions=6")
    assert train.main(words) == 75
    assert capfd.readouterr().err.splitlines()[-1].endswith("pretrain-00000002; the same command continues")


MOMENTS = {  # the command, the stages that are finished before, where the signal comes, what is said
    "first step": ("pretrain", [], "training.stepper.set_learning_rates", 1, "stopped at step 1 of pretrain"),
    "last step": ("pretrain", [], "training.stepper.set_learning_rates", 6, "stopped at step 6 of pretrain"),
    "last checkpoint": ("pretrain", [], "training.loop.save_checkpoint", 1, "stopped after pretrain, saved in "),
    "model": ("pretrain", [], "training.runner.save_stage", 1, "stopped after pretrain, saved in "),
    "between stages": ("pretrain", [], "training.runner.remove_checkpoints", 1, "stopped after pretrain, saved in "),
    "data": (
        "pretrain",
        [],
        "training.run_context.load_training_data",
        1,
        "stopped by SIGTERM while reading the data",
    ),
    "start": ("finetune", ["pretrain"], "training.runner.continue_from", 1, "stopped at step 1 of finetune"),
    "scores": ("evaluate", ["finetune"], "evaluation.scoring.write_report", 1, "stopped by SIGTERM while scoring"),
}


@pytest.mark.row("T3")
@pytest.mark.parametrize(("command", "finished", "name", "number", "message"), MOMENTS.values(), ids=MOMENTS)
def test_a_request_is_never_lost_and_the_run_ends_as_if_there_had_been_none(
    run, recipe, data, tmp_path, before_call, capfd, command, finished, name, number, message
):
    module, attribute = name.rsplit(".", 1)
    output = tmp_path / "r"
    output.mkdir()
    for stage in finished:
        shutil.copytree(run / stage, output / stage)
    before_call(importlib.import_module(module), attribute, raise_signals(signal.SIGTERM), number)
    assert call(command, recipe, data, output) == 75
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert call(command, recipe, data, output, resume=True) == 0
    assert (output / WRITTEN[command]).read_bytes() == (run / WRITTEN[command]).read_bytes()


@pytest.mark.row("T3")
def test_a_scheduler_that_repeats_its_signal_until_the_end_gets_status_75(recipe, data, tmp_path):
    process = start(command_line("pretrain", recipe, data, tmp_path / "r", "pretrain.steps=5000"))
    wait_for(lambda: "/5,000" in process.err.read_text())
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert finish(process).returncode == 75
    assert len(checkpoint_names(tmp_path / "r")) == 1


@pytest.mark.row("T3")
def test_a_signal_to_every_process_of_a_job_saves_once(recipe, data, tmp_path):
    process = start_torchrun(command_line("pretrain", recipe, data, tmp_path / "r", "pretrain.steps=5000"))
    wait_for(lambda: "/5,000" in process.err.read_text())
    workers = read_children(process.pid)
    assert len(workers) == 2
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGTERM)
    assert "stopped at step" in finish(process).stderr
    assert len(checkpoint_names(tmp_path / "r")) == 1


def read_children(pid):
    """Return the ids of a process's children, without the helpers of multiprocessing."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    return [int(child) for child in children]


def wait_for(condition, seconds=60):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


CTRL_C_TWICE = """
import signal
import training.interruption
import training.loop
training.interruption.REPEAT_SECONDS = {}
def hang(*arguments):
    signal.raise_signal(signal.SIGINT)
    raise SystemExit(7)
training.loop.save_checkpoint = hang
import training.stepper
original = training.stepper.set_learning_rates
def ask(*arguments):
    signal.raise_signal(signal.SIGINT)
    return original(*arguments)
training.stepper.set_learning_rates = ask
"""


@pytest.mark.row("T3")
@pytest.mark.parametrize(("seconds", "status"), [(0.0, -signal.SIGINT), (60.0, 7)], ids=["later", "at once"])
def test_ctrl_c_again_after_a_while_ends_a_process_that_hangs(recipe, data, tmp_path, seconds, status):
    program = patched(tmp_path, CTRL_C_TWICE.format(seconds))
    assert finish(start(command_line("pretrain", recipe, data, tmp_path / "r"), program=program)).returncode == status


@pytest.mark.row("T3")
@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1], ids=lambda each: each.name)
def test_a_signal_that_whoever_started_the_run_ignores_is_no_request(ignored):
    signal.signal(ignored, signal.SIG_IGN)
    with handle_signals() as request:
        signal.raise_signal(ignored)
        assert request.signal is None
    assert signal.getsignal(ignored) == signal.SIG_IGN


@pytest.mark.row("T3")
def test_nohup_is_heeded_and_threads_and_nested_blocks_change_no_handler():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with handle_signals() as outer:
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        during = [signal.getsignal(each) for each in STOP_SIGNALS]
        with handle_signals() as inner:
            assert inner is outer
        assert [signal.getsignal(each) for each in STOP_SIGNALS] == during != before
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before
    seen = []

    def look():
        with handle_signals() as request:
            seen.append((request.signal, [signal.getsignal(each) for each in STOP_SIGNALS]))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


@pytest.mark.row("T3")
def test_a_request_that_nobody_answers_is_passed_on():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with handle_signals():
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
    assert seen == [signal.SIGTERM]
    assert interruption._active is None
