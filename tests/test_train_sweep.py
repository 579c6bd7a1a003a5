"""A sweep: a run for each combination and seed, compared on held-out training questions; what is done is skipped."""

import json

import pytest

import train
from configuration import recipe_names
from configuration.recipe import RecipeError
from training import sweep as sweeps
from training.sweep import choose_part, parse_grid, plan_sweep

GRID = ("--grid", "pretrain.batch_size=8,12", "--grid", "pretrain.learning_rate=1e-3", "--seeds", "0", "1")
HELD_OUT = ("data.validation_questions=6",)


def call(recipe, data, output, *words, overrides=HELD_OUT):
    """Run a sweep in this process; return the exit status."""
    sets = [word for pair in (f"data.path={data}", f"output={output}", *overrides) for word in ("--set", pair)]
    return train.main(["sweep", "--config", str(recipe), *sets, *words])


@pytest.fixture
def no_training(monkeypatch):
    """Write results instead of training; give the outputs that were run, in their order."""
    ran = []

    def run(recipe, command, resume):
        assert resume
        ran.append((recipe.output, command))

    monkeypatch.setattr(sweeps, "run_command", run)
    return ran


def test_a_sweep_trains_and_compares_every_combination_without_the_dev_file(recipe, data, tmp_path, capfd):
    blind = tmp_path / "blind"
    blind.mkdir()
    for path in data.iterdir():
        (blind / path.name).write_bytes(b"\xff not to be read\n" if "dev" in path.name else path.read_bytes())
    assert call(recipe, blind, tmp_path / "s", *GRID) == 0
    names = {
        f"pretrain.batch_size={size},pretrain.learning_rate=1e-3,seed={seed}" for size in (8, 12) for seed in (0, 1)
    }
    assert {path.name for path in (tmp_path / "s").iterdir()} == names
    for name in names:
        results = json.loads((tmp_path / "s" / name / "results.json").read_text())
        assert (results["split"], results["baselines"]["no_pretraining"]) == ("held_out", None)
    out = capfd.readouterr().out
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| pretrain.batch_size=")]
    assert [row[2].strip() for row in rows] == ["0, 1", "0, 1"]  # the seeds of one setting are one row
    assert {row[3].strip() for row in rows} == {"8", "12"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert call(recipe, blind, tmp_path / "s", *GRID) == 0  # all is finished
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_parts_are_all_of_it_and_nothing_twice(recipe, data, tmp_path, no_training):
    for part in ("1/3", "2/3", "3/3"):
        assert call(recipe, data, tmp_path / "s", *GRID, "--part", part) == 0
    outputs = [output for output, command in no_training if command == "pretrain"]
    assert len(outputs) == len(set(outputs)) == 4
    assert [command for output, command in no_training if output == outputs[0]] == ["pretrain", "finetune", "evaluate"]


def test_a_point_that_fails_does_not_end_the_others(recipe, data, tmp_path, capfd):
    words = ("--grid", "pretrain.gradient_limit=1e-9,1000", "--seeds", "0")
    assert call(recipe, data, tmp_path / "s", *words) == 1
    assert "error: pretrain.gradient_limit=1e-9,seed=0: " in capfd.readouterr().err
    assert (tmp_path / "s" / "pretrain.gradient_limit=1000,seed=0" / "results.json").is_file()


def test_a_point_without_memory_does_not_end_the_others(recipe, data, tmp_path, monkeypatch, capfd):
    tried = []

    def run(recipe, command, resume):
        tried.append(recipe.output)
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(sweeps, "run_command", run)
    assert call(recipe, data, tmp_path / "s", "--grid", "pretrain.batch_size=8,12", "--seeds", "0") == 1
    assert len(tried) == 2
    assert "pretrain.batch_size=8,seed=0: RuntimeError: can't allocate memory" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("show", "stopped"),
        ("prepare", train.AGAIN),
        ("sweep", train.AGAIN),
        ("all", "with --resume"),
    ],
)
def test_ctrl_c_while_starting_gives_the_command_s_own_advice(recipe, monkeypatch, capfd, command, advice):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe_names, "find_recipe", interrupt)
    assert train.main([command, "--config", str(recipe)]) == 130
    assert capfd.readouterr().err.strip().endswith(advice)


def test_all_recipes_are_checked_before_the_first_is_trained(recipe, data, tmp_path, no_training, capfd):
    assert call(recipe, data, tmp_path / "s", "--grid", "pretrain.batch_size=8,none") == 2
    assert "pretrain.batch_size" in capfd.readouterr().err
    assert not no_training


@pytest.mark.parametrize(
    ("words", "overrides", "message"),
    [
        (("--grid", "pretrain.steps"), HELD_OUT, "--grid pretrain.steps: wanted KEY=VALUE,VALUE,…"),
        (("--grid", "pretrain.steps=1,,2"), HELD_OUT, "--grid pretrain.steps=1,,2: wanted KEY=VALUE"),
        (("--grid", "seed=1,2"), HELD_OUT, "--grid seed=1,2: seeds are given by --seeds"),
        (("--part", "0/2"), HELD_OUT, "--part 0/2: wanted I/N"),
        (("--part", "3/2"), HELD_OUT, "--part 3/2: wanted I/N"),
        ((), (), "--set data.validation_questions=300"),
        (
            ("--grid", "data.validation_questions=6,0"),
            HELD_OUT,
            "data.validation_questions=0,seed=0: a sweep is scored",
        ),
        (("--grid", "output=x,y"), HELD_OUT, "--grid output=x,y: each run has a folder of its own"),
        (("--grid", "finetune.start_from=a/b,a_b"), HELD_OUT, "two combinations would have this folder"),
        (("--grid", "pretrain.learning_rate=1e-3,0.001"), HELD_OUT, "wanted different runs, found the same recipe"),
        (("--grid", f"finetune.start_from={'a' * 250}"), HELD_OUT, "wanted at most 255 bytes"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(recipe, data, tmp_path, capfd, words, overrides, message):
    assert call(recipe, data, tmp_path / "s", *words, overrides=overrides) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_a_grid_is_read_in_its_order_and_without_repetitions():
    assert parse_grid(["a.b=2,1,2", "c=x"]) == [["a.b=2", "a.b=1"], ["c=x"]]
    with pytest.raises(RecipeError, match="a is there twice"):
        parse_grid(["a=1", "a=2"])


def test_a_folder_in_a_value_is_no_folder_of_the_sweep(recipe, data, tmp_path):
    words = [f"data.path={data}", f"output={tmp_path}", *HELD_OUT]
    (point,) = plan_sweep(recipe, words, ["finetune.start_from=some/model"], [0])
    assert point.name == "finetune.start_from=some_model,seed=0"
    assert choose_part([point], None) == [point]
    assert [point.name for point in plan_sweep(recipe, words, [], [3, 0, 3])] == ["seed=3", "seed=0"]
