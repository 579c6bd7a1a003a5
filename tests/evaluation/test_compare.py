"""Runs side by side: seeds are put together, what differs is a column, and what cannot be compared is one line."""

import csv
import json

import pytest

from evaluation import compare


@pytest.fixture
def add_run(tmp_path):
    """Return a function that makes the folder of an invented run."""

    def add(name, accuracy=0.5, seed=0, answered=0.4, minutes=2.0, inputs=None, scored=None, **settings):
        folder = tmp_path / name
        folder.mkdir()
        recipe = {"seed": seed, "output": str(folder), "data": {"path": str(folder)}, "run": {"log_steps": seed}}
        recipe["pretrain"] = {"steps": 100, "start_from": None, **settings}
        (folder / "recipe.json").write_text(json.dumps(recipe))
        if inputs is not None:
            (folder / "inputs.json").write_text(json.dumps(inputs))
        if scored is not None:
            (folder / "scoring.json").write_text(json.dumps({"scored": scored}))
        if accuracy is not None:
            results = {
                "dataset": "x",
                "split": "dev",
                "dev": {"accuracy": accuracy},
                "baselines": {"no_pretraining": 0.125},
                "trust": {"auroc_correct": 0.75, "answered": answered},
                "train_minutes": {"pretrain": minutes, "finetune": 1.0, "no_pretraining": 9.0},
                "parameters": 1_500_000,
            }
            (folder / "results.json").write_text(json.dumps(results))
        return folder

    return add


def rows_of(capsys):
    """Return the header and the rows of the table printed."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def test_seeds_of_one_recipe_are_one_row_and_what_differs_is_a_column(add_run, capsys):
    runs = [add_run("a", 0.5), add_run("b", 0.7, seed=1, minutes=4.0), add_run("c", 0.25, steps=200, answered=None)]
    assert compare.main([*map(str, runs)]) == 0
    header, (both, other) = rows_of(capsys)
    assert header[:3] == ["run", "seeds", "pretrain.steps"]
    assert (both["run"], both["seeds"], both["pretrain.steps"]) == ("a and 1 more", "0, 1", "100")
    assert both["accuracy, %"] == "60.0 ± 14.1"
    assert both["minutes"] == "4.0 ± 1.4"  # without those of the model that is not pretrained
    assert both["answered at the certified thresholds, %"] == "40.0 ± 0.0"
    assert (other["run"], other["pretrain.steps"], other["accuracy, %"]) == ("c", "200", "25.0")
    assert other["answered at the certified thresholds, %"] == "–"
    assert other["AUROC: known against made-up people"] == "–"
    assert other["parameters, M"] == "1.50"


def test_runs_of_other_data_are_other_rows_and_a_folder_counts_once(add_run, tmp_path, capsys, monkeypatch):
    runs = [add_run(name, seed=seed, inputs={"wiki.txt": text}) for name, seed, text in (("a", 0, "x"), ("b", 1, "y"))]
    assert compare.main([*map(str, runs), f"{runs[0]}/", str(tmp_path / "b" / ".." / "a")]) == 0
    header, rows = rows_of(capsys)
    assert header[2] == "wiki.txt"
    assert [(row["run"], row["seeds"]) for row in rows] == [("a", "0"), ("b", "1")]
    monkeypatch.chdir(runs[0])
    assert compare.main(["."]) == 0
    assert rows_of(capsys)[1][0]["run"] == "a"


def test_a_mean_says_of_how_many_seeds_it_is_where_not_all_have_the_figure(add_run, capsys):
    runs = [add_run("a", 0.5), add_run("b", 0.7, seed=1, answered=None), add_run("c", 0.6, seed=2, answered=0.6)]
    assert compare.main([*map(str, runs)]) == 0
    _, (row,) = rows_of(capsys)
    assert row["accuracy, %"] == "60.0 ± 10.0"
    assert row["answered at the certified thresholds, %"] == "50.0 ± 14.1 (2 of 3)"


def test_runs_scored_on_other_questions_are_other_rows(add_run, capsys):
    scored = ("as ever", "as ever", "other people")
    runs = [add_run(f"r{n}", seed=n, inputs={"wiki.txt": "x"}, scored=text) for n, text in enumerate(scored)]
    assert compare.main([*map(str, runs)]) == 0
    header, rows = rows_of(capsys)
    assert header[2] == "scored"
    assert [row["seeds"] for row in rows] == ["0, 1", "2"]


def test_seeds_that_invent_their_own_people_are_one_row(add_run, capsys):
    runs = [add_run(f"r{n}", seed=n, inputs={"wiki.txt": f"{n}"}, scored=f"{n}") for n in range(3)]
    for run in runs:
        recipe = json.loads((run / "recipe.json").read_text())
        (run / "recipe.json").write_text(json.dumps({**recipe, "data": {"source": "synthetic", "people": 60}}))
    assert compare.main([*map(str, runs)]) == 0
    assert [row["seeds"] for row in rows_of(capsys)[1]] == ["0, 1, 2"]


def test_weights_to_start_from_count_where_a_seed_is_there_twice(add_run, capsys):
    starts = [{"finetune.start_from": {"model.safetensors": text}} for text in "xy"]
    runs = [str(add_run(f"r{seed}", seed=seed, inputs=starts[seed])) for seed in (0, 1)]
    assert compare.main(runs) == 0
    assert [row["seeds"] for row in rows_of(capsys)[1]] == ["0, 1"]
    assert compare.main([*runs, str(add_run("other", seed=0, inputs=starts[1]))]) == 0
    header, rows = rows_of(capsys)
    assert "finetune.start_from" in header
    assert [row["seeds"] for row in rows] == ["0", "0, 1"]


def test_the_csv_has_a_row_a_run_with_every_figure(add_run, tmp_path, capsys):
    runs = [add_run("a"), add_run("b", 0.75, seed=3, answered=None, momentum=0.5)]
    table = tmp_path / "runs.csv"
    assert compare.main([*map(str, runs), "--csv", str(table)]) == 0
    first, second = csv.DictReader(table.open(encoding="utf-8", newline=""))
    assert (first["run"], first["seed"], first["accuracy"], first["pretrain.momentum"]) == (
        str(runs[0]),
        "0",
        "0.5",
        "",
    )
    assert (second["accuracy"], second["answered"], second["pretrain.momentum"]) == ("0.75", "", "0.5")
    assert compare.main([str(runs[0]), "--csv", str(tmp_path)]) == 2
    assert f"error: {tmp_path}: cannot be written" in capsys.readouterr().err


def test_runs_without_results_are_named_and_left_out(add_run, capsys):
    done, unfinished = add_run("done"), add_run("unfinished", None)
    assert compare.main([str(done), str(unfinished)]) == 0
    captured = capsys.readouterr()
    assert "unfinished: left out" in captured.err
    assert "unfinished" not in captured.out
    assert compare.main([str(unfinished)]) == 2
    assert "none of these runs has results" in capsys.readouterr().err


def test_what_is_no_run_is_named_and_left_out(add_run, tmp_path, capsys):
    run = add_run("run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "recall.json").write_text("{}")
    assert compare.main(list(map(str, [run, tmp_path / "empty", tmp_path / "recall.json"]))) == 0
    captured = capsys.readouterr()
    assert "empty: left out, it is no run: it has no recipe.json" in captured.err
    assert "recall.json: left out, it is no run" in captured.err
    assert "recall" not in captured.out
    assert compare.main([str(tmp_path / "empty")]) == 2
    assert "none of these runs has results" in capsys.readouterr().err


def test_a_missing_relation_and_damaged_results_are_one_line(add_run, capsys):
    run = add_run("run")
    assert compare.main([str(run), "--relation", "studied"]) == 2
    assert "has no relation 'studied'" in capsys.readouterr().err
    (run / "results.json").write_text("{")
    assert compare.main([str(run)]) == 2
    assert "not JSON" in capsys.readouterr().err
    whole = {"split": "dev", "dev": {"accuracy": 1.0}, "baselines": {"no_pretraining": 0.0}, "parameters": 1}
    for recipe, results in (("{}", whole), ('{"seed": 0}', {}), ('{"seed": 0}', {**whole, "split": "x"})):
        (run / "recipe.json").write_text(recipe)
        (run / "results.json").write_text(json.dumps(results))
        assert compare.main([str(run)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is damaged: lacks" in line


def test_a_damaged_run_is_named_and_the_others_are_compared(add_run, capsys):
    runs = [add_run("whole"), add_run("damaged"), add_run("cut")]
    (runs[1] / "results.json").write_text("{}")
    (runs[2] / "recipe.json").write_text("{")
    assert compare.main(list(map(str, runs))) == 0
    captured = capsys.readouterr()
    assert "| whole |" in captured.out
    assert [line.rpartition("; ")[2] for line in captured.err.splitlines()] == ["left out", "left out"]
    assert compare.main(list(map(str, runs[1:]))) == 2
    assert "error: " in capsys.readouterr().err


def test_each_relation_has_its_own_figures(add_run, capsys):
    run = add_run("run")
    results = json.loads((run / "results.json").read_text())
    studied = {"accuracy": 0.875, "majority_answer": "Law", "no_pretraining": 0.25}
    studied |= {"trust": None, "exposure": [], "samples": []}
    results["relations"] = {"birthplace": {}, "studied": studied}
    (run / "results.json").write_text(json.dumps(results))
    assert compare.main([str(run), "--relation", "studied"]) == 0
    _, (row,) = rows_of(capsys)
    assert (row["accuracy, %"], row["no pretraining, %"], row["answered at the certified thresholds, %"]) == (
        "87.5",
        "25.0",
        "–",
    )
