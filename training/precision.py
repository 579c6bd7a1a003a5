"""Mixed precision and torch.compile: the number format that this machine multiplies fastest, and compiled blocks."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.logging import get_logger

from configuration.errors import one_line
from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.attention_base_minigpt import LinearTimeAttention

logger = get_logger(__name__)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than float32: GPUs that do not emulate it, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 does not have it
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))


def choose_precision(wanted: str) -> str:
    """Return Accelerate's name of the precision; "auto" is bf16 where that is faster, else full precision."""
    chosen = wanted if wanted != "auto" else "bf16" if has_fast_bfloat16(PartialState().device) else "no"
    # `accelerate launch` passes its own on. It is "no" for whoever has not asked, so that is no contradiction.
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked not in ("no", chosen):
        PartialState()  # which the logger needs
        logger.warning(
            f"accelerate's mixed_precision {asked} is ignored{'' if asked == 'bf16' else ': it is not supported'}; "
            f"run.mixed_precision decides, here {chosen}"
        )
    return chosen


def can_compile(device: torch.device) -> bool:
    """Return whether `torch.compile` finds a compiler (for a CPU's code C++, else C) and Python's headers."""
    variable, default = ("CXX", "g++") if device.type == "cpu" else ("CC", "gcc")
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return headers and shutil.which(os.environ.get(variable, default)) is not None


def not_compiled(attend: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap attention so that it runs uncompiled between compiled parts."""

    @torch.compiler.disable
    def run(*streams: torch.Tensor, **settings) -> torch.Tensor:
        # Laid out alike for all lengths: other strides would compile what comes after it again.
        return attend(*streams, **settings).contiguous()

    return run


def compile_parts(model: MiniGPTForCausalLM, device: torch.device) -> list[tuple[torch.nn.Module, str]]:
    """Compile a model's blocks, one function for all of them, and its loss, for every batch size and length.

    Returns:
        The modules and the attributes that were set on them, which hide the classes' own; an empty list, after a
        warning, where no compiler is available.
    """
    if not can_compile(device):
        logger.warning("run.compile needs a compiler (g++, or the one CXX names) and Python's headers; not compiled")
        return []
    parts: dict[tuple[torch.nn.Module, str], Callable] = {}
    for block in model.model.layers:
        # Some linear-time variants cache tables by length, which the compiler would take for constants; for the others
        # it needs minutes and finds slower loops. What surrounds the attention is compiled all the same.
        if isinstance(block.self_attn, LinearTimeAttention):
            parts[block.self_attn, "attend"] = not_compiled(block.self_attn.attend)
        # Dynamic: nearly every batch has a length of its own.
        parts[block, "forward"] = torch.compile(block.forward, dynamic=True)
    parts[model, "_loss_function"] = torch.compile(model.loss_function, dynamic=True)
    for (module, name), function in parts.items():
        setattr(module, name, function)
    return list(parts)


def warm_up(model: MiniGPTForCausalLM, rows: int) -> None:
    """Compile all that batches of `rows` rows need, always in the same order; leave no gradient and no random draw.

    The compiled code depends a little on the shapes of the first call. A resumed run begins with another batch than
    the first, but must compute the same bits.
    """
    weight = model.get_input_embeddings().weight
    longest = model.config.max_position_embeddings
    with torch.random.fork_rng():
        # Neither length equals the number of rows, or the compiler would take both for one size: with 64 rows and a
        # context of 64 tokens, the longest is 63.
        for length in (longest - (longest == rows), 8 + (rows == 8)):
            ids = torch.zeros(rows, length, dtype=torch.long, device=weight.device)
            labels = ids.clone()
            labels[:, : length // 2] = -100  # like a title: the loss reads fewer positions than there are
            loss = model(ids, labels=labels, num_items_in_batch=rows, use_cache=False, skip_logits=True).loss
            torch.autograd.grad(loss, weight)  # compiles the backward pass without touching any .grad


@contextmanager
def compiled_parts(model: MiniGPTForCausalLM, device: torch.device, rows: int | None) -> Iterator[None]:
    """Compile a model's blocks and loss while the context lasts, in some ten seconds.

    Args:
        model: the model, not wrapped.
        device: where it runs.
        rows: rows of most batches; None to compile nothing.
    """
    parts = [] if rows is None else compile_parts(model, device)
    try:
        if parts:
            parts = warm_up_or_give_up(model, parts, rows)
        yield
    finally:
        remove_parts(parts)


def remove_parts(parts: list[tuple[torch.nn.Module, str]]) -> None:
    """Undo `compile_parts`: the classes' own are visible again, which generating and saving need."""
    for module, name in parts:
        delattr(module, name)


def warm_up_or_give_up(
    model: MiniGPTForCausalLM, parts: list[tuple[torch.nn.Module, str]], rows: int
) -> list[tuple[torch.nn.Module, str]]:
    """Warm up and return the compiled parts; remove them, after a warning, and return none where that fails."""
    try:
        warm_up(model, rows)
    except Exception as error:  # of torch's many parts, the compiler, the linker, a folder from which nothing may run
        remove_parts(parts)
        torch.compiler.reset()
        logger.warning(f"run.compile: the compiler fails, so training goes on uncompiled: {one_line(error)[:300]}")
        return []
    return parts
