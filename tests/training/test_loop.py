"""The loop: it learns, resumes exactly, and accumulation changes nothing."""

import dataclasses
import errno
import json
import os
import re
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from configuration.schema import CorruptionOptions, RunArguments, StageArguments
from data_scripts.batches import TrainingBatches
from tests.running import contents
from training.checkpoints import CheckpointError, list_checkpoints, verify
from training.interruption import STOP_SIGNALS, Interrupted
from training.loop import train_stage
from training.state import TrainingState
from training.stepper import micro_batches, own_rows

STATE = ("model.safetensors", "optimizer.safetensors", "random_0.safetensors")

EVERY_STEP = RunArguments(checkpoint_minutes=1e-9, keep_checkpoints=2, log_steps=1)


class Killed(Exception):
    """Raised by the data in the middle of a stage, like a kill."""


@pytest.fixture
def train(bios, tokenizer, tiny_model, tmp_path):
    """Return a function that trains a tiny model and returns (model, progress)."""

    def run(
        folder="checkpoints",
        kill_at=None,
        at=None,
        model_changes=None,
        run_arguments=EVERY_STEP,
        precision="no",
        on_checkpoint=None,
        **changes,
    ):
        stage = StageArguments(**{"steps": 8, "batch_size": 12, "question_fraction": 0.25, **changes})
        batches = TrainingBatches.from_texts(bios.documents, bios.train, tokenizer, stage, CorruptionOptions(), 0, 64)
        original = batches.rows

        def rows(step, own=None):
            if step == kill_at:
                raise Killed
            if step in (at or {}):
                at[step](model)
            return original(step, own)

        batches.rows = rows
        set_seed(0)
        (tmp_path / folder).mkdir(exist_ok=True)
        model = tiny_model(**(model_changes or {}))
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        return train_stage(
            "pretrain", model, batches, stage, run_arguments, accelerator, tmp_path / folder, on_checkpoint
        )

    return run


def test_the_loss_falls(train):
    _, progress = train(steps=40)
    assert progress.step == 40
    losses = [loss for _, loss in progress.history]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["no-dropout", "dropout"])
def test_a_killed_stage_resumes_to_the_same_state(train, tmp_path, dropout):
    changes = {"residual_dropout": dropout}
    whole, expected = train(folder="whole", model_changes=changes)
    with pytest.raises(Killed):
        train(folder="killed", kill_at=5, model_changes=changes)
    resumed, progress = train(folder="killed", model_changes=changes)
    assert progress.history == expected.history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    last = "pretrain-00000008"
    one, other = (contents(tmp_path / folder / last) for folder in ("whole", "killed"))
    assert {*one} == {*STATE, "progress.json", "manifest.json"}
    for name in STATE:
        assert one[name] == other[name], name


def test_workers_that_read_ahead_change_nothing(train):
    expected, one = train(folder="alone")
    found, other = train(folder="ahead", run_arguments=dataclasses.replace(EVERY_STEP, loader_workers=2))
    assert other.history == one.history
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name]), name


@pytest.mark.parametrize(
    "changes",
    [{"tie_word_embeddings": True}, {"attention_type": "linformer"}, {"attention_type": "performer"}],
    ids=["tied", "linformer", "performer"],
)
def test_a_model_with_shared_unused_or_fixed_tensors_resumes_too(train, changes):
    whole, _ = train(folder="whole", model_changes=changes)
    with pytest.raises(Killed):
        train(folder="killed", kill_at=5, model_changes=changes)
    resumed, _ = train(folder="killed", model_changes=changes)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_looking_at_the_model_during_training_changes_nothing(train, any_precision, precision):
    any_precision()
    _, alone = train(folder="alone", precision=precision)
    seen = []
    _, watched = train(folder="watched", precision=precision, on_checkpoint=lambda model, _: seen.append(model))
    assert watched.history == alone.history
    assert len(seen) == 8


def test_a_checkpoint_of_another_model_is_refused_in_one_line(train):
    train(steps=2)
    with pytest.raises(CheckpointError, match=r"pretrain-00000002 cannot be resumed from: .*; remove it to resume"):
        train(model_changes={"num_hidden_layers": 3})


@pytest.fixture
def double_precision():
    """Compute in float64, where a difference is more than rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_accumulation_and_one_pass_take_the_same_step(train, double_precision):
    whole, _ = train(folder="whole", steps=3, optimizer="adamw")
    parts, _ = train(folder="parts", steps=3, optimizer="adamw", gradient_accumulation_steps=5)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], weight, atol=1e-12, rtol=0)


def test_only_the_newest_checkpoints_are_kept(train, tmp_path):
    train()
    folder = tmp_path / "checkpoints"
    assert [path.name for path in list_checkpoints(folder, "pretrain")] == ["pretrain-00000007", "pretrain-00000008"]
    assert json.loads((folder / "pretrain-00000007" / "progress.json").read_text())["step"] == 7
    assert all(verify(path) is None for path in list_checkpoints(folder, "pretrain"))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "no-manifest": lambda path: (path / "manifest.json").unlink(),
    "empty-manifest": lambda path: (path / "manifest.json").write_text("{}"),
    "half-a-manifest": lambda path: (path / "manifest.json").write_text('{"model.safe'),
    "weights-bit": lambda path: flip_a_bit(path / "model.safetensors"),
    "optimizer-bit": lambda path: flip_a_bit(path / "optimizer.safetensors"),
    "progress-bit": lambda path: flip_a_bit(path / "progress.json"),
    "cut-off": lambda path: os.truncate(path / "model.safetensors", 100),
    "lost-random-state": lambda path: (path / "random_0.safetensors").unlink(),
    "foreign-file": lambda path: (path / "random_1.safetensors").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_skipped_with_a_warning_that_names_it(train, tmp_path, caplog, damage):
    whole, _ = train(folder="whole")
    with pytest.raises(Killed):
        train(folder="killed", kill_at=5)
    newest = tmp_path / "killed" / "pretrain-00000005"
    damage(newest)
    resumed, progress = train(folder="killed")
    assert "pretrain-00000005 is skipped" in caplog.text
    assert progress.step == 8
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert verify(tmp_path / "killed" / "pretrain-00000008") is None


@pytest.mark.usefixtures("plain_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stage_asked_to_stop_saves_between_log_lines_and_resumes_exactly(train, number):
    rare = RunArguments(checkpoint_minutes=100.0, keep_checkpoints=2, log_steps=4)
    whole, expected = train(folder="whole", run_arguments=rare)
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    with pytest.raises(Interrupted, match=r"stopped at step 6 of pretrain, saved in .*; continue with --resume"):
        train(folder="stopped", run_arguments=rare, at={5: lambda model: signal.raise_signal(number)})
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers
    resumed, progress = train(folder="stopped", run_arguments=rare)
    assert progress.history == expected.history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_full_disk_leaves_the_checkpoint_before_it_and_says_how_much_is_needed(train, tmp_path, monkeypatch):
    def fail_at_four(state, folder):
        original(state, folder)
        if "00000004" in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    original = TrainingState.save
    monkeypatch.setattr(TrainingState, "save", fail_at_four)
    with pytest.raises(CheckpointError, match=r"No space left.* MB needed, .* MB free; .*pretrain-00000003 stays"):
        train()
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"pretrain-00000002", "pretrain-00000003"}
    assert verify(folder / "pretrain-00000003") is None


def test_a_diverged_run_stops_and_names_step_rows_and_the_last_good_checkpoint(train):
    def overflow(model):
        with torch.no_grad():
            model.lm_head.weight[0, 0] = float("inf")

    with pytest.raises(FloatingPointError) as stopped:
        train(at={5: overflow})
    assert_names_step_and_checkpoint(str(stopped.value), r"the (loss|gradient) is not finite")


def assert_names_step_and_checkpoint(message, fault):
    """Check that a message names the fault, the step, its rows and the checkpoint of the step before it."""
    found = re.fullmatch(
        rf"{fault} at step (?P<step>\d+) of pretrain \((?P<rows>.*)\); "
        r"the last good checkpoint is \S*pretrain-(?P<saved>\d+); lower the learning rate",
        message,
    )
    assert int(found["saved"]) == int(found["step"]) - 1
    assert re.fullmatch(r"((document|question) \d+, ){7}(document|question) \d+ and 4 more", found["rows"])


def steepen(model):
    """Multiply the gradient by about a hundred thousand, with a loss that stays finite."""
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)


@pytest.mark.parametrize("clipping", [1.0, 0.0], ids=["clipped", "not-clipped"])
def test_a_gradient_that_explodes_stops_the_run_however_it_is_clipped(train, clipping):
    with pytest.raises(FloatingPointError) as stopped:
        train(at={5: steepen}, gradient_clipping=clipping)
    assert_names_step_and_checkpoint(str(stopped.value), r"the gradient's norm, \S+, is above gradient_limit \(1000\)")
    _, progress = train(folder="unlimited", at={5: steepen}, gradient_clipping=1.0, gradient_limit=0.0)
    assert progress.step == 8


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_of_a_batch_goes_to_exactly_one_process_and_part(world):
    batch = {"input_ids": torch.arange(13)[:, None]}
    seen = []
    for rank in range(world):

        class Fake:
            gradient_accumulation_steps = 4
            num_processes = world
            process_index = rank
            device = "cpu"

        rows = own_rows(13, Fake)
        parts = micro_batches({key: value[rows] for key, value in batch.items()}, Fake)
        assert [len(part["input_ids"]) for part in parts] == [len(rows[part::4]) for part in range(4)]
        seen += [row for part in parts for row in part["input_ids"][:, 0].tolist()]
    assert sorted(seen) == list(range(13))
