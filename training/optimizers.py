"""Optimizers and learning rates: Muon for the blocks' matrices and AdamW for the rest, or AdamW alone.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, by Newton-Schulz iteration.
"""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from configuration.schema import StageArguments


def orthogonalize(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Return the nearest orthogonal matrix of each in a stack (N, rows, columns), roughly, by Newton-Schulz.

    An iteration multiplies x by a polynomial p of its Gram matrix G = x xᵀ. For long matrices the iterations run on G
    alone (G becomes p G p) and their product meets x once, at the end: the same result in half the work, but not in
    bfloat16, whose rounding errors would grow.
    """
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    if x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16:
        gram, product = x @ x.mT, None  # (N, rows, rows)
        for _ in range(steps):
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
            product = polynomial if product is None else polynomial @ product
            gram = polynomial @ gram @ polynomial
        x = product @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon`, with matrices of one shape orthogonalised together, and in a format of one's choice.

    The library's own takes one matrix at a time, in bfloat16, which a CPU without bfloat16 units does some 70 times
    slower than float32. State, hyperparameters and update rule are the library's.
    """

    def __init__(self, *arguments, dtype: torch.dtype = torch.float32, **settings):
        super().__init__(*arguments, **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                self._step_shape(group, shape, parameters)
        return loss

    def _step_shape(self, group: dict, shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            updates.append(parameter.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer)
        whole = [update.full_tensor() if isinstance(update, DTensor) else update for update in updates]
        stack = torch.stack(whole).to(self.dtype)
        stack = orthogonalize(stack, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(whole[0].dtype)
        lr = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))  # torch's "original" adjustment
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        steps = [shard_like(step, parameter) for step, parameter in zip(stack.unbind(), parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-lr)


def shard_like(whole: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor that every process has, sharded as a parameter is, if it is."""
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def build_optimizers(
    model: nn.Module, stage: StageArguments, sharded: bool = False, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Return the stage's optimizers; every parameter is in exactly one, and each group keeps its `peak_lr`.

    Muon takes the two-dimensional parameters of the blocks. Weight decay is for matrices: not for embeddings, norms
    and biases (as in minGPT). `sharded` tells that FSDP will part them among processes; `dtype` is the format of
    Muon's products where it is our own.
    """
    muon, decayed, others = [], [], []
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if stage.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name:
            muon.append(parameter)
        elif parameter.ndim == 2 and id(parameter) not in embeddings:
            decayed.append(parameter)
        else:
            others.append(parameter)
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decayed, stage.weight_decay), (others, 0.0))
        if parameters
    ]
    optimizers = [torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, stage.beta2), fused=True)]
    if muon:
        settings = {"lr": stage.muon_learning_rate, "weight_decay": stage.weight_decay}
        own = sharded or muon[0].device.type == "cpu"
        optimizers.append(StackedMuon(muon, dtype=dtype, **settings) if own else torch.optim.Muon(muon, **settings))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, total: int, stage: StageArguments) -> float:
    """Return the learning rate of `step` (from 0) over the highest: warm-up, then linear or cosine decay."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    if stage.schedule == "cosine":
        progress = (step - stage.warmup_steps) / max(1, total - stage.warmup_steps)
        share = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        decay_steps = max(1.0, stage.decay_fraction * total)
        share = min(1.0, (total - step) / decay_steps)
    return stage.min_lr_ratio + (1.0 - stage.min_lr_ratio) * share
