"""Optimizers: Muon's update, which optimizer has which parameter, and the learning-rate schedule."""

from itertools import pairwise

import pytest
import torch

from configuration.schema import StageArguments
from training.optimizers import StackedMuon, build_optimizers, learning_rate_factor, orthogonalize

KELLER_JORDAN = (3.4445, -4.775, 2.0315)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16), (24, 32)], ids=str)
def test_newton_schulz_brings_all_singular_values_near_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices, KELLER_JORDAN, steps=5, eps=1e-7)
    assert result.shape == matrices.shape
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values.median() > 0.7


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)], ids=str)
def test_the_gram_form_equals_the_plain_iteration(shape):
    a, b, c = KELLER_JORDAN
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (matrix.T if shape[0] > shape[1] else matrix) / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    expected = x.T if shape[0] > shape[1] else x
    torch.testing.assert_close(orthogonalize(matrix[None], KELLER_JORDAN, 5, 1e-7)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stacked_muon_takes_the_steps_of_torchs_own(dtype):
    shapes = [(16, 16), (16, 16), (64, 16), (16, 64)]
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(4)]
    ends = {}
    for cls in (StackedMuon, torch.optim.Muon):
        parameters = [torch.nn.Parameter(start.clone()) for start in starts]
        settings = {"dtype": dtype} if cls is StackedMuon else {}
        optimizer = cls(parameters, lr=0.02, weight_decay=0.1, **settings)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        ends[cls] = parameters
    for start, ours, theirs in zip(starts, ends[StackedMuon], ends[torch.optim.Muon], strict=True):
        moved = (theirs - start).norm()
        assert (ours - theirs).norm() < 0.02 * moved  # torch's iteration rounds to bfloat16, too


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_one_optimizer_and_only_matrices_decay(tiny_model, name):
    model = tiny_model(use_bias=True)
    stage = StageArguments(steps=1, optimizer=name, weight_decay=0.1)
    groups = [group for optimizer in build_optimizers(model, stage) for group in optimizer.param_groups]
    owners = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owners) == sorted(id(parameter) for parameter in model.parameters())
    decayed = {id(parameter) for group in groups if group["weight_decay"] > 0 for parameter in group["params"]}
    for key, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim == 2 and "embed" not in key), key


def test_the_wsd_schedule_warms_up_stays_and_decays_to_its_floor():
    stage = StageArguments(steps=100, warmup_steps=10, decay_fraction=0.5, min_lr_ratio=0.1)
    factors = [learning_rate_factor(step, 100, stage) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:51] == [1.0] * 42
    assert all(later < earlier for earlier, later in pairwise(factors[51:]))
    assert factors[-1] == pytest.approx(0.1 + 0.9 / 50)


def test_the_cosine_schedule_ends_at_its_floor_and_never_rises_again():
    stage = StageArguments(steps=200, warmup_steps=1, schedule="cosine", min_lr_ratio=0.1)
    factors = [learning_rate_factor(step, 200, stage) for step in range(1, 200)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.1, abs=1e-3)
