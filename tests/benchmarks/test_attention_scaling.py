"""The scaling benchmark: every subject runs, the files say what was measured, bars are judged by the numbers."""

import json

import pytest

from benchmarks import attention_scaling
from benchmarks.attention_scaling import collect, judge, slopes
from benchmarks.attention_subjects import EAGER, LINEAR, PEERS, VARIANTS, Point

LENGTHS = [1024, 2048, 4096, 8192, 16384]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the benchmark as short as it can be."""
    folder = tmp_path_factory.mktemp("scaling")
    assert (
        attention_scaling.main(["--lengths", "1024", "--rounds", "1", "--threads", "1", "--output", str(folder)]) == 0
    )
    return folder


def test_every_subject_is_measured_and_written(output):
    record = json.loads((output / "attention_scaling.json").read_text())
    measured = {(point["subject"], point["measure"]): point["rounds"][0] for point in record["points"]}
    assert set(measured) == {
        *((subject, measure) for subject in VARIANTS for measure in ("step", "decode") if subject != EAGER),
        *((subject, "layer") for subject in (*VARIANTS, *PEERS)),
    }
    for results in measured.values():
        assert "error" not in results
        for result in results.values():
            assert result["seconds"] > 0
    assert record["machine"]["threads"] == 1
    tables = (output / "attention_scaling.md").read_text()
    assert all(subject in tables for subject in (*VARIANTS, *PEERS))
    assert "<svg" in (output / "attention_scaling.svg").read_text()


def test_constant_caches_are_smaller_than_vanillas(output):
    record = json.loads((output / "attention_scaling.json").read_text())
    held = {p["subject"]: p["rounds"][0]["decode"]["bytes"] for p in record["points"] if p["measure"] == "decode"}
    vanilla = 2 * 2 * (1024 + 128) * 128 * 4  # keys and values of two layers, float32
    assert held["vanilla, SDPA"] == vanilla
    assert held["performer"] < held["window"] < vanilla


def invented(subject, what, measure, power, constant=1.0):
    """Return results of a subject whose seconds and bytes follow a power of the length."""
    return {
        Point(subject, measure, length): [{what: {"seconds": constant * length**power, "bytes": length**power}}] * 2
        for length in LENGTHS
    }


def test_bars_follow_the_numbers():
    def bars(results):
        table = collect(results)
        return {what: (round(found, 2), holds) for what, found, _, holds in judge(table, slopes(table), "cpu")}

    training = ("forward+backward", "layer")
    good = bars(
        invented("vanilla, SDPA", *training, 2.0) | invented("linformer", *training, 1.0, constant=8192 / 4)
        | invented("linformer", "decode", "decode", 0.0)
    )  # fmt: skip
    assert good["linformer: exponent of time at most"] == (1.0, True)
    assert good["vanilla, SDPA: exponent of time at least"] == (2.0, True)
    assert good["linformer: times SDPA's speed at 8,192 at least"] == (4.0, True)
    assert good["linformer: decoding at 16,384 over 1,024 at most"] == (1.0, True)
    bad = bars(
        invented("vanilla, SDPA", *training, 1.0) | invented("linformer", *training, 1.5)
        | invented("linformer", "decode", "decode", 0.5)
    )  # fmt: skip
    assert not any(holds for _, holds in bad.values())


def test_a_point_that_ran_out_of_memory_is_shown_and_fits_nothing():
    results = invented("vanilla, eager", "forward+backward", "layer", 2.0)
    results[Point("vanilla, eager", "layer", 16384)] = [{"error": "out of memory"}]
    table = collect(results)
    assert table["forward+backward", "seconds"]["vanilla, eager"][16384] == "out of memory"
    assert not slopes(table)["forward+backward", "seconds"]
    assert "out of memory" in attention_scaling.write_tables(
        table, slopes(table), {"device": "x", "threads": 1, "torch": "2", "dtype": "float32"}, 1
    )


def test_linear_subjects_are_subjects():
    assert set(LINEAR) <= {*VARIANTS, *attention_scaling.CUDA_VARIANTS}
