"""The benchmark of data against people: every phase runs, and the bars are judged by the numbers."""

import json

import pytest

from benchmarks import data_scaling, harness
from benchmarks.data_scaling import PHASES, judge, open_batches, open_data, report
from benchmarks.harness import Point

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
    data = open_data(output / "work" / "200", 200)
    batches = open_batches(output / "work" / "200")
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
