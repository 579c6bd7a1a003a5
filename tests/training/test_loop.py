"""The loop: it learns, resumes exactly, and accumulation changes nothing."""

import json

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from data_scripts.span_corruption import CorruptionOptions
from training.arguments import RunArguments, StageArguments
from training.batches import TrainingBatches
from training.checkpoints import checkpoints_of
from training.loop import micro_batches, train_stage

EVERY_STEP = RunArguments(checkpoint_minutes=1e-9, keep_checkpoints=2, log_steps=1)


class Killed(Exception):
    """Stands for a kill: raised by the data in the middle of a stage."""


@pytest.fixture
def train(bios, tokenizer, tiny_model, tmp_path):
    """Return a function that trains a tiny model and returns (model, progress)."""

    def run(folder="checkpoints", kill_at=None, model_changes=None, **changes):
        stage = StageArguments(**{"steps": 8, "batch_size": 12, "question_fraction": 0.25, **changes})
        batches = TrainingBatches(bios.documents, bios.train, tokenizer, stage, CorruptionOptions(), 0, 64)
        if kill_at is not None:
            original = batches.rows

            def rows(step):
                if step == kill_at:
                    raise Killed
                return original(step)

            batches.rows = rows
        set_seed(0)
        (tmp_path / folder).mkdir(exist_ok=True)
        model = tiny_model(**(model_changes or {}))
        return train_stage("pretrain", model, batches, stage, EVERY_STEP, Accelerator(cpu=True), tmp_path / folder)

    return run


def test_the_loss_falls(train):
    _, progress = train(steps=40)
    assert progress.step == 40
    losses = [loss for _, loss in progress.history]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["no-dropout", "dropout"])
def test_a_killed_stage_resumes_to_the_same_weights(train, dropout):
    changes = {"residual_dropout": dropout}
    whole, expected = train(folder="whole", model_changes=changes)
    with pytest.raises(Killed):
        train(folder="killed", kill_at=5, model_changes=changes)
    resumed, progress = train(folder="killed", model_changes=changes)
    assert progress.history == expected.history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_accumulation_and_one_pass_take_the_same_step(train):
    whole, _ = train(folder="whole", steps=3, optimizer="adamw")
    parts, _ = train(folder="parts", steps=3, optimizer="adamw", gradient_accumulation_steps=5)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], weight, atol=1e-5, rtol=0)


def test_only_the_newest_checkpoints_are_kept_and_a_torn_one_is_not_seen(train, tmp_path):
    train()
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints_of(folder, "pretrain")] == ["pretrain-00000007", "pretrain-00000008"]
    (folder / "pretrain-00000008" / "progress.json").unlink()
    assert [path.name for path in checkpoints_of(folder, "pretrain")] == ["pretrain-00000007"]
    assert json.loads((folder / "pretrain-00000007" / "progress.json").read_text())["step"] == 7


def test_a_diverged_run_stops_and_names_the_step(train):
    with pytest.raises(FloatingPointError, match="step"):
        train(steps=30, optimizer="adamw", learning_rate=1e30, gradient_clipping=0.0)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_of_a_batch_goes_to_exactly_one_process_and_part(world):
    batch = {"input_ids": torch.arange(13)[:, None]}
    seen = []
    for rank in range(world):

        class Fake:
            gradient_accumulation_steps, num_processes, process_index, device = 4, world, rank, "cpu"

        parts = micro_batches(batch, Fake)
        assert len(parts) == 4
        seen += [row for part in parts for row in part["input_ids"][:, 0].tolist()]
    assert sorted(seen) == list(range(13))
