"""The speedrun: the clock, the rules it can check, and the time to an accuracy."""

import json
import shutil

import pytest

from benchmarks import speedrun
from data_scripts.bios_folder import FILES, read_lines

STEP_BY_STEP = ("run.checkpoint_minutes=1e-9", "run.log_steps=2")


def race(recipe, data, output, *options):
    """Run the benchmark on the tiny recipe; return the exit status."""
    sets = [word for pair in STEP_BY_STEP for word in ("--set", pair)]
    return speedrun.main([str(data), "--recipe", str(recipe), *sets, "--output", str(output), *options])


def test_a_speedrun_times_all_from_the_files_to_the_score_and_gives_what_train_py_gives(run, recipe, data, tmp_path):
    assert race(recipe, data, tmp_path / "results.json", "--seeds", "0", "1") == 0
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    assert [point["seed"] for point in points] == [0, 1]
    (first,) = points[0]["rounds"]
    assert first["accuracy"] == json.loads((run / "results.json").read_text())["dev"]["accuracy"]
    assert first["seconds"] == pytest.approx(sum(first["phases"].values()), abs=0.01)
    assert all(seconds > 0 for seconds in first["phases"].values())
    moments = [moment for moment, _ in first["curve"]]
    assert len(moments) == 6 + 2 + 1  # copies of six steps, of two of the finetuning, and the end
    assert moments == sorted(moments)
    assert first["curve"][-1] == [first["seconds"], first["accuracy"]]
    assert str(data) not in (tmp_path / "results.json").read_text()


def test_seeds_that_an_earlier_run_left_are_kept_and_others_are_added(recipe, data, tmp_path, capsys):
    output = tmp_path / "results.json"
    assert race(recipe, data, output, "--seeds", "1") == 0
    (first,) = json.loads(output.read_text())["points"]
    assert race(recipe, data, output, "--seeds", "0", "1") == 0
    points = json.loads(output.read_text())["points"]
    assert points[0] == first
    assert [point["seed"] for point in points] == [1, 0]
    mean = 100 * sum(point["rounds"][0]["accuracy"] for point in points) / 2
    assert f"2 seeds: {mean:.1f} ± " in output.with_suffix(".md").read_text()
    assert race(recipe, data, output, "--set", "pretrain.batch_size=13") == 2
    assert "other settings: overrides was" in capsys.readouterr().err
    other = shutil.copytree(data, tmp_path / "other")
    with (other / FILES["documents"]).open("a") as file:
        file.write("Nobody .\n")
    assert race(recipe, other, output, "--seeds", "1") == 2
    assert "other settings: data was" in capsys.readouterr().err


def test_a_model_that_is_too_large_is_no_result(recipe, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speedrun, "MAX_PARAMETERS", 10_000)
    assert race(recipe, data, tmp_path / "results.json", "--seeds", "0") == 2
    assert "10,000 are allowed" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


def test_the_time_to_an_accuracy_is_when_the_mean_of_the_newest_copies_reaches_it():
    curves = [[[10, 0.1], [20, 0.5], [30, 0.4]], [[12, 0.1], [25, 0.5]]]
    assert speedrun.time_to(0.05, curves) == 10
    assert speedrun.time_to(0.3, curves) == 20
    assert speedrun.time_to(0.5, curves) == 25
    assert speedrun.time_to(0.51, curves) is None


def test_the_shipped_recipe_learns_from_every_training_question(cs224n, tmp_path):
    from configuration.recipe import load_recipe
    from configuration.recipe_names import find_recipe
    from data_scripts.splits import load_training_data

    recipe = load_recipe(find_recipe(speedrun.RECIPE), [f"data.path={cs224n}"])
    data = load_training_data(recipe, tmp_path)
    assert len(data.train) == len(read_lines(cs224n / FILES["train"]))


def test_a_missing_folder_is_one_line(recipe, tmp_path, capsys):
    assert race(recipe, tmp_path / "absent", tmp_path / "results.json", "--seeds", "0") == 2
    assert capsys.readouterr().err.count("error: ") == 1
