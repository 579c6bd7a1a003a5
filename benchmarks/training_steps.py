"""The training of a recipe as benchmarks run it: its pretraining step by step, or all of it with a score."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from artifacts.loading import load_model, load_tokenizer
from benchmarks.measurement import wait_for
from configuration.schema import Recipe
from data_scripts.batches import TrainingBatches
from data_scripts.splits import load_scoring_questions
from evaluation.relation_scores import ask_model
from evaluation.trust import fraction
from training.precision import compiled_parts
from training.run_context import Run, build_run, init_model, training_batches
from training.runner import finetune, pretrain
from training.stepper import Stepper


class TrainingSteps:
    """A recipe's pretraining in a folder of its own, prepared as `train.py pretrain` prepares it."""

    def __init__(self, recipe: Recipe):
        run = build_run(recipe)
        self.stage = recipe.pretrain
        self.run = recipe.run
        self.accelerator = run.accelerator
        self.batches = training_batches(run, "pretrain")
        self.model = init_model(run)
        self.formats = run.formats
        self.stepper = Stepper.prepare(
            self.model, self.stage, self.accelerator, len(self.batches), run.formats.muon_dtype
        )

    def compiled(self) -> AbstractContextManager[None]:
        """Return a context in which the model's blocks are compiled, if the recipe says so."""
        rows = self.stage.batch_size if self.run.compile else None
        return compiled_parts(self.model, self.accelerator.device, rows)

    def step(self, number: int, batch: dict[str, torch.Tensor]) -> float:
        """Do step `number` (from 0) on a batch; return the loss."""
        loss, _ = self.stepper.step(number, batch)
        return loss.item()

    def seconds(self, warmup: int, steps: int) -> list[float]:
        """Return the durations of `steps` steps, data included, after `warmup` others."""
        durations = []
        for step in range(warmup + steps):
            wait_for(self.accelerator.device)
            start = time.perf_counter()
            self.step(step, self.batches[step])
            durations.append(time.perf_counter() - start)
        return durations[warmup:]


def train_and_score(run: Run, when_pretrained: Callable[[Run], None] | None = None) -> dict:
    """Pretrain and finetune a run, then score it: on the questions held out of training, or on dev if there are none.

    Args:
        run: built to train.
        when_pretrained: called between the two stages.

    Returns:
        "accuracy", what it is of ("split", "questions"), the "minutes" of pretraining and the "parameters".
    """
    pretrain(run)
    if when_pretrained is not None:
        when_pretrained(run)
    finetune(run)
    run.accelerator.end_training()
    model = load_model(run.folder.stage("finetune"))
    split, questions = load_scoring_questions(run.data)
    _, right = ask_model(model, load_tokenizer(run.folder.tokenizer), questions, run.recipe.evaluate)
    return {
        "accuracy": fraction(right),
        "split": split,
        "questions": len(questions),
        "minutes": run.folder.training_record("pretrain")["minutes"],
        "parameters": model.num_parameters(),
    }


def padding_share(batches: TrainingBatches, steps: int = 64) -> float:
    """Return the share of the first batches' positions that are padding."""
    first = [batches[step]["input_ids"] for step in range(min(steps, len(batches)))]
    empty = sum(int((ids == batches.pad_token_id).sum()) for ids in first)
    return empty / sum(ids.numel() for ids in first)


def with_paths(overrides: list[str], folder: str | Path, data: Path | None) -> list[str]:
    """Return overrides that put a recipe's output into a folder and take its data from another, if it is given."""
    return [*overrides, *([] if data is None else [f"data.path={data}"]), f"output={folder}/run"]
