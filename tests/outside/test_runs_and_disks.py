"""Disks that are full or unusual, and what is written on them whole or not at all."""

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest
import transformers

from artifacts import files
from artifacts.run_folder import RunError, RunFolder
from data_scripts import file_builder
from data_scripts.closed_book_qa import ClosedBookQA
from data_scripts.file_builder import prepare
from tests.outside.helpers import SAVED, WRITTEN, checkpoint_names, the_error
from tests.running import call
from training import checkpoints

pytestmark = pytest.mark.usefixtures("plain_signals")


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


@pytest.mark.row("T9")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_used_with_a_warning(recipe, data, tmp_path, monkeypatch, capfd, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert call("pretrain", recipe, data, tmp_path / "r") == 0
    assert "warning: " in (err := capfd.readouterr().err)
    assert "its file system has no locks; start no second run in this folder" in err
    assert (tmp_path / "r" / SAVED).is_file()


@pytest.mark.row("T9")
def test_a_lock_that_a_dead_run_has_left_in_the_cache_stops_nobody(data, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    def build() -> list[dict]:
        files = {"train": str(data / "birth_places_train.tsv")}
        return prepare(ClosedBookQA(data_files=files, cache_dir=str(tmp_path)))["train"].to_list()

    expected = build()
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(file_builder, "LOCK_SECONDS", 0.1)
    locks = list(tmp_path.rglob("*.lock"))
    for lock in locks:
        lock.write_text("4711\nnode17\n")
    assert build() == expected
    assert locks


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


def no_space(*arguments, **settings):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def no_space_in_rust(*arguments, **settings):
    raise Exception("No space left on device (os error 28)")


FULL_DISKS = {  # what is written, by which function, in which command
    "corpus": ("data_scripts.corpus_writer.write_parquet", no_space, "pretrain"),
    "tokens": ("training.token_files.write_table", no_space, "pretrain"),
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
