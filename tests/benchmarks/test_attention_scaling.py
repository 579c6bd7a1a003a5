"""The scaling benchmark: every subject runs, the files say what was measured, bars are judged by the numbers."""

import functools
import json

import pytest
import torch

from benchmarks import attention_scaling, attention_subjects, harness
from benchmarks.attention_scaling import collect, judge, parse_arguments, plan, report, slopes
from benchmarks.attention_subjects import CUDA_VARIANTS, EAGER, EXHAUSTIVE, LINEAR, PEERS, SDPA, VARIANTS
from benchmarks.harness import Point
from benchmarks.measurement import time_call

LENGTHS = [1024, 2048, 4096, 8192, 16384]
TRAINING = ("forward+backward", "layer")
MACHINE = {"device": "x", "threads": 1, "torch": "2", "dtype": "float32"}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the benchmark as short as it can be, in this process."""
    folder = tmp_path_factory.mktemp("scaling")
    sizes = ["--device", "cpu", "--lengths", "1024", "--rounds", "1", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "in_fresh_process", harness.in_this_process)
        patch.setattr(attention_subjects, "time_call", functools.partial(time_call, at_least=0.0))
        assert attention_scaling.main([*sizes, "--output", str(folder / "scaling.json")]) == 0
    return folder


@pytest.fixture(scope="module")
def record(output):
    """Return what the run wrote."""
    return json.loads((output / "scaling.json").read_text())


def test_every_subject_is_measured_and_written(output, record):
    measured = {(point["subject"], point["task"]): point["rounds"][0] for point in record["points"]}
    assert set(measured) == {
        *((subject, measure) for subject in VARIANTS for measure in ("step", "decode") if subject != EAGER),
        *((subject, "layer") for subject in (*VARIANTS, *PEERS)),
    }
    for results in measured.values():
        assert "error" not in results
        for result in results.values():
            assert result["seconds"] > 0
    assert record["machine"]["threads"] == 1
    tables = (output / "scaling.md").read_text(encoding="utf-8")
    assert all(subject in tables for subject in (*VARIANTS, *PEERS))
    assert "<svg" in (output / "scaling.svg").read_text(encoding="utf-8")


def test_constant_caches_are_smaller_than_vanillas(record):
    cached = {p["subject"]: p["rounds"][0]["decode"]["bytes"] for p in record["points"] if p["task"] == "decode"}
    vanilla = 2 * 2 * (1024 + 128) * 128 * 4  # keys and values of two layers, float32
    assert cached[SDPA] == vanilla
    assert cached["performer"] < cached["window"] < vanilla


def test_the_choice_of_blocks_is_measured_alone_where_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)
    monkeypatch.setattr(attention_subjects, "time_call", functools.partial(time_call, at_least=0.0))
    lengths = ["--device", "cpu", "--lengths", "512", "1024", "--rounds", "1", "--threads", "1"]
    output = tmp_path / "choice.json"
    assert attention_scaling.main([*lengths, "--measures", "choice", "--output", str(output)]) == 0
    points = json.loads(output.read_text())["points"]
    found = {(point["subject"], point["size"]): point["rounds"][0]["choice"]["seconds"] for point in points}
    assert found.keys() == {(subject, size) for subject in ("selected", EXHAUSTIVE) for size in (512, 1024)}
    assert all(seconds > 0 for seconds in found.values())
    assert "Choice of blocks alone" in output.with_suffix(".md").read_text(encoding="utf-8")


def invented(subject, what, task, power, constant=1.0):
    """Return results of a subject whose seconds and bytes follow a power of the length."""
    return {
        Point(subject, task, length): [{what: {"seconds": constant * length**power, "bytes": length**power}}] * 2
        for length in LENGTHS
    }


def bars(results):
    """Judge results as if these lengths had been asked for; return found and holds by what is judged."""
    table = collect(results)
    arguments = parse_arguments(["--device", "cpu", "--lengths", *map(str, LENGTHS)])
    return {bar.what: (bar.found, bar.holds) for bar in judge(table, arguments)}


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_bars_follow_the_numbers(good):
    found = bars(
        invented(SDPA, *TRAINING, 2.0 if good else 1.5)
        | invented("linformer", *TRAINING, 1.0 if good else 1.5, constant=8192 / 4 if good else 1.0)
        | invented("linformer", "decode", "decode", 0.0 if good else 0.5)
    )
    judged = [(f"{SDPA}: exponent of time", 2.0, 1.5)]
    judged += [("linformer: exponent of time", 1.0, 1.5), ("linformer: exponent of peak memory", 1.0, 1.5)]
    judged += [("linformer: speed over SDPA's at 8,192 tokens", 4.0, 1.0)]
    judged += [("linformer: decoding at 16,384 over 1,024 tokens", 1.0, 4.0)]
    for what, if_good, if_bad in judged:
        assert found[what] == (pytest.approx(if_good if good else if_bad, abs=1e-6), good)


def test_what_could_not_be_measured_misses_its_bar():
    results = invented("linformer", *TRAINING, 1.0)
    results[Point("linformer", "layer", 16384)] = [{"error": "killed"}]
    found = bars(results)
    assert found["linformer: exponent of time"] == (None, False)
    assert found["linformer: decoding at 16,384 over 1,024 tokens"] == (None, False)
    assert found["performer: exponent of peak memory"] == (None, False)


def test_a_failed_point_is_shown_and_a_failed_round_does_not_hide_the_others():
    results = invented(EAGER, *TRAINING, 2.0)
    results[Point(EAGER, "layer", 16384)] = [{"error": "out of memory"}]
    results[Point(EAGER, "layer", 8192)].append({"error": "killed"})
    table = collect(results)
    assert table["forward+backward", "seconds"][EAGER][8192] == [8192.0**2] * 2
    assert not slopes(table)["forward+backward", "seconds"]
    points = [{**point.key(), "rounds": rounds} for point, rounds in results.items()]
    text = report({"machine": MACHINE, "points": points})
    assert f"- {EAGER}, layer, 16,384: out of memory" in text
    assert "fails" in text


def test_a_reading_of_nothing_at_a_short_length_costs_no_slope():
    results = invented("linformer", *TRAINING, 1.0)
    results[Point("linformer", "layer", 512)] = [{"forward+backward": {"seconds": 1.0, "bytes": 0}}]
    fits = slopes(collect(results))
    assert fits["forward+backward", "bytes"]["linformer"] == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


def test_on_cuda_compiled_variants_join_but_not_to_decode(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    points = plan(parse_arguments(["--device", "cuda"]))
    for subject in CUDA_VARIANTS:
        assert {point.task for point in points if point.subject == subject} == {"layer", "step"}
    assert max(point.size for point in points) == 262_144
    assert {point.subject for point in points} >= set(LINEAR)
