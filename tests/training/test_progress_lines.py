"""What a run says of itself: a line of each thing that was decided, how far it is, and what to do with the model."""

import json
import re
import shlex

import pytest

from artifacts.run_folder import RunFolder
from configuration.schema import RunArguments
from modeling_minigpt import cli_minigpt
from tests.running import call
from training import loop
from training.console import format_duration
from training.loop import steps_between_points


def test_before_it_trains_a_run_says_what_with_what_and_where(recipe, data, tmp_path, capfd):
    output = tmp_path / "r"
    assert call("pretrain", recipe, data, output) == 0
    lines = dict(line.split(": ", 1) for line in capfd.readouterr().err.splitlines() if ": " in line)
    assert list(lines)[:6] == ["device", "number format", "model", "data", "steps", "output"]
    assert re.fullmatch(r"cpu, \d+ threads?, 1 process", lines["device"])
    assert lines["number format"].startswith("float32")
    assert "2 layers of 32, vanilla attention, a vocabulary of" in lines["model"]
    documents = (data / "wiki.txt").read_text(encoding="utf-8").count("\n")
    assert lines["data"].startswith(f"{data.name}, {documents:,} documents, ")
    assert lines["steps"] == "pretrain 6 of 12 rows"
    assert lines["output"] == str(output)


def test_where_no_bar_can_be_drawn_there_are_plain_lines(recipe, data, tmp_path, capfd):
    assert call("pretrain", recipe, data, tmp_path / "r") == 0
    err = capfd.readouterr().err
    assert "\r" not in err
    first, *_, last = [line for line in err.splitlines() if line.startswith("pretrain ")]
    assert first.startswith("pretrain 1/6  loss ")
    assert last.startswith("pretrain 6/6  loss ")
    assert last.endswith("tokens/s  0 s left")


def test_where_a_bar_is_drawn_there_are_no_lines(recipe, data, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(loop, "draws_bars", lambda: True)
    assert call("pretrain", recipe, data, tmp_path / "r") == 0
    err = capfd.readouterr().err
    assert "\r" in err
    assert "s left" not in err


def test_a_short_stage_has_as_many_points_as_steps_and_a_long_one_those_that_the_recipe_asks_for(
    recipe, data, tmp_path
):
    assert call("pretrain", recipe, data, tmp_path / "r") == 0
    history = RunFolder(tmp_path / "r").training_record("pretrain")["history"]
    assert [step for step, _ in history] == [1, 2, 3, 4, 5, 6]
    assert [steps_between_points(RunArguments(log_steps=10), steps) for steps in (19, 40, 199, 200, 5000)] == [
        1, 2, 9, 10, 10,
    ]  # fmt: skip


def test_a_scored_run_says_where_its_model_is_and_how_to_ask_it(recipe, data, tmp_path, capfd):
    output = tmp_path / "a run"  # a space, which a shell would part
    settings = ("data.calibration_questions=8", "data.withheld_people=2")
    assert call("all", recipe, data, output, *settings) == 0
    out, err = capfd.readouterr()
    said = dict(line.split(": ", 1) for line in out.splitlines()[-3:])
    assert list(said) == ["report", "model", "ask it"]
    assert said["report"] == str(output / "report.md")
    sample = json.loads((output / "results.json").read_text())["samples"][0]
    assert shlex.split(said["ask it"]) == ["minigpt", "ask", str(output / "finetune"), sample["question"]]
    assert "calibrating birthplace: 8 people, " in err
    assert "scoring birthplace: " in err
    assert cli_minigpt.main(shlex.split(said["ask it"])[1:]) == 0
    assert capfd.readouterr().out.startswith(sample["question"])


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")])
def test_a_duration_is_written_in_its_unit(seconds, text):
    assert format_duration(seconds) == text
