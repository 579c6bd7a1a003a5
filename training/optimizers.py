"""Optimizers and learning rates: Muon for the blocks' matrices and AdamW for the rest, or AdamW alone.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found by Newton-Schulz
iterations.
"""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from configuration.schema import StageArguments


def orthogonalize(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Approximate the nearest orthogonal matrix of each in a stack, by Newton-Schulz.

    An iteration multiplies x by the polynomial p = a + b G + c G² of its Gram matrix G = x xᵀ. For long matrices the
    iterations run on G alone (G becomes p G p) and their product is multiplied with x once, at the end: the same
    result in half the work, but not in bfloat16, whose rounding errors would grow.

    Args:
        matrices: (N, rows, columns).
        coefficients: (a, b, c).
        steps: number of iterations.
        eps: smallest norm that a matrix is divided by.

    Returns:
        (N, rows, columns), with singular values near 1.
    """
    a, b, c = coefficients
    # The Gram matrix is taken of the shorter side: of a (512, 128) matrix it is (128, 128), not (512, 512).
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    # The iteration converges for singular values up to 1, which the Frobenius norm bounds.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    if x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16:
        gram = x @ x.mT  # (N, rows, rows)
        product = None
        for step in range(steps):
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
            product = polynomial if product is None else polynomial @ product
            if step < steps - 1:
                gram = polynomial @ gram @ polynomial  # of the next x, p x: p is symmetric
        x = product @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon` that orthogonalises all matrices of one shape together, in a number format of choice.

    The library's own takes one matrix at a time, in bfloat16, which a CPU without bfloat16 units multiplies some 70
    times slower than float32. State, hyperparameters and update rule are the library's.
    """

    def __init__(self, *arguments, dtype: torch.dtype = torch.float32, **settings):
        super().__init__(*arguments, **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step, as `torch.optim.Optimizer.step`."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            # Stacked, since many small products are slower than one batched product.
            for shape, parameters in shapes.items():
                self._step_shape(group, shape, parameters)
        return loss

    def _step_shape(self, group: dict, shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        """Update the parameters of one shape (rows, columns)."""
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            updates.append(parameter.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer)
        # A shard of a matrix has singular values of its own: every process orthogonalises all of it.
        full = [update.full_tensor() if isinstance(update, DTensor) else update for update in updates]
        stack = torch.stack(full).to(self.dtype)
        stack = orthogonalize(stack, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(full[0].dtype)
        lr = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))  # torch's "original" adjustment
        # Decoupled, as in AdamW: added to a gradient, the decay would only change the direction of its update.
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        steps = [shard_like(step, parameter) for step, parameter in zip(stack.unbind(), parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-lr)


def shard_like(full: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Shard a tensor that every process has as a parameter is sharded; return it unchanged where that is not."""
    if not isinstance(parameter, DTensor):
        return full
    # No source rank: nothing is sent, since every process has computed the same.
    return distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)


def muon_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that Muon takes: the blocks' trained matrices, but for embeddings."""
    embeddings = embedding_ids(model)
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and ".layers." in name and id(parameter) not in embeddings
    ]


def embedding_ids(model: nn.Module) -> set[int]:
    """Return the identities of the embeddings' weights; a tied output layer is the embedding's very parameter."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def build_optimizers(
    model: nn.Module, stage: StageArguments, sharded: bool = False, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Build the stage's optimizers; every parameter is in exactly one, and each group stores its `peak_lr`.

    Muon takes the two-dimensional parameters of the blocks. Weight decay is for matrices, not for embeddings, norms
    and biases (as in minGPT).

    Args:
        model: the model, not yet prepared.
        stage: optimizer, learning rates, weight decay.
        sharded: whether FSDP will shard the parameters.
        dtype: number format of `StackedMuon`'s products.
    """
    muon = muon_matrices(model) if stage.optimizer == "muon" else []
    in_muon = set(map(id, muon))
    rest = [one for one in model.parameters() if one.requires_grad and id(one) not in in_muon]
    embeddings = embedding_ids(model)
    decayed = [one for one in rest if one.ndim == 2 and id(one) not in embeddings]
    others = [one for one in rest if one.ndim != 2 or id(one) in embeddings]
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decayed, stage.weight_decay), (others, 0.0))
        if parameters
    ]
    optimizers = [torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, stage.beta2), fused=True)]
    if muon:
        settings = {"lr": stage.muon_learning_rate, "weight_decay": stage.weight_decay}
        # torch's own neither knows sharded matrices nor any format but bfloat16; on one GPU it is as good for that.
        if sharded or muon[0].device.type == "cpu" or dtype != torch.bfloat16:
            optimizers.append(StackedMuon(muon, dtype=dtype, **settings))
        else:
            optimizers.append(torch.optim.Muon(muon, **settings))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]  # each step's `lr` is this times the schedule's factor
    return optimizers


def learning_rate_factor(step: int, total: int, stage: StageArguments) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    A pure function of the step, unlike torch's schedulers, which count steps themselves: a checkpoint needs no state
    of it, and a resumed run cannot be one step off.

    Args:
        step: from 0.
        total: steps of the whole stage.
        stage: warm-up, then `cosine`, or `wsd` (warm-up, stable, decay: Hu et al. 2024, MiniCPM, section 4).
    """
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps  # the first step already learns
    if stage.schedule == "cosine":
        progress = (step - stage.warmup_steps) / max(1, total - stage.warmup_steps)
        fraction = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        # At the peak, then down in a line: of 10 steps with decay_fraction 0.4 the last five have 1, 1, .75, .5, .25.
        decay_steps = max(1.0, stage.decay_fraction * total)
        fraction = min(1.0, (total - step) / decay_steps)
    return stage.min_lr_ratio + (1.0 - stage.min_lr_ratio) * fraction
