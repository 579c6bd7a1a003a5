"""The command lines of all benchmarks: a wrong value is refused by name before anything is measured."""

import argparse
import importlib

import pytest
import torch

from benchmarks import (
    attention_recall,
    capacity,
    command_line,
    compare,
    data_scaling,
    neighbour,
    number_formats,
    peers,
    serving,
)
from benchmarks.harness import Record
from tests.running import ROOT

MODULES = [
    path.stem
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "new_parser(__doc__" in path.read_text(encoding="utf-8")
]
WITH_DEVICE = ["attention_scaling", "knowledge_of_models", "peers", "utilisation"]
WITH_RECIPE = ["ablations", "speedrun", "step_profile"]
FROM_ZERO = {
    ("attention_recall", "--steps"),
    ("candidates_scaling", "--seconds"),
    ("capacity", "--budget"),
    ("capacity", "--extraction-exposures"),
    ("faults", "--corruptions"),
    ("faults", "--kills"),
    ("knowledge_of_models", "--candidates"),
    ("knowledge_of_models", "--shots"),
    ("neighbour", "--seconds"),
    ("peers", "--warmup"),
}


class Seen(Exception):
    """Carries a parser out of the main function that has built it."""


def parser_of(module):
    """Return the parser of a benchmark's main function."""

    def show(parser, argv=None):
        raise Seen(parser)

    main = importlib.import_module(f"benchmarks.{module}").main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", show)
        with pytest.raises(Seen) as seen:
            main([])
    return seen.value.args[0]


def required(parser, folder):
    """Return words for all that a parser requires."""
    words = ["x" for action in parser._actions if not action.option_strings and action.required]
    for action in parser._actions:
        if action.option_strings and action.required and action.dest != "output":
            words += [action.option_strings[0], action.choices[0] if action.choices else "x=y"]
    return [*words, "--output", str(folder / "x.json")]


def is_number(action):
    """Return whether an option takes numbers."""
    try:
        return isinstance(action.type("1"), int | float)
    except (TypeError, argparse.ArgumentTypeError):
        return False


def refusal(parser, words, capsys):
    """Return what a parser says when it refuses some words."""
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_there_are_benchmarks_to_look_at():
    assert len(MODULES) == 17
    assert set(WITH_DEVICE + WITH_RECIPE) < set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_number_that_cannot_be_measured_with_is_refused_by_its_options_name(module, tmp_path, capsys):
    parser = parser_of(module)
    words = required(parser, tmp_path)
    for action in filter(is_number, parser._actions):
        option = action.option_strings[0]
        is_seed = "seed" in action.dest
        wrong = ["-1", "nan", "inf", "x", "", "1e999"]
        if not is_seed and (module, option) not in FROM_ZERO:
            wrong.append("0")
        if isinstance(action.type("1"), int):
            wrong += ["1.5", str(10**30)]
        times = action.nargs if isinstance(action.nargs, int) else 1
        for value in wrong:
            said = refusal(parser, [*words, option, *[value] * times], capsys)
            assert f"argument {option}: must be " in said
            assert value[:80] in said
        if is_seed:
            assert vars(parser.parse_args([*words, option, "0"]))[action.dest] in (0, [0])


@pytest.mark.parametrize("module", MODULES)
def test_no_option_takes_a_number_without_bounds(module):
    assert [action.option_strings for action in parser_of(module)._actions if action.type in (int, float)] == []


@pytest.mark.parametrize("module", MODULES)
def test_results_that_could_not_be_written_end_the_command_before_it_measures(module, tmp_path, capsys):
    parser = parser_of(module)
    words = required(parser, tmp_path)[:-1]
    (tmp_path / "file").write_text("a file")
    (tmp_path / "taken.md").mkdir()
    outputs = {
        "x.md": "must end with .json",
        ".json": "must end with .json",
        "file/b.json": "Not a directory",
        "file/deep/b.json": "Not a directory",
        "taken.json": "taken.md: cannot be written: found a folder",
        "n" * 300 + ".json": "File name too long",
        "n" * 300 + "/b.json": "File name too long",
    }
    for name, message in outputs.items():
        said = refusal(parser, [*words, str(tmp_path / name)], capsys)
        assert "argument --output: " in said
        assert message in said
    parser.parse_args([*words, str(tmp_path / "new" / "folder" / "b.json")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.md"]  # nothing is left behind


@pytest.mark.parametrize(("module", "option"), [(attention_recall, "--save"), (data_scaling, "--folder")])
def test_a_folder_that_could_not_be_written_ends_the_command(module, option, tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(SystemExit):
        module.main([option, str(tmp_path / "file"), "--output", str(tmp_path / "x.json")])
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.parametrize("module", WITH_DEVICE)
def test_a_device_that_is_not_there_is_refused(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parser = parser_of(module)
    words = [*required(parser, tmp_path), "--device"]
    assert "found 'cuda': no CUDA device is available" in refusal(parser, [*words, "cuda"], capsys)
    assert "argument --device: must be a device of this machine, found 'gpu'" in refusal(
        parser, [*words, "gpu"], capsys
    )
    assert parser.parse_args([*words, "cpu"]).device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert parser.parse_args([*words, "cuda"]).device == "cuda"
    assert command_line.available_device("cuda:0") == "cuda:0"
    with pytest.raises(argparse.ArgumentTypeError, match="the last one is cuda:0"):
        command_line.available_device("cuda:1")


@pytest.mark.parametrize("module", WITH_RECIPE)
def test_a_recipe_is_found_by_its_name_or_path_as_train_py_finds_it(module, tmp_path, capsys):
    parser = parser_of(module)
    words = required(parser, tmp_path)
    shipped = ROOT / "configuration" / "recipes" / "quickstart.yaml"
    assert parser.parse_args(words).recipe == shipped.with_name("cs224n-speedrun.yaml")
    assert parser.parse_args([*words, "--recipe", "quickstart"]).recipe == shipped
    assert parser.parse_args([*words, "--recipe", str(shipped)]).recipe == shipped
    said = refusal(parser, [*words, "--recipe", "quikstart"], capsys)
    assert "argument --recipe: quikstart: no such recipe; did you mean quickstart?" in said


@pytest.mark.parametrize("module", [neighbour, number_formats, compare], ids=lambda module: module.__name__)
def test_an_unknown_recipe_ends_the_command_before_it_measures(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(neighbour, "check_machine", lambda: None)
    words = ["--recipe", "quikstart", "--variants", "vanilla"] if module is compare else ["--recipes", "quikstart"]
    assert module.main([*words, "--output", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err == "error: quikstart: no such recipe; did you mean quickstart?\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (serving, ["nothing/at/all"], "nothing/at/all: no such folder"),
        (capacity, ["--sizes", "33x2"], "--sizes 33x2: vanilla: "),
        (capacity, ["--sizes", "1x1"], "even head width"),
        (capacity, ["--sizes", "1000000x100"], "GB, this machine has"),
        (capacity, ["--bits-offered", "1e300"], "wanted at most"),
        (peers, ["--shape", "2", "3", "16", "96"], "hidden_size"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else str(value),
)
def test_what_no_model_can_have_is_one_line(module, words, message, tmp_path, capsys):
    assert module.main([*words, "--output", str(tmp_path / "x.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "100"], "argument --length: must be at least 256 with these --steps, found 100"),
        (["--length", "8", "--steps", "0", "0", "5", "0", "0"], "must be at least 16 with these"),
        (["--steps", "0", "0", "0", "0", "0"], "argument --steps: must have a step"),
    ],
    ids=["length", "later", "steps"],
)
def test_texts_too_short_to_train_on_are_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        attention_recall.main([*words, "--output", str(tmp_path / "x.json")])
    assert message in capsys.readouterr().err


def test_a_record_is_checked_before_it_is_measured(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(command_line.OutputError, match=r"file/b\.json: cannot be written"):
        Record(tmp_path / "file" / "b.json", str, {})
