"""The profile of a step: known FLOPs, shares of the whole, the settings that a machine has."""

import json

import pytest
import torch

from benchmarks import harness, step_profile
from benchmarks.measurement import measure_matmul_rate
from benchmarks.training_steps import TrainingSteps, with_paths
from configuration.recipe import load_recipe


@pytest.fixture
def steps(recipe, data, tmp_path):
    return TrainingSteps(load_recipe(recipe, with_paths(["pretrain.steps=40"], tmp_path, data)))


def test_flops_are_those_of_the_models_products(steps):
    batch = steps.batches[0]
    rows, length = batch["input_ids"].shape
    config = steps.model.config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    everywhere = layers * 4 * width * width + (layers - 1) * 2 * width * inner
    at_targets = 2 * width * inner + width * config.vocab_size  # the last MLP and the head
    targets = int((batch["labels"][:, 1:] != -100).sum())
    products = 2 * (rows * length * everywhere + targets * at_targets)
    assert 3 * products <= step_profile.count_flops(steps, batch) <= 3.5 * products


def test_shares_are_of_the_whole_step(steps):
    shares = step_profile.measure_shares(steps, 0, 4)
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.05)
    assert all(shares[name] > 0 for name in ("matmul", "element-wise", "optimizer", "data"))


def test_the_benchmark_writes_each_setting_that_the_machine_has(recipe, data, tmp_path, monkeypatch):
    monkeypatch.setattr(step_profile, "WARMUP", 2)
    monkeypatch.setattr(step_profile, "possible_settings", lambda: ["float32"])
    monkeypatch.setattr(harness, "in_fresh_process", harness.in_this_process)
    output = tmp_path / "profile.json"
    assert step_profile.main([str(data), "--recipe", str(recipe), "--steps", "3", "--output", str(output)]) == 0
    (point,) = json.loads(output.read_text())["points"]
    (found,) = point["rounds"]
    assert point["subject"] == "float32"
    assert found["of_ceiling"] == pytest.approx(found["flops"] / found["step_seconds"] / found["ceiling"])
    assert 0 < found["of_ceiling"] < 1
    assert "float32" in output.with_suffix(".md").read_text()


def test_bfloat16_and_compilation_are_measured_where_the_machine_has_them(monkeypatch):
    monkeypatch.setattr(step_profile, "has_fast_bfloat16", lambda device: False)
    monkeypatch.setattr(step_profile, "can_compile", lambda device: True)
    assert step_profile.possible_settings() == ["float32", "float32, compiled"]
    monkeypatch.setattr(step_profile, "can_compile", lambda device: False)
    assert step_profile.possible_settings() == ["float32"]


def test_a_rate_is_measured_in_flop_a_second():
    assert 1e8 < measure_matmul_rate(torch.device("cpu"), torch.float32, size=256, at_least=0.1) < 1e14
