"""Mixed precision and torch.compile: the number formats that a run computes in, and compiled blocks."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list

from artifacts.run_folder import STAGES, RunError, RunFolder
from configuration.errors import one_line
from configuration.recipe import build_config
from configuration.schema import Recipe
from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.attention_base_minigpt import LinearTimeAttention
from training.machine_speed import FORMATS, Speeds, fastest, measure

logger = get_logger(__name__)

NOT_MEASURED = "too busy to be measured"
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # Accelerate's names
TYPICAL_LENGTH = 32  # tokens of a row: a name, a phrase and an answer


@dataclass(frozen=True)
class NumberFormats:
    """The number formats that a run trains in, from its beginning to its end, and why.

    Generating and scoring are float32 always: confidences are calibrated there.

    Attributes:
        model: "float32", or "bfloat16" for autocast.
        muon: format of Muon's products.
        reason: what decided, in words.
        device: the kind of device that was measured.
        rates: GFLOP/s of the linear layers' products, by format.
        layer_ms: milliseconds of one layer with embedding and head, forward and backward, by format.
        muon_ms: milliseconds of Muon's update of a matrix of each shape, by format.
    """

    model: str
    muon: str
    reason: str
    device: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    layer_ms: dict[str, float] = field(default_factory=dict)
    muon_ms: dict[str, float] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Accelerate's name of the model's format."""
        return PRECISIONS[self.model]

    @property
    def muon_dtype(self) -> torch.dtype:
        """The format of Muon's products."""
        return FORMATS[self.muon]

    def __str__(self) -> str:
        muon = "" if self.muon == self.model else f", Muon in {self.muon}"
        return f"{self.model}{muon} ({self.reason})"


def trains_with_muon(recipe: Recipe) -> bool:
    """Return whether a stage's Muon may compute in bfloat16."""
    stages = [getattr(recipe, name) for name in STAGES]
    return any(stage.optimizer == "muon" and stage.muon_bfloat16 for stage in stages)


def measure_recipe(recipe: Recipe, device: torch.device) -> Speeds:
    """Measure the formats that a recipe leaves open, in a second; a tokenizer's size is estimated where it is open."""
    config = build_config(recipe, vocab_size=recipe.tokenizer.vocab_size or 256)
    rows = recipe.pretrain.batch_size // (PartialState().num_processes * recipe.pretrain.gradient_accumulation_steps)
    length = min(TYPICAL_LENGTH, config.max_position_embeddings)
    is_open = recipe.run.mixed_precision == "auto"
    return measure(config, max(1, rows), length, device, is_open, trains_with_muon(recipe))


def explain(speeds: Speeds) -> str:
    """Say what was measured: the times of a layer, or why there are none."""
    words = [f"{name} {1000 * seconds:.3g} ms" for name, seconds in speeds.layer.items()]
    text = f"{', '.join(words)} per layer" if words else ""
    given_up = [f"{name}: {reason}" for name, reason in speeds.given_up.items()]
    return "; ".join(filter(None, [text, *given_up])) or NOT_MEASURED


def fixed_format(recipe: Recipe) -> str | None:
    """Return the format that a recipe fixes for the model; None where it is to be measured."""
    return next((name for name, word in PRECISIONS.items() if word == recipe.run.mixed_precision), None)


def measured_formats(recipe: Recipe, device: torch.device) -> NumberFormats:
    """Return what a run that begins here computes in: what its recipe fixes, else what this device is faster in."""
    fixed = fixed_format(recipe)
    if fixed is not None and not trains_with_muon(recipe):
        return NumberFormats(fixed, "float32", "run.mixed_precision", device.type)
    speeds = measure_recipe(recipe, device)
    return NumberFormats(
        fixed or fastest(speeds.layer),
        fastest(speeds.muon),
        "run.mixed_precision" if fixed else explain(speeds),
        device.type,
        {name: round(rate / 1e9, 1) for name, rate in speeds.rates.items()},
        {name: round(1000 * seconds, 3) for name, seconds in speeds.layer.items()},
        {name: round(1000 * seconds, 3) for name, seconds in speeds.muon.items()},
    )


def recorded_formats(recipe: Recipe, folder: RunFolder) -> NumberFormats | None:
    """Return what the run in a folder began with, if one is to be resumed there; the recipe's own format wins.

    Raises:
        RunError: the record is damaged.
    """
    record = folder.number_formats() if folder.is_in_use() else {}
    if not record:
        return None
    try:
        recorded = NumberFormats(**record)
        if not {recorded.model, recorded.muon} <= set(FORMATS):
            raise ValueError(f"found {recorded.model}, {recorded.muon}, wanted {' or '.join(FORMATS)}")
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder.machine}: no record of number formats: {one_line(error)}") from error
    fixed = fixed_format(recipe)
    if fixed in (None, recorded.model):
        return recorded
    return replace(recorded, model=fixed, reason="run.mixed_precision")


def choose_formats(recipe: Recipe, folder: RunFolder) -> NumberFormats:
    """Return the number formats of a run, the same on all processes, which must all call this.

    The main process measures. A run that is resumed computes on as it began, on whatever machine: another format would
    end in other weights. A warning says where that is slow.

    Raises:
        RunError: as `recorded_formats`.
    """
    recorded = recorded_formats(recipe, folder)
    found = [recorded]
    state = PartialState()
    if state.is_main_process:
        here = measured_formats(recipe, state.device)
        found = [recorded or here]
        differs = recorded is not None and (here.model, here.muon) != (recorded.model, recorded.muon)
        if differs and here.reason != NOT_MEASURED:
            logger.warning(
                f"{folder.path}: the run continues in the number format that it began in, {recorded}; this machine "
                f"is faster in {here}"
            )
    broadcast_object_list(found)
    (formats,) = found
    report_ignored_precision(formats.precision)
    return formats


def report_ignored_precision(chosen: str) -> None:
    """Warn where `accelerate launch` asks for another precision than the chosen one, or one that is not supported."""
    # It is "no" for whoever has not asked, so that is no contradiction.
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked not in ("no", chosen):
        PartialState()  # which the logger needs
        logger.warning(
            f"accelerate's mixed_precision {asked} is ignored{'' if asked == 'bf16' else ': it is not supported'}; "
            f"run.mixed_precision decides, here {chosen}"
        )


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
            # Like a title: the loss reads fewer positions than there are, for no number of rows as many as the length.
            labels[:, : length // 2 + 1] = -100
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
