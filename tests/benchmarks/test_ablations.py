"""The ablations: every variant is a recipe, has the same time, and what is written follows from what was run."""

import json

import pytest

from benchmarks import ablations, harness
from benchmarks.model_ideas import IDEAS
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from data_scripts.bios_folder import FILES
from training.run_context import build_run
from training.runner import pretrain


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(ablations, "HELD_OUT", 5)
    monkeypatch.setattr(ablations, "WARMUP", 1)
    monkeypatch.setattr(ablations, "TIMED", 3)
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)


def ablate(recipe, data, output, *options):
    words = [str(data), "--recipe", str(recipe), "--minutes", "0.002", "--set", "run.log_steps=1"]
    return ablations.main([*words, "--output", str(output), *options])


def test_variants_are_compared_by_held_out_questions_and_no_dev_line_is_read(recipe, data, tmp_path):
    (data / FILES["validation"]).rename(tmp_path / "dev")
    (data / FILES["validation"]).write_bytes(b"\xff")  # who reads it fails
    try:
        output = tmp_path / "ablations.json"
        names = ("baseline", "up to two spans", ablations.AVERAGED, "n-gram embeddings")
        assert ablate(recipe, data, output, "--only", *names, "--seeds", "0", "1") == 0
    finally:
        (tmp_path / "dev").replace(data / FILES["validation"])
    points = json.loads(output.read_text())["points"]
    assert [(point["subject"], point["seed"]) for point in points] == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    for point in points:
        (found,) = point["rounds"]
        assert 0 <= found["accuracy"] <= 1
        assert found["steps"] >= 1
    assert ablate(recipe, data, output, "--only", "baseline", "on titles too") == 0  # measures the second alone
    assert json.loads(output.read_text())["points"][: len(points)] == points
    assert ablate(recipe, data, output, "--set", "pretrain.batch_size=13") == 2
    table = output.with_suffix(".md").read_text()
    assert all(name in table for name in names)
    assert str(data) not in table + output.read_text()


def test_averaged_weights_are_the_mean_of_the_last_checkpoints(recipe, data, tmp_path):
    from safetensors.torch import load_file

    settings = [f"data.path={data}", f"output={tmp_path / 'run'}", "run.log_steps=1", "run.checkpoint_minutes=1e-9"]
    average = ablations.WeightAverage(first_step=8)
    copies = []

    def copy_and_add(stage, model, progress):
        copies.append({name: weight.clone() for name, weight in model.state_dict().items()})
        average.add(stage, model, progress)

    run = build_run(load_recipe(recipe, [*settings, "pretrain.steps=10"]), on_checkpoint=copy_and_add)
    pretrain(run)
    average.replace_weights(run)
    saved = load_file(run.folder.stage("pretrain") / "model.safetensors")
    for name, weight in saved.items():
        mean = sum(copy[name] for copy in copies[7:]) / 3  # after steps 8, 9 and 10
        assert weight.allclose(mean, atol=1e-6), name


def test_every_variant_is_a_recipe_that_differs_from_the_base(tmp_path):
    path = [f"data.path={tmp_path}"]
    recipe = find_recipe(ablations.RECIPE)
    base = load_recipe(recipe, path)
    for (group, name), settings in ablations.find_variants(None).items():
        assert settings or name in IDEAS or not group
        if settings:
            assert load_recipe(recipe, [*path, *settings]) != base


def test_an_unknown_variant_is_one_line(recipe, data, tmp_path, capsys):
    assert ablate(recipe, data, tmp_path / "x.json", "--only", "magic") == 2
    assert "no variant or group 'magic'" in capsys.readouterr().err


def written(points):
    """Return the report of points (group, variant, seed, measured)."""
    machine = {"device": "a CPU", "threads": 2, "torch": "2"}
    numbers = {"accuracy": 0.5, "steps": 10, "parameters": 10**6, "padding": 0.1}
    entries = [
        {"subject": name, **({"task": group} if group else {}), "seed": seed, "rounds": [{**numbers, **measured}]}
        for group, name, seed, measured in points
    ]
    return ablations.report(
        {"machine": machine, "recipe": "r", "overrides": [], "minutes": 1, "held_out": 500, "points": entries}
    )


def test_the_gain_is_over_the_baseline_seed_by_seed_with_an_interval():
    baseline = [("", "baseline", seed, {"accuracy": accuracy}) for seed, accuracy in enumerate((0.4, 0.5, 0.6))]
    variant = [("loss", "new", seed, {"accuracy": a, "steps": 20}) for seed, a in enumerate((0.41, 0.52, 0.63))]
    failed = [("loss", "broken", 3, {"error": "killed"})]
    text = written([*baseline, *variant, *failed])
    assert "10.0 % of its positions are padding" in text
    assert "padding" not in written(variant)
    assert "| loss | new | 3 | 52.0 | +2.0 ± 2.5 | 20 | 1.00 |" in text
    assert "- broken, loss, seed 3: killed" in text
    assert "| loss | new | 1 | 41.0 | +1.0 | 20 | 1.00 |" in written([*baseline, variant[0]])
    assert "| loss | new | 3 | 52.0 | – | 20 | 1.00 |" in written(variant)


def test_variants_of_one_thing_stand_together_whenever_they_were_measured():
    measured = [("", "baseline"), ("loss", "new"), ("batches", "large"), ("loss", "newer")]
    text = written([(group, name, 0, {}) for group, name in measured])
    names = [line.split(" | ")[1] for line in text.splitlines() if line.endswith(" 1.00 |")]
    assert names == ["baseline", "new", "newer", "large"]
