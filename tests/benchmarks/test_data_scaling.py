"""The benchmark of data against people: every phase runs, and the bars are judged by the numbers."""

import json

import pytest

from benchmarks import data_scaling, harness, recipe_costs
from benchmarks.data_scaling import PHASES, bios_recipe, judge, open_batches, report
from benchmarks.harness import Point
from data_scripts.splits import load_training_data

SIZES = [100, 150, 200]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the benchmark as short as it can be, in this process."""
    folder = tmp_path_factory.mktemp("scaling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "in_fresh_process", harness.in_this_process)
        patch.setattr(data_scaling, "STEPS", 2)
        sizes = ["--sizes", *map(str, SIZES), "--folder", str(folder / "work")]
        assert data_scaling.main([*sizes, "--output", str(folder / "scaling.json")]) in (0, 1)
    return folder


def test_every_phase_of_every_size_is_measured_and_written(output):
    points = json.loads((output / "scaling.json").read_text())["points"]
    assert {(point["subject"], point["size"]) for point in points} == {
        (phase, size) for phase in (*PHASES, "feed") for size in SIZES
    }
    assert not any("error" in result for point in points for result in point["rounds"])
    tables = (output / "scaling.md").read_text(encoding="utf-8")
    assert all(f"| {phase} |" in tables for phase in (*PHASES, "feed"))
    assert "<svg" in (output / "scaling.svg").read_text(encoding="utf-8")


def test_the_tables_have_all_documents_and_questions(output):
    recipe = bios_recipe(200)
    data = load_training_data(recipe, output / "work" / "200")
    batches = open_batches(output / "work" / "200", recipe)
    assert batches.documents == len(data.documents) > 3 * 190
    assert batches.questions == len(data.train) > 80


def test_bars_are_judged_by_the_numbers():
    results = {Point(phase, size=size): [{"seconds": size / 1000}] for phase in PHASES for size in (1000, 2000, 4000)}
    for size in (1000, 2000, 4000):
        results[Point("tokens", size=size)] = [{"seconds": size**2 / 1e6}]
    verdicts = {bar.what: bar.holds for bar in judge(results, [1000, 2000, 4000])}
    assert verdicts["prepare: exponent of time"]
    assert not verdicts["tokens: exponent of time"]
    assert not verdicts["open and first batch, s"]
    assert "failed" in report(
        {
            "machine": {"device": "x", "threads": 1, "torch": "2"},
            "points": [{"subject": "tokens", "size": 1000, "rounds": [{"error": "the tables failed"}]}],
        }
    )


def test_the_wikipedia_recipe_is_measured_on_made_up_articles_and_extrapolated(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)
    monkeypatch.setattr(data_scaling, "STEPS", 2)
    monkeypatch.setattr(recipe_costs, "STEPS", 1)
    monkeypatch.setattr(recipe_costs, "TIMED", {("wikipedia", "no"): (4, 8)})
    output = tmp_path / "data_scaling.json"
    words = ["--recipe", "wikipedia", "--sizes", "300", "400", "500", "--folder", str(tmp_path / "work")]
    assert data_scaling.main([*words, "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    assert not any("error" in result for point in content["points"] for result in point["rounds"])
    tables = output.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"| {phase} |" in tables for phase in (*PHASES, "feed"))
    assert "| 100,000 people | 1,500,000 people |" in tables
    assert "| `wikipedia` | float32 | " in tables
    assert "The join alone read " in tables
    assert (tmp_path / "work" / "500" / "corpus" / "prepared.json").is_file()


def test_a_cost_is_extrapolated_by_the_slope_of_the_two_largest_sizes():
    assert recipe_costs.extrapolate({1_000: 2.0, 10_000: 3.0, 110_000: 13.0}, 1_000_000) == pytest.approx(102.0)
    assert recipe_costs.extrapolate({1_000: 5.0, 10_000: 4.0}, 1_000_000) == 4.0
    assert recipe_costs.extrapolate_by_exponent({100: 10.0, 400: 20.0, 1_600: 40.0}, 6_400) == pytest.approx(80.0)
