"""Timing number formats: the faster one is chosen on every kind of machine, within the time, and nothing is left."""

import math

import pytest
import torch

from modeling_minigpt import MiniGPTConfig
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from training import machine_speed
from training.machine_speed import SECONDS, Race, fastest, is_emulated, measure, one_layer

CPU = torch.device("cpu")
CONFIG = MiniGPTConfig(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, residual_dropout=0.1)


class Clock:
    """A clock that only fake calls advance."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def call(self, name, seconds, error=None):
        def run():
            self.calls.append(name)
            self.now += seconds
            if error is not None:
                raise error

        return run


def test_calls_take_turns_and_the_shortest_time_counts():
    clock = Clock()
    slow = iter([0.3, 0.1, 0.2])

    def varying():
        clock.now += next(slow)

    times = Race(clock).run({"float32": clock.call("float32", 0.01), "bfloat16": varying}, share=1.0, rounds=3)
    assert times == {"float32": pytest.approx(0.01), "bfloat16": pytest.approx(0.1)}


def test_no_call_begins_after_the_time_is_over():
    clock = Clock()
    race = Race(clock)
    times = race.run({"float32": clock.call("float32", 0.5), "bfloat16": clock.call("bfloat16", 1.0)}, share=1.0)
    assert clock.calls == ["float32", "bfloat16"]
    assert clock.now <= SECONDS + 1.0
    assert race.run({"late": clock.call("late", 1.0)}, share=0.0) == {"late": math.inf}
    assert times["float32"] == pytest.approx(0.5)


def test_a_hopeless_call_is_not_repeated():
    clock = Clock()
    Race(clock).run({"float32": clock.call("float32", 1e-4), "bfloat16": clock.call("bfloat16", 5e-2)}, share=1.0)
    assert clock.calls.count("float32") == machine_speed.ROUNDS
    assert clock.calls.count("bfloat16") == 2  # the first may have compiled a kernel


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"float32": 1.0, "bfloat16": 1.0}, "float32"),
        ({"float32": 1.0, "bfloat16": 0.95}, "float32"),
        ({"float32": 1.0, "bfloat16": 0.9}, "bfloat16"),
        ({"float32": 1.0}, "float32"),
        ({}, "float32"),
    ],
)
def test_bfloat16_is_chosen_only_where_it_is_clearly_faster(times, chosen):
    assert fastest(times) == chosen


# How many times as fast bfloat16 is in a small product, in the layers' products, in a layer and in Muon.
MACHINES = {
    "GPU": ((10, 10, 3, 5), ("bfloat16", "bfloat16")),
    "CPU with AMX": ((5, 8, 2.5, 4), ("bfloat16", "bfloat16")),
    "CPU with AVX512-BF16": ((3, 2, 1.5, 2), ("bfloat16", "bfloat16")),
    "ARM with BF16": ((2, 2, 1.3, 1.5), ("bfloat16", "bfloat16")),
    "ARM without BF16": ((0.5, 0.4, 0.5, 0.3), ("float32", "float32")),
    "AVX512 that converts": ((0.6, 0.9, 0.8, 0.9), ("float32", "float32")),
    "AVX2": ((1 / 60, 1 / 60, 1 / 60, 1 / 60), ("float32", "float32")),
    "AVX2 that emulates": ((1 / 500, 1 / 500, 1 / 500, 1 / 500), ("float32", "float32")),
    "small model, conversions cost more": ((3, 2, 0.9, 2), ("float32", "bfloat16")),
    "large product is slow": ((1, 0.1, 2, 2), ("float32", "float32")),
}


def measure_machine(monkeypatch, speedups, error=None, startup=0.0):
    """Measure on a machine where float32 needs 20 ms; return the speeds and the seconds it took once started."""
    clock = Clock()
    probe, *others = speedups

    def calls(name, speedup):
        return {
            "float32": clock.call(name, 0.02),
            "bfloat16": clock.call(name, 0.02 / speedup, error if name == "layer_calls" else None),
        }

    rates = {"float32": 1e11, "bfloat16": probe * 1e11}
    monkeypatch.setattr(machine_speed, "probe_rates", lambda race, device: rates)
    for name, speedup in zip(("linear_calls", "layer_calls", "muon_calls"), others, strict=True):
        monkeypatch.setattr(machine_speed, name, lambda *_, name=name, speedup=speedup: calls(name, speedup))
    monkeypatch.setattr(machine_speed, "start", lambda device: clock.call("start", startup)())
    return measure(CONFIG, 8, 16, CPU, clock=clock), clock.now - startup


@pytest.mark.parametrize("machine", MACHINES)
def test_each_kind_of_machine_computes_in_what_it_is_faster_in(monkeypatch, machine):
    speedups, chosen = MACHINES[machine]
    speeds, seconds = measure_machine(monkeypatch, speedups)
    assert (fastest(speeds.layer), fastest(speeds.muon)) == chosen
    assert seconds <= SECONDS + 3 * 0.02 / min(1, *speedups)  # each kind of call may overrun once


def test_a_machine_that_is_hopeless_in_a_small_product_times_nothing_else(monkeypatch):
    speeds, seconds = measure_machine(monkeypatch, MACHINES["AVX2"][0])
    assert seconds == 0.0
    assert speeds.given_up == {"bfloat16": "a small product takes 60 times as long as in float32"}


def test_a_device_that_takes_long_to_start_is_measured_all_the_same(monkeypatch):
    speeds, seconds = measure_machine(monkeypatch, MACHINES["GPU"][0], startup=5.0)
    assert fastest(speeds.layer) == "bfloat16"
    assert 0 < seconds <= SECONDS + 0.06


def test_an_operator_that_the_device_lacks_in_bfloat16_leaves_float32_and_a_reason(monkeypatch):
    error = NotImplementedError("no kernel of\nthis name for MPS")
    speeds, _ = measure_machine(monkeypatch, (3, 3, 3, 3), error)
    assert fastest(speeds.layer) == "float32"
    assert speeds.given_up == {"bfloat16": "not supported on this device: no kernel of this name for MPS"}


def test_a_gpu_that_emulates_bfloat16_never_computes_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert is_emulated(torch.device("cuda"))
    monkeypatch.setattr(machine_speed, "is_emulated", lambda device: True)
    speeds = measure(CONFIG, 8, 16, CPU)
    assert fastest(speeds.layer) == "float32"
    assert speeds.given_up == {"bfloat16": "emulated by this GPU"}
    assert set(speeds.rates) == {"float32"}


def test_measuring_a_tiny_model_takes_little_time_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(machine_speed, "HOPELESS", math.inf)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    speeds = measure(CONFIG, 8, 16, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for times in (speeds.rates, speeds.layer, speeds.muon):
        assert set(times) == {"float32", "bfloat16"}
        assert all(0 < value < math.inf for value in times.values())
    assert speeds.layer["float32"] < 0.3


@pytest.mark.parametrize("attention", [*ATTENTION_CLASSES, ["linformer", "vanilla", "vanilla"]], ids=str)
def test_one_layer_is_the_first_of_the_model(attention):
    config = MiniGPTConfig(**{**CONFIG.to_dict(), "attention_type": attention})
    model = one_layer(config)
    assert [type(layer.self_attn) for layer in model.model.layers] == [
        ATTENTION_CLASSES[config.layer_attention_types[0]]
    ]
