"""Shares of batches: all rows once, whoever makes them; what goes wrong in a worker is reported as if it had not."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from configuration.schema import CorruptionOptions, StageArguments
from data_scripts.batches import TrainingBatches, count_targets
from data_scripts.bios_folder import DataError
from training.feed import LoaderError, as_loader_error, feed
from training.stepper import own_rows

ONE = SimpleNamespace(gradient_accumulation_steps=1, num_processes=1, process_index=0)


class Faulty(TrainingBatches):
    """Batches of which one calls a function."""

    at = None
    fault = None

    def rows(self, step, own=None):
        if step == self.at:
            self.fault()
        return super().rows(step, own)


@pytest.fixture
def batches(bios, tokenizer):
    stage = StageArguments(steps=21, batch_size=13, question_fraction=0.25, bucket_batches=4, context_loss=False)
    return Faulty.from_texts(bios.documents, bios.train, tokenizer, stage, CorruptionOptions(), 0, 64)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_whole_batch(batches, world):
    for step in (0, 5, 20):
        whole = batches[step]
        seen = torch.zeros(13, dtype=torch.int64)
        for rank in range(world):
            accelerator = SimpleNamespace(gradient_accumulation_steps=2, num_processes=world, process_index=rank)
            rows = own_rows(13, accelerator)
            share, targets = batches.share(step, rows)
            assert targets == count_targets(whole["labels"])
            for name, values in share.items():
                assert torch.equal(values, whole[name][rows])
            seen[rows] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("first", [0, 6])
def test_workers_make_the_shares_that_the_training_process_would(batches, workers, first):
    steps = range(first, 21)
    expected = list(feed(batches, steps, own_rows(13, ONE), 0))
    state = torch.get_rng_state()
    found = list(feed(batches, steps, own_rows(13, ONE), workers))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(found) == len(expected) == len(steps)
    for (one, targets), (other, wanted) in zip(found, expected, strict=True):
        assert targets == wanted
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["labels"], other["labels"])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_at_its_step_whoever_meets_it(batches, workers):
    def refuse():
        raise DataError("shard 7: cut off")

    batches.at, batches.fault = 9, refuse
    shares = feed(batches, range(21), own_rows(13, ONE), workers)
    for _ in range(9):
        next(shares)
    with pytest.raises(DataError, match=r"^shard 7: cut off$"):
        next(shares)


class Unportable(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, one, other):
        super().__init__(f"{one} and\n{other}")


def test_an_error_that_cannot_travel_is_reported_by_its_name(batches):
    def fail():
        raise Unportable("this", "that")

    batches.at, batches.fault = 0, fail
    with pytest.raises(RuntimeError, match=r"^Unportable: this and that$"):
        list(feed(batches, range(21), own_rows(13, ONE), 1))


def test_a_worker_that_dies_is_reported_in_one_line(batches):
    batches.at, batches.fault = 9, lambda: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"has died .* lower run\.loader_workers") as died, as_loader_error():
        list(feed(batches, range(21), own_rows(13, ONE), 2))
    assert "\n" not in str(died.value)


def test_a_worker_goes_on_when_all_processes_are_asked_to_stop(batches):
    batches.at, batches.fault = 9, lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert len(list(feed(batches, range(21), own_rows(13, ONE), 2))) == 21
