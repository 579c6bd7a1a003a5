"""Runs that move, meet a program that fails beside them, or are refused."""

import errno
import io
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data_scripts.bios_folder import FILES
from tests.outside.helpers import SAVED, checkpoint_names, raise_signals, the_error
from tests.running import call, command_line, contents, finish, patched, start
from tests.tampering import rewrite_manifest
from training import loop, precision, stepper
from training.torchrun_env import check_devices

pytestmark = pytest.mark.usefixtures("plain_signals")


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
        assert r"it is \u0150" in text
        assert "published: " in text


@pytest.mark.row("T11")
@pytest.mark.parametrize("command", ["show", "prepare"])
@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_what_is_shown_and_prepared_ends_well_on_any_stream(recipe, data, tmp_path, monkeypatch, command, make):
    out = make()
    monkeypatch.setattr(sys, "stdout", out)
    words = [word for word in command_line(command, recipe, data, tmp_path / "Győr") if word != "--resume"]
    assert train.main(words) == 0
    if make is ascii_stream:
        assert r"Gy\u0151r" in out.buffer.getvalue().decode("ascii").replace("\n", "").replace(" ", "")


@pytest.mark.row("T11")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody may write to")
@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("show", "choose another folder"),
        ("prepare", "what was prepared stays, the same command continues it"),
        ("pretrain", "what was finished stays, continue with --resume"),
    ],
)
def test_a_folder_that_cannot_be_made_is_named_with_what_the_command_can_do(
    recipe, data, tmp_path, capfd, command, advice
):
    assert call(command, recipe, data, tmp_path / "r", "prepare.folder=/proc/minigpt") == 2
    key = f"output {tmp_path / 'r'}" if command == "pretrain" else "prepare.folder /proc/minigpt"
    message = the_error(capfd)
    assert message.startswith(f"error: {key}: ")
    assert "'/proc/minigpt'" in message
    assert message.endswith(f"; {advice}")


@pytest.mark.row("T11")
@pytest.mark.parametrize("make", [BrokenStream, GoneTerminal])
def test_a_run_whose_terminal_is_gone_trains_on_and_saves(recipe, data, tmp_path, monkeypatch, before_call, make):
    before_call(stepper, "set_learning_rates", lambda: monkeypatch.setattr(sys, "stderr", make()))
    assert call("pretrain", recipe, data, tmp_path / "r", "run.log_steps=1") == 0
    before_call(stepper, "set_learning_rates", raise_signals(signal.SIGHUP))
    assert call("pretrain", recipe, data, tmp_path / "s", "run.log_steps=1") == 75
    assert checkpoint_names(tmp_path / "s") == ["pretrain-00000001"]


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
