"""Stages as people set them up: lengths, mixtures, checkpoints and launchers do what is documented, or say so."""

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from configuration.recipe import RecipeError, load_recipe
from configuration.schema import CorruptionOptions, RunArguments, StageArguments
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import DataError
from tests.running import ROOT, call
from training.loop import train_stage
from training.precision import report_ignored_precision


@pytest.fixture
def make_batches(bios, tokenizer):
    def make(documents=None, **changes):
        stage = StageArguments(**changes)
        return TrainingBatches.from_texts(
            documents or bios.documents, bios.train, tokenizer, stage, CorruptionOptions(), 0, 64
        )

    return make


def examples(batches) -> Counter:
    """Count how often each document and each question is a row of a stage."""
    return Counter(name for step in range(len(batches)) for name in batches.name(batches.rows(step).examples))


@pytest.mark.row("T20")
@pytest.mark.parametrize("bucket_batches", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_epochs_are_passes_over_the_documents_whatever_the_share_of_questions(
    make_batches, bios, share, bucket_batches
):
    batches = make_batches(epochs=10, batch_size=20, question_fraction=share, bucket_batches=bucket_batches)
    seen = examples(batches)
    rows = sum(count for name, count in seen.items() if name.startswith("document"))
    # A stage may end within a pool, which has its documents in the order of their lengths.
    spare = 20 * bucket_batches
    assert 10 * len(bios.documents) - (spare if bucket_batches > 1 else 0) <= rows <= 10 * len(bios.documents) + spare
    assert len(batches) == -(-10 * len(bios.documents) // round(20 * (1 - share)))


@pytest.mark.row("T20")
@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_of_questions_alone_are_passes_over_the_questions(make_batches, bios, epochs):
    batches = make_batches(epochs=epochs, batch_size=8, question_fraction=1.0, bucket_batches=1)
    assert len(batches) == -(-epochs * len(bios.train) // 8)
    assert min(examples(batches).values()) == epochs


@pytest.mark.row("T20")
@pytest.mark.parametrize(
    ("batch_size", "share", "bucket_batches"),
    [(4, 0.1, 1), (1, 0.3, 1), (3, 0.02, 2), (4, 0.97, 1), (1, 0.5, 1), (5, 0.15, 1), (2, 0.123, 3)],
)
def test_a_share_of_less_than_a_row_is_kept_over_batches(make_batches, batch_size, share, bucket_batches):
    """At every point of the stage the number of questions is the share of the rows so far, to half a row."""
    settings = {"batch_size": batch_size, "question_fraction": share, "bucket_batches": bucket_batches}
    batches = make_batches(steps=120, **settings)
    questions = 0
    for pool in range(120 // bucket_batches):
        steps = range(pool * bucket_batches, (pool + 1) * bucket_batches)
        questions += sum((batches.rows(step).examples >= batches.documents).sum() for step in steps)
        assert abs(questions - share * batch_size * bucket_batches * (pool + 1)) <= 0.5 + 1e-9
    seen = examples(batches)
    for kind in ("document", "question"):  # each as often as any other: none is left out, none repeated
        counts = [count for name, count in seen.items() if name.startswith(kind)]
        assert max(counts) - min(counts) <= 1 or bucket_batches > 1
    resumed = make_batches(steps=120, **settings)
    for step in (119, 60, 7):
        assert torch.equal(resumed[step]["input_ids"], batches[step]["input_ids"])


@pytest.mark.row("T20")
def test_a_large_pool_rounds_its_share_on_its_own(make_batches):
    """The batches of the shipped recipes: 2,048 rows and a share of 0.1 are 205 questions in every pool."""
    batches = make_batches(steps=48, batch_size=128, question_fraction=0.1, bucket_batches=16)
    assert [len(batches.places(number)[1]) for number in range(3)] == [205, 205, 205]


@pytest.mark.row("T20")
def test_a_share_that_is_not_one_row_of_the_stage_is_refused(make_batches, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("base: quickstart\n")
    (tmp_path / "quickstart.yaml").write_text((ROOT / "configuration/recipes/quickstart.yaml").read_text())
    few = ["pretrain.steps=2", "pretrain.batch_size=4", "pretrain.bucket_batches=1"]
    for share, found in (("0.01", 0), ("0.99", 8)):
        with pytest.raises(RecipeError, match=f"fraction is {share}, which makes {found} of 8 rows questions"):
            load_recipe(path, [*few, f"pretrain.question_fraction={share}"])
    with pytest.raises(DataError, match=r"question_fraction is 0\.01, which makes 0 of 4 rows questions"):
        make_batches(["Ada. Ada sang ."], epochs=1, batch_size=4, question_fraction=0.01, bucket_batches=1)


@pytest.fixture
def train(make_batches, tiny_model, tmp_path):
    """Return a function that trains a tiny model without a log line; returns (model, progress, saved steps)."""

    def run(folder: str, minutes: float, kill_at: int | None = None):
        batches = make_batches(steps=8, batch_size=12, question_fraction=0.25)
        original = batches.rows

        def rows(step, own=None):
            if step == kill_at:
                raise KeyboardInterrupt
            return original(step, own)

        batches.rows = rows
        set_seed(0)
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = RunArguments(checkpoint_minutes=minutes, log_steps=100_000)
        saved = []
        model, progress = train_stage(
            "pretrain", tiny_model(residual_dropout=0.1), batches, batches.stage, settings, Accelerator(cpu=True),
            tmp_path / folder, lambda model, progress: saved.append(progress.step),
        )  # fmt: skip
        return model, progress, saved

    return run


@pytest.mark.row("T20")
def test_checkpoints_come_between_log_lines_and_change_nothing(train):
    model, progress, saved = train("often", minutes=1e-9)
    rare, expected, last = train("rare", minutes=1000.0)
    assert saved == [1, 2, 3, 4, 5, 6, 7, 8]
    assert last == [8]
    assert progress.history == expected.history
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), rare.parameters(), strict=True))


@pytest.mark.row("T20")
def test_a_run_killed_before_its_first_log_line_resumes(train):
    with pytest.raises(KeyboardInterrupt):
        train("killed", minutes=1e-9, kill_at=5)
    model, progress, saved = train("killed", minutes=1e-9)
    whole, expected, _ = train("whole", minutes=1000.0)
    assert saved == [6, 7, 8]
    assert progress.history == expected.history
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), whole.parameters(), strict=True))


@pytest.mark.row("T20")
def test_a_rank_without_a_world_is_one_process(run, recipe, data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert call("evaluate", recipe, data, tmp_path / "run", f"evaluate.model={run / 'finetune'}") == 0
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.row("T20")
def test_the_packages_are_found_where_scripts_folders_are_not_on_the_path(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "all", "--config", "quickstrat"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert found.stderr == "error: quickstrat: no such recipe; did you mean quickstart?\n"


@pytest.mark.row("T20")
@pytest.mark.parametrize(
    ("asked", "warns"), [("fp16", True), ("fp8", True), ("bf16", True), ("no", False), (None, False)]
)
def test_a_precision_that_the_launcher_asks_for_in_vain_is_reported(monkeypatch, caplog, asked, warns):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if asked is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    report_ignored_precision("no")
    assert (f"accelerate's mixed_precision {asked} is ignored" in caplog.text) == warns
    assert ("not supported" in caplog.text) == (asked in ("fp16", "fp8"))
