"""The number format in which this machine multiplies fastest, and its loops fused into compiled ones."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState

from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.attention_base_minigpt import LinearTimeAttention


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32: GPUs that do not emulate it, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.9
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))


def choose_precision(wanted: str) -> str:
    """Return Accelerate's name of the precision; "auto" is bf16 where that is faster, else full precision."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_fast_bfloat16(PartialState().device) else "no"


def can_compile(device: torch.device) -> bool:
    """Tell whether `torch.compile` has what it needs: a C++ compiler on a CPU, a C compiler else; Python's headers."""
    variable, usual = ("CXX", "g++") if device.type == "cpu" else ("CC", "gcc")
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return headers and shutil.which(os.environ.get(variable, usual)) is not None


def not_compiled(attend: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return attention that runs as it is between what is compiled, its result laid out alike for all lengths."""

    @torch.compiler.disable
    def run(*streams: torch.Tensor, **settings) -> torch.Tensor:
        return attend(*streams, **settings).contiguous()

    return run


def compile_parts(model: MiniGPTForCausalLM, device: torch.device) -> list[tuple[torch.nn.Module, str]]:
    """Compile a model's blocks, one function for all of them, and its loss, for every batch and length.

    Linear-time attention is left as it is and what is around it compiled: some variants keep tables for lengths that
    they have seen, and with the others the compiler takes minutes and comes to slower loops.

    Returns:
        The modules and the attributes that were set on them, which hide the classes' own: none for want of a compiler,
        and a line says so.
    """
    if not can_compile(device):
        print("warning: run.compile needs a compiler (g++, or what CXX names) and Python's headers; going on without")
        return []
    parts: dict[tuple[torch.nn.Module, str], Callable] = {}
    for block in model.model.layers:
        if isinstance(block.self_attn, LinearTimeAttention):
            parts[block.self_attn, "attend"] = not_compiled(block.self_attn.attend)
        parts[block, "forward"] = torch.compile(block.forward, dynamic=True)
    parts[model, "_loss_function"] = torch.compile(model.loss_function, dynamic=True)
    for (module, name), function in parts.items():
        setattr(module, name, function)
    return list(parts)


def prime(model: MiniGPTForCausalLM, rows: int) -> None:
    """Compile what batches of so many rows need, always in the same order; no gradient, no random number is left.

    What is compiled depends a little on what it is first called with, and a run that is resumed begins with another
    batch but must compute the same bits.
    """
    weight = model.get_input_embeddings().weight
    longest = model.config.max_position_embeddings
    with torch.random.fork_rng():
        for length in (longest - (longest == rows), 8 + (rows == 8)):  # equal sizes would count as one
            ids = torch.zeros(rows, length, dtype=torch.long, device=weight.device)
            loss = model(ids, labels=ids, num_items_in_batch=ids.numel() + 1, use_cache=False).loss
            torch.autograd.grad(loss, weight)


@contextmanager
def compiled_parts(model: MiniGPTForCausalLM, device: torch.device, rows: int | None) -> Iterator[None]:
    """Compile a model's blocks and loss for batches of so many rows, while the context lasts; not where None.

    It takes some ten seconds.
    """
    parts = [] if rows is None else compile_parts(model, device)
    try:
        if parts:
            prime(model, rows)
        yield
    finally:
        for module, name in parts:
            delattr(module, name)  # the class's own again, which generates and is saved
