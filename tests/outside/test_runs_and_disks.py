"""Runs that are asked to stop, disks that are full or unusual, folders that move, programs that fail beside ours."""

import errno
import fcntl
import importlib
import io
import os
import shutil
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import transformers
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from artifacts import files
from artifacts.run_folder import RunError, RunFolder
from data_scripts.bios_folder import FILES
from tests.running import call, command_line, contents, finish, patched, start, start_torchrun
from tests.tampering import rewrite_manifest
from training import checkpoints, interruption, loop, precision, stepper
from training.interruption import STOP_SIGNALS, handle_signals
from training.torchrun_env import check_devices

SAVED = "pretrain/model.safetensors"


@pytest.fixture(autouse=True)
def plain_signals():
    """Let every signal have its default handler: the suite itself may run under nohup."""
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    for each in STOP_SIGNALS:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def before_call(monkeypatch):
    """Return a function that does something before the n-th call of an attribute."""

    def install(owner, name, action, number=1):
        original = getattr(owner, name)
        calls = []

        def act_and_call(*arguments, **settings):
            calls.append(1)
            if len(calls) == number:
                action()
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, act_and_call)

    return install


def raise_signals(*numbers):
    """Return a function that sends this process signals, one right after the other."""
    return lambda: [signal.raise_signal(number) for number in numbers]


def checkpoint_names(output):
    return sorted(path.name for path in (output / "checkpoints").glob("*-*"))


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
    "start": ("finetune", ["pretrain"], "training.runner.load_model", 1, "stopped at step 1 of finetune"),
    "scores": ("evaluate", ["finetune"], "evaluation.scoring.write_report", 1, "stopped by SIGTERM while scoring"),
}
WRITTEN = {"pretrain": SAVED, "finetune": "finetune/model.safetensors", "evaluate": "predictions.dev.txt"}


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
    wait_for(lambda: "/5000" in process.err.read_text())
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert finish(process).returncode == 75
    assert len(checkpoint_names(tmp_path / "r")) == 1


@pytest.mark.row("T3")
def test_a_signal_to_every_process_of_a_job_saves_once(recipe, data, tmp_path):
    process = start_torchrun(command_line("pretrain", recipe, data, tmp_path / "r", "pretrain.steps=5000"))
    wait_for(lambda: "/5000" in process.err.read_text())
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


def the_error(capfd) -> str:
    """Return the one line that says why a command has failed; there is no traceback beside it."""
    err = capfd.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def fsync_fails(monkeypatch):
    """Return a function that lets fsync fail on files, on folders or on both."""
    original = os.fsync

    def install(number, on_files=False, on_folders=False):
        def fail(handle):
            if on_folders if stat.S_ISDIR(os.fstat(handle).st_mode) else on_files:
                raise OSError(number, os.strerror(number))
            original(handle)

        monkeypatch.setattr(os, "fsync", fail)

    return install


@pytest.mark.row("T4")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_sync_is_as_good_as_any(run, recipe, data, tmp_path, fsync_fails, number):
    fsync_fails(number, on_files=True, on_folders=True)
    assert call("pretrain", recipe, data, tmp_path / "r") == 0
    assert (tmp_path / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


@pytest.mark.row("T4")
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_quota_that_is_noticed_at_the_sync_leaves_the_checkpoint_before(
    recipe, data, tmp_path, fsync_fails, before_call, capfd, number
):
    before_call(checkpoints, "put_in_place", lambda: fsync_fails(number, on_files=True), number=3)
    assert call("pretrain", recipe, data, tmp_path / "r", "run.log_steps=1", "run.checkpoint_minutes=1e-9") == 2
    message = the_error(capfd)
    assert "a checkpoint cannot be written" in message
    assert os.strerror(number) in message
    assert "pretrain-00000002 stays" in message
    assert checkpoint_names(tmp_path / "r") == ["pretrain-00000001", "pretrain-00000002"]


@pytest.mark.row("T4")
def test_the_search_for_a_failure_s_reason_survives_files_that_vanish(tmp_path, monkeypatch):
    partial = tmp_path / ".pretrain-00000004.partial"
    for folder in (partial, tmp_path / "pretrain-00000002"):
        folder.mkdir()
        (folder / checkpoints.MANIFEST).write_text("{}")
        (folder / "model.safetensors").write_text("weights")
    original = Path.stat
    seen = []

    def vanish(self, **settings):
        if self.name == "model.safetensors":
            seen.append(self)
            if seen.count(self) > 1:  # after it was found to be a file
                raise FileNotFoundError(self)
        return original(self, **settings)

    def fail():
        with checkpoints.as_checkpoint_error(partial, 100_000):
            monkeypatch.setattr(Path, "stat", vanish)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(checkpoints.CheckpointError, match=r"No space .* 0\.1 MB needed, .*/pretrain-00000002 stays"):
        fail()
    assert len(seen) == 4


FAILING_COMPILER = """
import torch._inductor.config
torch._inductor.config.cpp.cxx = (None, "/bin/false")
import training.loop
training.loop.MIN_STEPS_TO_COMPILE = 1
"""


@pytest.mark.row("T5")
def test_a_compiler_that_fails_is_done_without(run, recipe, data, tmp_path):
    # In a process of its own, since torch remembers for a process's life what its compiler can do.
    environment = {"CXX": "/bin/false", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    words = command_line("pretrain", recipe, data, tmp_path / "r", "run.compile=true")
    result = finish(start(words, program=patched(tmp_path, FAILING_COMPILER), **environment))
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("training goes on uncompiled") == 1
    assert (tmp_path / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


FAULTS = [ImportError("failed to map segment"), RuntimeError("omp.h not found"), PermissionError(13, "noexec")]


@pytest.mark.row("T5")
@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_whatever_fails_beside_the_compiler_leaves_the_model_as_it_was(tiny_model, monkeypatch, caplog, error):
    def fail(*arguments):
        raise error

    model = tiny_model()
    PartialState(cpu=True)  # Accelerate's loggers ask it whether this process is the one that speaks
    own = [set(vars(module)) for module in model.modules()]
    monkeypatch.setattr(precision, "warm_up", fail)
    with precision.compiled_parts(model, torch.device("cpu"), rows=8):
        assert [set(vars(module)) for module in model.modules()] == own
    assert "training goes on uncompiled" in caplog.text


@pytest.fixture
def stopped(recipe, data, tmp_path, before_call):
    """Return a folder with data and a run that was stopped in its pretraining, to be moved."""
    place = tmp_path / "place"
    shutil.copytree(data, place / "bios")
    before_call(stepper, "set_learning_rates", raise_signals(signal.SIGTERM), number=3)
    assert call("pretrain", recipe, place / "bios", place / "r") == 75
    return place


@pytest.mark.row("T8")
@pytest.mark.parametrize("how", ["moved", "relative", "slash", "link"])
def test_a_run_resumes_wherever_it_and_its_data_are(run, recipe, stopped, tmp_path, monkeypatch, how):
    place = tmp_path / "elsewhere"
    if how == "link":
        place.symlink_to(stopped)
    else:
        stopped.rename(place)
    monkeypatch.chdir(place)
    folder = {"relative": "bios", "slash": f"{place}/bios/"}.get(how, place / "bios")
    assert call("pretrain", recipe, folder, "r", resume=True) == 0
    assert (place / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


@pytest.mark.row("T8")
@pytest.mark.parametrize("name", ["wiki.txt", "birth_places_train.tsv"])
def test_a_run_does_not_resume_on_data_that_have_changed(recipe, stopped, capfd, name):
    line = "Ada Stone. She was born in Rome ." if name == "wiki.txt" else "Where was Ada Stone born?\tRome"
    with (stopped / "bios" / name).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    before = contents(stopped / "r" / "checkpoints")
    assert call("pretrain", recipe, stopped / "bios", stopped / "r", resume=True) == 2
    message = the_error(capfd)
    assert f"{name} is not what it was" in message
    assert "restore it, or choose another --set output=FOLDER" in message
    assert contents(stopped / "r" / "checkpoints") == before


@pytest.mark.row("T8")
def test_weights_to_start_from_are_compared_by_their_contents(run, recipe, data, tmp_path, before_call, capfd):
    source = shutil.copytree(run / "pretrain", tmp_path / "source")
    arguments = ("finetune", recipe, data, tmp_path / "r")
    before_call(stepper, "set_learning_rates", raise_signals(signal.SIGTERM))
    assert call(*arguments, f"finetune.start_from={source}") == 75
    source = source.rename(tmp_path / "moved")
    other = shutil.copytree(run / "finetune", tmp_path / "source")  # of that name, but not the same
    assert call(*arguments, f"finetune.start_from={other}", resume=True) == 2
    assert "finetune.start_from is not what it was" in the_error(capfd)
    assert call(*arguments, resume=True) == 2
    assert "finetune.start_from was" in the_error(capfd)
    assert call(*arguments, f"finetune.start_from={source}", resume=True) == 0


@pytest.mark.row("T9")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_used_with_a_warning(recipe, data, tmp_path, monkeypatch, capfd, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunFolder(tmp_path / "r").lock():
        pass
    with RunFolder(tmp_path / "r").lock():
        (tmp_path / "r" / "mine").touch()
    assert (tmp_path / "r" / "mine").exists()


@pytest.mark.row("T9")
def test_a_lock_that_a_dead_run_has_left_says_whose_it_is_and_what_to_remove(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = tmp_path / ".lock"
    lock.write_text("4711\nnode17\n")
    with pytest.raises(RunError, match=rf"process 4711 on node17 .*if it is not running any more, remove {lock}"):
        RunFolder(tmp_path).lock().__enter__()
    lock.unlink()
    with RunFolder(tmp_path).lock(), pytest.raises(RunError, match=f"process {os.getpid()} on "):
        RunFolder(tmp_path).lock().__enter__()


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


class BrokenStream(io.StringIO):
    """Standard output, or standard error, that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self):
        self.write("")


class GoneTerminal(BrokenStream):
    """A terminal that was closed."""

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


STREAMS = {"ascii": ascii_stream, "broken pipe": BrokenStream, "no terminal": GoneTerminal, "none": lambda: None}


@pytest.mark.row("T11")
@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_results_that_cannot_be_printed_are_written_and_pushed(
    run, recipe, data, tmp_path, monkeypatch, hub, before_call, make
):
    other = shutil.copytree(data, tmp_path / "data")
    path = other / FILES["validation"]
    path.write_text(path.read_text(encoding="utf-8").replace("born?\t", "born?\tŐ"), encoding="utf-8")
    output = tmp_path / "r"
    for name in ("pretrain", "finetune"):
        shutil.copytree(run / name, output / name)
    shutil.copy(run / "recipe.json", output)
    out = make()
    monkeypatch.setattr(sys, "stdout", out)
    words = [*command_line("evaluate", recipe, other, output), "--push_to_hub", "somebody/model"]
    assert train.main(words) == 0
    assert (output / "results.json").is_file()
    assert hub.commits("somebody/model") == 1
    if make is ascii_stream:
        text = out.buffer.getvalue().decode("ascii")
        assert r"wrong, it is \u0150" in text
        assert "published: " in text


@pytest.mark.row("T11")
@pytest.mark.parametrize("make", [BrokenStream, GoneTerminal])
def test_a_run_whose_terminal_is_gone_trains_on_and_saves(recipe, data, tmp_path, monkeypatch, before_call, make):
    before_call(stepper, "set_learning_rates", lambda: monkeypatch.setattr(sys, "stderr", make()))
    assert call("pretrain", recipe, data, tmp_path / "r", "run.log_steps=1") == 0
    before_call(stepper, "set_learning_rates", raise_signals(signal.SIGHUP))
    assert call("pretrain", recipe, data, tmp_path / "s", "run.log_steps=1") == 75
    assert checkpoint_names(tmp_path / "s") == ["pretrain-00000001"]


def no_space(*arguments, **settings):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def no_space_in_rust(*arguments, **settings):
    raise Exception("No space left on device (os error 28)")


FULL_DISKS = {  # what is written, by whom, in which command
    "cache": ("datasets.builder.DatasetBuilder.download_and_prepare", no_space, "pretrain"),
    "tokenizer": ("transformers.PreTrainedTokenizerFast.save_pretrained", no_space_in_rust, "pretrain"),
    "recipe": ("artifacts.run_folder.write_json", no_space, "pretrain"),
    "model": ("modeling_minigpt.MiniGPTForCausalLM.save_pretrained", no_space, "pretrain"),
    "record": ("training.runner.write_json", no_space, "pretrain"),
    "predictions": ("evaluation.scoring.write_text", no_space, "evaluate"),
    "figure": ("matplotlib.figure.Figure.savefig", no_space, "evaluate"),
    "report": ("evaluation.report.write_text", no_space, "evaluate"),
    "results": ("evaluation.scoring.write_json", no_space, "evaluate"),
}


@pytest.mark.row("T12")
@pytest.mark.parametrize(("name", "fail", "command"), FULL_DISKS.values(), ids=FULL_DISKS)
def test_a_full_disk_ends_a_run_in_one_line_and_more_space_completes_it(
    run, recipe, data, tmp_path, monkeypatch, capfd, name, fail, command
):
    output = tmp_path / "r"
    if command == "evaluate":
        shutil.copytree(run / "finetune", output / "finetune")
    with monkeypatch.context() as full:
        full.setattr(name, fail)
        assert call(command, recipe, data, output) == 2
    message = the_error(capfd)
    assert "No space left on device" in message
    assert " MB free" in message
    assert not list(tmp_path.rglob(".*.partial"))
    assert call(command, recipe, data, output, resume=True) == 0
    assert (output / WRITTEN[command]).read_bytes() == (run / WRITTEN[command]).read_bytes()


@pytest.mark.row("T12")
@pytest.mark.parametrize("moment", ["start", "log", "finish"])
def test_a_log_that_cannot_be_written_warns_once(run, recipe, data, tmp_path, monkeypatch, capfd, moment):
    monkeypatch.setattr(f"accelerate.tracking.TensorBoardTracker.{moment}", no_space)
    assert call("pretrain", recipe, data, tmp_path / "r", "run.log_steps=1") == 0
    err = capfd.readouterr().err
    assert err.count("warning: the logs for TensorBoard cannot be written, training goes on without") == 1
    assert "Traceback" not in err
    assert (tmp_path / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


@pytest.mark.row("T13")
def test_a_run_that_was_killed_after_it_had_logged_shows_each_step_once(recipe, data, tmp_path, before_call):
    output = tmp_path / "r"
    often = ("run.log_steps=1", "run.checkpoint_minutes=1e-9")

    def die():
        raise SystemExit(9)

    before_call(loop, "save_checkpoint", die, number=4)  # three are saved, four steps are logged
    with pytest.raises(SystemExit):
        call("pretrain", recipe, data, output, *often)
    time.sleep(1.1)  # the files' names have seconds, by which they are read
    assert call("pretrain", recipe, data, output, *often, resume=True) == 0
    log = EventAccumulator(str(output / "logs" / "pretrain"))
    log.Reload()
    assert [event.step for event in log.Scalars("pretrain/loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.row("T15")
def test_a_finished_model_is_on_the_disk_before_its_checkpoints_go(run, recipe, data, tmp_path, monkeypatch):
    events = []
    sync = files.sync
    rename = os.replace
    rmtree = shutil.rmtree

    def note(what, function, which):
        return lambda *paths, **settings: (events.append((what, str(paths[which]))), function(*paths, **settings))[1]

    monkeypatch.setattr(files, "sync", note("sync", sync, 0))
    monkeypatch.setattr(os, "replace", note("rename", rename, 1))
    monkeypatch.setattr(shutil, "rmtree", note("remove", rmtree, 0))
    output = tmp_path / "r"
    assert call("pretrain", recipe, data, output) == 0
    partial = output / ".pretrain.partial"
    renamed = events.index(("rename", str(output / "pretrain")))
    for path in (output / "pretrain").rglob("*"):
        assert ("sync", str(partial / path.relative_to(output / "pretrain"))) in events[:renamed], path
    synced = events.index(("sync", str(output)), renamed)
    assert events.index(("remove", str(output / "checkpoints" / "pretrain-00000006"))) > synced


@pytest.mark.row("T15")
def test_a_tokenizer_that_was_cut_short_by_a_kill_is_not_read(run, recipe, data, tmp_path, monkeypatch):
    save = transformers.PreTrainedTokenizerFast.save_pretrained

    def save_half(self, folder, *arguments, **settings):
        save(self, folder, *arguments, **settings)
        os.truncate(f"{folder}/tokenizer.json", 100)
        raise SystemExit(9)

    with monkeypatch.context() as killed:
        killed.setattr(files, "remove", lambda path: None)  # a kill cleans nothing up
        killed.setattr(transformers.PreTrainedTokenizerFast, "save_pretrained", save_half)
        with pytest.raises(SystemExit):
            call("pretrain", recipe, data, tmp_path / "r")
    assert call("pretrain", recipe, data, tmp_path / "r", resume=True) == 0
    assert (tmp_path / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


STRAYS = ["pretrain/notes.txt", "pretrain", "checkpoints", "data", "checkpoints/tokenizer", "recipe.json/x"]


@pytest.mark.row("T15")
@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("resume", [False, True], ids=["new", "resume"])
def test_what_is_in_the_way_of_a_run_s_files_is_refused_before_training(
    recipe, data, tmp_path, capfd, monkeypatch, stray, resume
):
    monkeypatch.setattr("training.runner.build_run", lambda *arguments: pytest.fail("it has begun"))
    path = tmp_path / "r" / stray
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert call("pretrain", recipe, data, tmp_path / "r", resume=resume) == 2
    message = the_error(capfd)
    assert str(path) in message or str(path.parent) in message
    assert path.read_text() == "mine"


@pytest.mark.row("T15")
def test_results_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(path, {"a": 1})

    def write_half():
        with files.written_aside(path) as partial:
            partial.write_text('{"a"')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.row("T16")
@pytest.mark.parametrize("device", ["mps", "cuda", "npu", "xpu"])
def test_a_checkpoint_of_another_kind_of_machine_is_resumed_from(run, recipe, stopped, capfd, device):
    (checkpoint,) = (stopped / "r" / "checkpoints").glob("pretrain-*")
    path = checkpoint / "random_0.safetensors"
    save_file({**load_file(path), device: torch.zeros(44, dtype=torch.uint8)}, path)
    rewrite_manifest(checkpoint)
    assert call("pretrain", recipe, stopped / "bios", stopped / "r", resume=True) == 0
    assert f"warning: the random numbers of '{device}' are not restored" in capfd.readouterr().err
    assert (stopped / "r" / SAVED).read_bytes() == (run / SAVED).read_bytes()


@pytest.mark.row("T17")
def test_one_process_runs_in_one_precision_after_another(run, recipe, data, tmp_path, any_precision):
    for number, name in enumerate(("no", "bf16", "no")):
        assert call("pretrain", recipe, data, tmp_path / f"{number}", f'run.mixed_precision="{name}"') == 0
    same, other = ((tmp_path / name / SAVED).read_bytes() for name in "21")
    assert same == (run / SAVED).read_bytes() != other


@pytest.mark.row("H12")
def test_a_home_folder_that_cannot_be_written_is_not_needed(run, recipe, data, tmp_path, monkeypatch):
    nowhere = Path(os.devnull) / "huggingface"
    for name in ("HF_CACHE_HOME", "HF_MODULES_CACHE", "HF_METRICS_CACHE"):
        monkeypatch.setattr(f"evaluate.config.{name}", nowhere)
    for name in ("HF_CACHE_HOME", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH"):
        monkeypatch.setattr(f"datasets.config.{name}", nowhere)
    shutil.copytree(run / "finetune", tmp_path / "r" / "finetune")
    assert call("evaluate", recipe, data, tmp_path / "r") == 0
    assert (tmp_path / "r" / "predictions.dev.txt").read_bytes() == (run / "predictions.dev.txt").read_bytes()


REFUSED = {
    "no data": ("absent", ()),
    "no model": ("bios", ("finetune.start_from={}/absent/model",)),
    "questions too long": ("bios", ("model.max_position_embeddings=8",)),
}


@pytest.mark.row("H18")
@pytest.mark.parametrize(("folder", "overrides"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("command", ["all", "evaluate"])
def test_a_run_that_is_refused_leaves_nothing(recipe, data, tmp_path, capfd, folder, overrides, command):
    shutil.copytree(data, tmp_path / "bios")
    assert (
        call(command, recipe, tmp_path / folder, tmp_path / "r", *(each.format(tmp_path) for each in overrides)) == 2
    )
    assert the_error(capfd)
    assert not (tmp_path / "r").exists()


@pytest.mark.row("H18")
def test_a_command_is_corrected_and_given_again(run, recipe, data, tmp_path, capfd):
    output = tmp_path / "r"
    output.mkdir()
    assert call("all", recipe, tmp_path / "absent", output, resume=True) == 2
    assert {path.name for path in output.iterdir()} <= {".lock"}
    assert call("pretrain", recipe, data, output, resume=True) == 0
    assert (output / SAVED).read_bytes() == (run / SAVED).read_bytes()
    capfd.readouterr()
    assert call("all", recipe, data, output, "pretrain.batch_size=6", resume=True) == 2
    message = the_error(capfd)
    assert "pretrain.batch_size was 12, now 6; cannot resume" in message
    assert "set pretrain.batch_size as it was, or choose another --set output=FOLDER" in message


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets what a launcher says in the environment, on a machine with some GPUs."""

    def launch(gpus, **environment):
        monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return launch


SEVERAL = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}


@pytest.mark.row("H19")
@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("settings", [{}, {"ACCELERATE_USE_CPU": "False"}], ids=["torchrun", "accelerate"])
@pytest.mark.parametrize("gpus", [0, 1])
def test_several_processes_without_a_gpu_each_are_refused(
    recipe, data, tmp_path, launched, capfd, rank, settings, gpus
):
    launched(gpus, **SEVERAL, **settings, RANK=rank)
    assert call("pretrain", recipe, data, tmp_path / "r") == 2
    message = the_error(capfd)
    assert f"2 processes are launched on this machine, but it shows {gpus} GPUs" in message
    assert "configuration/accelerate/cpu.yaml" in message
    assert not (tmp_path / "r").exists()


@pytest.mark.row("H19")
def test_one_process_that_is_launched_for_a_gpu_warns_on_a_cpu(launched, caplog):
    launched(0, ACCELERATE_USE_CPU="False")
    check_devices()
    assert "no GPU is visible: training on the CPU" in caplog.text
    caplog.clear()
    for gpus, environment in ((0, {"ACCELERATE_USE_CPU": "True"}), (0, {}), (1, {"ACCELERATE_USE_CPU": "False"})):
        launched(gpus, **environment)
        check_devices()
    launched(2, **SEVERAL, ACCELERATE_USE_CPU="False")
    check_devices()
    assert caplog.text == ""
