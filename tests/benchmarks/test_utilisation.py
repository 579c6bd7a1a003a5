"""Utilisation: FLOPs that a counter confirms, every point in the table, and what does not fit is named."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import harness, utilisation
from benchmarks.plain_mingpt import Shape

TINY = Shape(layers=2, heads=2, width=16, block=24, vocabulary=40)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(utilisation, "SHAPES", {"3.3m": TINY, "124m": Shape(1, 1, 4, 24, 40)})
    monkeypatch.setattr(harness, "in_fresh_process", harness.catch_errors)
    monkeypatch.setattr(utilisation, "compile_parts", lambda model, device: [])
    monkeypatch.setattr(utilisation, "has_fast_bfloat16", lambda device: False)


def test_flops_are_those_that_a_counter_finds():
    model = utilisation.build_model(TINY)
    model.set_attn_implementation("eager")
    ids = torch.randint(40, (3, TINY.block))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    assert counter.get_total_flops() == utilisation.flops_per_token(model, TINY.block) * ids.numel()


@pytest.mark.parametrize(("shape", "parameters"), [("3.3m", 3.3e6), ("124m", 124e6)])
def test_shapes_have_the_parameters_that_they_are_named_after(monkeypatch, shape, parameters):
    monkeypatch.undo()
    model = utilisation.build_model(utilisation.SHAPES[shape])
    assert model.num_parameters() == pytest.approx(parameters, rel=0.02)


def test_every_point_is_measured_and_those_of_an_earlier_run_are_kept(tmp_path, capsys):
    output = tmp_path / "utilisation.json"
    words = ["--device", "cpu", "--shapes", "3.3m", "--output", str(output)]
    assert utilisation.main([*words, "--batch-sizes", "2"]) == 0
    first = json.loads(output.read_text())["points"]
    assert utilisation.main([*words, "--batch-sizes", "2", "4", "--peak", "0.001"]) == 0
    points = json.loads(output.read_text())["points"]
    assert points[:2] == first
    assert [(point["task"], point["size"]) for point in points[2:]] == [("training", 4), ("generation", 4)]
    for point in points:
        (found,) = point["rounds"]
        assert found["tokens_per_second"] > 0
        assert found["format"] == "float32"
        if point["task"] == "training":
            assert found["of_ceiling"] == pytest.approx(found["flops_per_second"] / found["ceiling"])
            assert 0 < found["of_ceiling"] < 1
    table = output.with_suffix(".md").read_text()
    assert table.count("| 3.3m | ") == 4
    assert "% of 0.001 TFLOP/s" in table


def test_a_batch_that_does_not_fit_is_named(tmp_path, monkeypatch, capsys):
    def too_large(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setitem(utilisation.TASKS, "generation", too_large)
    output = tmp_path / "utilisation.json"
    words = ["--device", "cpu", "--shapes", "3.3m", "--batch-sizes", "2", "--output", str(output)]
    assert utilisation.main(words) == 0
    assert "- 3.3m, generation, 2: out of memory" in capsys.readouterr().out
    assert utilisation.main([*words, "--tasks", "generation"]) == 0  # the training is still there
