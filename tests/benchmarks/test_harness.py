"""What benchmarks share: points in fresh processes, rounds, records that are continued, reports, bars."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.files import DiskError
from artifacts.run_folder import RunError
from benchmarks import harness
from benchmarks.bars import Bar, print_bars
from benchmarks.harness import (
    Point,
    Record,
    failures,
    in_fresh_process,
    in_this_process,
    median_and_range,
    results_of,
    rewrite_report,
)
from tests.running import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def own_process(point):
    return {"pid": os.getpid(), "point": str(point)}


def die(point):
    os._exit(9)


def fail(point):
    raise ValueError(f"no {point}")


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def fail_stubbornly(point):
    raise Stubborn(point, lambda: 1)  # neither pickles nor unpickles


def listing(content):
    """Write a report that lists every point and its rounds."""
    return "\n".join(f"{point}: {len(rounds)}" for point, rounds in results_of(content).items()) + "\n"


def read(path):
    """Return what a record's file has, by subject."""
    return {point["subject"]: point["rounds"] for point in json.loads(path.read_text())["points"]}


def test_each_round_of_each_point_has_a_process_of_its_own(tmp_path):
    record = Record(tmp_path / "new" / "x.json", listing, {})
    record.measure([Point("a"), Point("b")], own_process, rounds=2)
    results = read(tmp_path / "new" / "x.json")
    processes = {result["pid"] for rounds in results.values() for result in rounds}
    assert [result["point"] for result in results["a"]] == ["a", "a"]
    assert len(processes) == 4
    assert os.getpid() not in processes
    assert sorted((tmp_path / "new" / "x.md").read_text().split("\n")) == ["", "a: 2", "b: 2"]


def test_a_point_that_fails_or_is_killed_is_reported_and_not_repeated(tmp_path):
    assert "killed" in in_fresh_process(die, Point("1"))["error"]
    assert "Stubborn: 1 <function" in in_fresh_process(fail_stubbornly, Point("1"))["error"]
    record = Record(tmp_path / "x.json", listing, {})
    record.measure([Point("x", size=1024)], fail, rounds=3)
    assert record.results == {Point("x", size=1024): [{"error": "ValueError: no x, 1,024"}]}
    assert failures(record.results) == "## What failed\n\n- x, 1,024: ValueError: no x, 1,024\n"


def test_a_record_is_continued_where_an_earlier_run_left_it_and_failures_are_tried_again(tmp_path):
    calls = []

    def measure(point):
        calls.append(point.subject)
        return {"error": "busy"} if point.subject == "b" and calls.count("b") == 1 else {"value": len(calls)}

    def run(rounds, settings):
        record = Record(tmp_path / "x.json", listing, settings)
        record.measure([Point("a"), Point("b")], measure, rounds=rounds, run=in_this_process)

    run(1, {"steps": 5})
    assert calls == ["a", "b"]
    run(1, {"steps": 5})
    assert calls == ["a", "b", "b"]
    run(2, {"steps": 5})
    assert read(tmp_path / "x.json").keys() == {"a", "b"}
    assert sorted(calls[3:]) == ["a", "b"]
    with pytest.raises(RunError, match="other settings"):
        run(1, {"steps": 6})


def test_runs_with_one_output_lose_nothing_that_the_other_has_measured(tmp_path):
    path = tmp_path / "new" / "x.json"

    def measure(point):
        with pytest.raises(RunError, match=r"x\.json: another run is measuring what goes into it; wait for it"):
            other.measure([Point("b")], measure, run=in_this_process)
        return {}

    other = Record(path, listing, {"steps": 5})
    Record(path, listing, {"steps": 5}).measure([Point("a")], measure, run=in_this_process)
    other.measure([Point("b")], lambda point: {}, run=in_this_process)
    assert read(path).keys() == {"a", "b"}
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.json", "x.md"]


def test_a_record_that_another_run_began_meanwhile_with_other_settings_is_left_alone(tmp_path):
    late = Record(tmp_path / "x.json", listing, {"steps": 6})
    Record(tmp_path / "x.json", listing, {"steps": 5}).measure([Point("a")], lambda point: {}, run=in_this_process)
    with pytest.raises(RunError, match="other settings: steps was 5, now 6"):
        late.measure([Point("a")], lambda point: {}, run=in_this_process)
    assert json.loads((tmp_path / "x.json").read_text())["steps"] == 5


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "–"), ([1.5], "1.5"), ([1.0, 3.0, 2.0], "2 (1–3)"), ([1200.4, 1200.3], "1,200"), ([0.00123456], "0.00123")],
    ids=str,
)
def test_a_cell_has_the_median_and_the_range_in_three_digits(values, text):
    assert median_and_range(values) == text


@pytest.mark.parametrize(
    ("found", "sign", "holds"), [(1.0, "<=", True), (1.1, "<=", False), (1.1, ">=", True), (None, "<=", False)]
)
def test_a_bar_that_is_missed_or_could_not_be_measured_fails_the_benchmark(found, sign, holds, capsys):
    assert print_bars([Bar("speed", found, sign, 1.0)]) == int(not holds)
    assert capsys.readouterr().out.startswith("holds" if holds else "MISSED")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.md")), ids=lambda path: path.name)
def test_a_committed_report_is_what_its_results_say(path):
    assert path.read_text(encoding="utf-8") == rewrite_report(path.with_suffix(".json"))


def test_reports_are_written_again_by_a_command(tmp_path, capsys):
    copied = shutil.copy(RESULTS / "speedrun.small.cpu.json", tmp_path)
    assert harness.main([copied]) == 0
    written = (tmp_path / "speedrun.small.cpu.md").read_text(encoding="utf-8")
    assert written == (RESULTS / "speedrun.small.cpu.md").read_text(encoding="utf-8")
    (tmp_path / "speedrun.bad.json").write_text("[]")
    assert harness.main([str(tmp_path / "speedrun.bad.json")]) == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("obj.json", "{}", "wanted a name that begins with one"),
        ("obj.json", '{"points": []}', "no benchmark 'obj'"),
        ("faults.cpu.json", '{"points": []}', "no benchmark 'faults'"),
        ("speedrun.json", "{}", "speedrun.json: not the results of a benchmark: KeyError('points')"),
        ("speedrun.json", '{"points": 5}', "not the results of a benchmark"),
        ("speedrun.json", '{"points": [{"subject": "x"}]}', "not the results of a benchmark: KeyError('rounds')"),
        ("speedrun.json", '{"points": []}', "speedrun.json: not results of speedrun: "),
        ("peers.json", '{"points": [], "settings": []}', "not results of peers: TypeError"),
    ],
)
def test_a_file_of_no_benchmark_is_one_line(name, content, message, tmp_path, capsys):
    (tmp_path / name).write_text(content)
    assert harness.main([str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / name).with_suffix(".md").exists()


@pytest.mark.parametrize("content", ["{}", '{"points": [{"subject": "x", "rounds": 7}]}'])
def test_a_file_without_measurements_is_not_continued(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(RunError, match=r"x\.json: not the results of a benchmark"):
        Record(tmp_path / "x.json", listing, {})


def test_a_disk_that_refuses_is_one_line_and_what_was_written_before_stays(tmp_path, monkeypatch):
    record = Record(tmp_path / "x.json", listing, {})
    record.add(Point("a"), {"value": 1})

    def refuse(path, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(harness, "write_json", refuse)
    with pytest.raises(DiskError, match=r"--output .*x\.json: .*No space left on device.*; make room"):
        record.add(Point("b"), {"value": 2})
    assert read(tmp_path / "x.json") == {"a": [{"value": 1}]}


def write_and_wait(path):
    """Write this process's number, and compute for a minute."""
    path.write_text(str(os.getpid()))
    time.sleep(60)
    return {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_computes_on_after_a_benchmark_was_killed(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from benchmarks.harness import in_fresh_process\n"
        "from tests.benchmarks.test_harness import write_and_wait\n"
        f"if __name__ == '__main__': in_fresh_process(write_and_wait, Path({str(tmp_path / 'pid')!r}))\n"
    )
    (tmp_path / "benchmark.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    benchmark = subprocess.Popen([sys.executable, str(tmp_path / "benchmark.py")], env=environment)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = Path("/proc", (tmp_path / "pid").read_text())
    assert worker.exists()
    benchmark.kill()
    benchmark.wait()
    wait_until(lambda: not worker.exists() or "Z" in (worker / "stat").read_text().split()[2])


def wait_until(condition, seconds=120):
    """Wait until a condition holds; AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
