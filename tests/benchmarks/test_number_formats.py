"""The benchmark of number formats: every format and the choice are measured, and a wrong or slow choice is a miss."""

import json

import pytest

from benchmarks import harness, number_formats
from benchmarks.harness import Point
from benchmarks.number_formats import CHOICE, judge


def test_each_format_and_the_choice_are_measured(recipe, data, tmp_path, monkeypatch, any_precision):
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)
    output = tmp_path / "formats.json"
    words = [str(data), "--recipes", str(recipe), "--rounds", "1", "--output", str(output)]
    number_formats.main(words)
    points = {point["subject"]: point["rounds"] for point in json.loads(output.read_text())["points"]}
    assert set(points) == {CHOICE, "float32", "bfloat16"}
    assert all(found["seconds"] > 0 for rounds in points.values() for found in rounds)
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert f"| {recipe} |" in text
    assert "float32" in text.split("| auto chooses |")[1]


@pytest.mark.parametrize(
    ("chosen", "waited", "missed"),
    [("bfloat16", 0.5, []), ("float32", 0.5, ["time of a step"]), ("bfloat16", 2.0, ["seconds to choose"])],
)
def test_a_slower_format_or_a_long_wait_is_a_miss(chosen, waited, missed):
    results = {
        Point(CHOICE, "cs224n"): [{"seconds": waited, "formats": {"model": chosen}}],
        Point("float32", "cs224n"): [{"seconds": 0.12}],
        Point("bfloat16", "cs224n"): [{"seconds": 0.1}],
    }
    bars = [bar for bar in judge(results) if not bar.holds]
    assert [any(what in bar.what for bar in bars) for what in missed] == [True] * len(missed)
    assert len(bars) == len(missed)


def test_a_format_that_could_not_be_measured_is_a_miss():
    results = {Point(CHOICE, "cs224n"): [{"seconds": 0.1, "formats": {"model": "float32"}}]}
    assert [bar.holds for bar in judge(results)] == [False, True]
