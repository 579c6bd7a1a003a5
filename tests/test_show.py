"""`train.py show` says what a recipe would run, and leaves no trace where the run would write."""

import re

import train
from tests.running import command_line


def show(capsys, *arguments):
    """Run it in this process; return its status and what it wrote, on one line a paragraph."""
    words = [word for word in command_line("show", *arguments) if word != "--resume"]
    status = train.main(words)
    return status, capsys.readouterr().out


def test_settings_sizes_and_rows_are_shown_and_nothing_is_written(recipe, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out = show(capsys, recipe, data, tmp_path / "run", "pretrain.batch_size=24")
    assert status == 0
    assert not (tmp_path / "run").exists()
    assert re.search(r"seed +│ 0 +│ Seed of the initial weights", out)
    pretrain = out.split("pretrain ")[1].split("finetune ")[0]
    assert re.search(r"batch_size +│ \*24 +│ Rows per step", pretrain)
    assert re.search(r"beta2 +│ 0\.95 ", pretrain)  # a default, without a star
    assert re.search(r"policy +│ salient-span", out)
    assert re.search(r"hidden_size +│ \*32 +│ width of the residual stream", out)
    assert re.search(r"intermediate_size +│ 128 ", out)  # resolved: four times the width
    assert re.search(r"parameters: [\d,]+\n", out)
    assert re.search(r"pretrain: 6 steps, estimated \d+\.\d minutes \(from one step on this machine\)", out)
    assert int(re.search(r"memory: ([\d,]+) MiB, measured", out)[1].replace(",", "")) > 100
    rows = out.split("in brackets\n")[1].splitlines()
    assert len(rows) == 5
    assert all(re.search(r"\[[^\]]*⁇\]$", row.rstrip()) for row in rows)  # what counts, to the sentinel that ends it


def test_a_recipe_that_cannot_run_is_refused_as_by_training(recipe, tmp_path, capsys):
    words = command_line("show", recipe, tmp_path / "nowhere", tmp_path / "run")
    assert train.main(words) == 2
    assert "no such folder" in capsys.readouterr().err
