"""The benchmark of a busy neighbour: every way and place is measured and written, bars follow the numbers."""

import json
import time

import psutil
import pytest
import torch

from benchmarks import harness, neighbour
from benchmarks.harness import Point
from benchmarks.neighbour import ALONE, BESIDE, PLACES, TORCH, TRAIN, WAYS, judge
from training.barrier_spin import USER_VARIABLES


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_every_way_is_measured_alone_and_beside_a_process(two_threads, recipe, data, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)
    monkeypatch.setattr(neighbour, "INTERVAL", 0.01)
    monkeypatch.setattr(neighbour, "WARMUP", 1)
    output = tmp_path / "neighbour.json"
    options = ["--passes", "1", "--seconds", "0", "--set", f"data.path={data}"]
    assert neighbour.main(["--recipes", str(recipe), *options, "--output", str(output)]) in (0, 1)
    (point,) = json.loads(output.read_text())["points"]
    (found,) = point["rounds"]
    assert all(found[way][place][0] > 0 for way in WAYS for place in PLACES)
    assert all(way in output.with_suffix(".md").read_text() for way in WAYS)


def test_the_busy_process_has_a_lower_priority_and_ends_with_its_block():
    here = psutil.Process()
    earlier = set(here.children())
    with neighbour.busy_process():
        (process,) = set(here.children()) - earlier
        expected = min(19, here.nice() + 10)
        end = time.monotonic() + 30
        while process.nice() != expected and time.monotonic() < end:
            time.sleep(0.01)
        assert process.nice() == expected
    assert not process.is_running()


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_bars_follow_the_numbers(good):
    found = {
        TORCH: {ALONE: [10.0, 10.0], BESIDE: [0.5, 0.6]},
        TRAIN: {ALONE: [9.8, 9.8] if good else [9.5, 9.5], BESIDE: [4.9, 4.9] if good else [2.375, 2.375]},
    }
    bars = judge({Point("quickstart"): [found]})
    assert [bar.found for bar in bars] == pytest.approx([0.5, 0.98] if good else [0.25, 0.95])
    assert [bar.holds for bar in bars] == [good] * 2


def test_a_slow_pass_is_slow_in_both_terms_of_its_ratio():
    ways = {
        TORCH: {ALONE: [10.0, 2.0, 8.0], BESIDE: [0.5] * 3},
        TRAIN: {ALONE: [10.0, 2.0, 8.0], BESIDE: [5.0, 1.0, 4.0]},
    }
    assert [bar.found for bar in judge({Point("quickstart"): [ways]})] == [0.5, 1.0]


def test_what_could_not_be_measured_misses_its_bars():
    assert [bar.holds for bar in judge({Point("quickstart"): [{"error": "killed"}]})] == [False] * 2


def test_a_choice_of_the_user_and_a_single_thread_are_refused(two_threads, monkeypatch, capsys):
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert neighbour.main([]) == 2
    assert "GOMP_SPINCOUNT is '5'" in capsys.readouterr().err
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert neighbour.main([]) == 2
    assert "torch has 1 thread" in capsys.readouterr().err
