"""The number format in which this machine multiplies fastest, and its loops fused into compiled ones."""

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState

from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.modeling_minigpt import MiniGPTBlock

UNCOMPILED = {"bigbird", "window"}


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


def compile_blocks(model: MiniGPTForCausalLM, device: torch.device) -> list[MiniGPTBlock]:
    """Compile a model's blocks, one function for all of them, which takes every batch and length; return them.

    Blocks whose attention keeps tables for lengths that it has seen cannot be compiled for all lengths. Where some
    blocks, or all for want of a compiler, stay as they are, a line says so.
    """
    if not can_compile(device):
        print("warning: run.compile needs a compiler (g++, or what CXX names) and Python's headers; going on without")
        return []
    kinds = model.config.layer_attention_types
    if kept := sorted(UNCOMPILED & set(kinds)):
        print(f"warning: run.compile leaves {' and '.join(kept)} blocks as they are")
    blocks = [block for block, kind in zip(model.model.layers, kinds, strict=True) if kind not in UNCOMPILED]
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
    return blocks


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
            torch.autograd.grad(model(ids, labels=ids, use_cache=False).loss, weight)


@contextmanager
def compiled_blocks(model: MiniGPTForCausalLM, device: torch.device, rows: int | None) -> Iterator[None]:
    """Compile a model's blocks for batches of so many rows, for as long as the context lasts; not where None.

    It takes some ten seconds.
    """
    blocks = [] if rows is None else compile_blocks(model, device)
    try:
        if blocks:
            prime(model, rows)
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own again, which generates and is saved
