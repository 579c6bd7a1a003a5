"""Whoever the umask lets read may read all that is written: a file that was written aside may not stay 0600."""

import os
import stat

import pytest

import train
from benchmarks import harness
from benchmarks.attention_recall import save_with_texts
from benchmarks.harness import Point, Record
from benchmarks.recall_models import build_model
from configuration.recipe import load_recipe
from tests.running import ROOT
from training.run_context import build_run
from training.runner import pretrain


@pytest.fixture(autouse=True)
def usual_umask():
    """Let new files be 0644."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder):
    """Return the modes of all files below a folder, with the names of those that are not 0644."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert found
    return {str(path.relative_to(folder)): oct(mode) for path, mode in found.items() if mode != 0o644}


def test_all_files_of_a_run_its_data_and_its_checkpoints(recipe, data, tmp_path):
    seen = []
    settings = [f"data.path={data}", f"output={tmp_path / 'run'}", "run.checkpoint_minutes=1e-9", "run.log_steps=1"]
    run = build_run(
        load_recipe(recipe, settings), on_checkpoint=lambda *_: seen.append((modes(run.folder.checkpoints), len(
            list(run.folder.checkpoints.rglob("*.safetensors"))))),
    )  # fmt: skip
    pretrain(run)
    run.accelerator.end_training()
    assert seen
    assert all(wrong == {} and weights for wrong, weights in seen)
    assert modes(tmp_path / "run") == {}


def test_all_files_of_a_scored_run(recipe, data, tmp_path):
    words = ["--config", str(recipe), "--set", f"data.path={data}", "--set", f"output={tmp_path / 'run'}"]
    assert train.main(["all", *words]) == 0
    assert modes(tmp_path / "run") == {}


def test_all_files_of_a_prepared_corpus(recipe, tmp_path):
    words = ["--config", str(recipe), "--set", "data.source=bios", "--set", "data.people=60"]
    assert train.main(["prepare", *words, "--set", f"output={tmp_path / 'corpus'}"]) == 0
    assert modes(tmp_path / "corpus") == {}


def test_all_files_of_a_benchmark(tmp_path):
    Record(tmp_path / "record" / "x.json", lambda content: "report", {}).add(Point("a"), {"value": 1})
    copied = tmp_path / "record" / "attention_scaling.json"
    copied.write_bytes((ROOT / "benchmarks" / "results" / "attention_scaling.cpu.json").read_bytes())
    assert harness.main([str(copied)]) == 0
    assert copied.with_suffix(".svg").is_file()
    save_with_texts(build_model("vanilla", 64), tmp_path / "model", "people", 64)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert modes(tmp_path) == {}
