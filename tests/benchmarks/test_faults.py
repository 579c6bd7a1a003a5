"""The benchmark of faults: it finds what is damaged, and notices a run that ended otherwise."""

import json
import random
import shutil

from benchmarks import faults
from tests.running import ROOT, Forked, call, command_line


def test_a_corruption_always_changes_the_folder(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "model.safetensors").write_bytes(b"abcdef")
    (whole / "manifest.json").write_bytes(b"{}")
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    for seed in range(50):
        harmed = shutil.copytree(whole, tmp_path / str(seed))
        faults.corrupt(harmed, random.Random(seed))
        assert {path.name: path.read_bytes() for path in harmed.iterdir()} != before


def test_an_outcome_is_equal_for_equal_runs_and_for_no_others(run, recipe, data, tmp_path):
    assert call("all", recipe, data, tmp_path / "same") == 0
    assert faults.outcome(tmp_path / "same") == faults.outcome(run)
    record = tmp_path / "same" / "finetune" / "training.json"
    values = json.loads(record.read_text())
    values["history"][0][1] += 1e-15
    record.write_text(json.dumps(values))
    assert faults.outcome(tmp_path / "same") != faults.outcome(run)


def start_forked(place, output, *options, command="all"):
    """Start as `Sandbox.start` does, without the seconds of imports."""
    words = [*command_line(command, place.recipe, place.data, output), *options]
    log = place.log(output)
    return Forked(words, ROOT / "train.py", {"ACCELERATE_USE_CPU": "true"}, log, log)


def test_one_kill_and_some_corruptions(tmp_path, monkeypatch):
    monkeypatch.setattr(faults.Sandbox, "start", start_forked)
    short = {stage: {**faults.RECIPE[stage], "steps": 20} for stage in ("pretrain", "finetune", "no_pretraining")}
    short["pretrain"]["steps"] = 60  # enough checkpoints to fill the disk
    monkeypatch.setattr(faults, "RECIPE", {**faults.RECIPE, **short})
    monkeypatch.setattr(faults, "DISK", "3m")
    results = tmp_path / "new" / "faults.json"
    assert faults.main(["--kills", "1", "--corruptions", "20", "--memory-steps", "30", "--output", str(results)]) == 0
    found = json.loads(results.read_text())
    assert (found["kills"], found["resumed_exactly"], found["lost_steps"]) == (1, 1, 0)
    assert (found["corruptions"], found["corruptions_accepted"]) == (20, 0)
    assert found["disk_full_survived"] in (True, None)
    assert found["peak_mb"] > 100
