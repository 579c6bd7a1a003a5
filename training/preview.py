"""`train.py show`: what a recipe would run, before it runs. Nothing is written where the run would write.

Two steps of each stage are taken, on its own batches; the time of the second is extrapolated over the stage, and the
memory that they took is measured.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from artifacts.files import as_disk_error
from artifacts.run_folder import STAGES
from configuration.reference import describe_fields, list_model_keys
from configuration.rich_console import TolerantConsole
from configuration.schema import Recipe
from data_scripts.batches import Rows, TrainingBatches
from modeling_minigpt import MiniGPTConfig
from training.preparation import find_place
from training.run_context import Run, build_run, init_model, training_batches
from training.stepper import Stepper

SHOWN_ROWS = 5
LOSS_STYLE = "bold green"  # of what counts in the loss, on a terminal with colours; brackets mark it on any other


def new_table(title: str) -> Table:
    """Return an empty table of settings."""
    table = Table(title=title, title_justify="left")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", overflow="fold")
    return table


def settings_table(recipe: Recipe) -> Table:
    """Lay out a recipe's settings with their meanings, except the model's; a star marks what is not the default."""
    table = new_table("settings (* not the default)")
    about_recipe = describe_fields(Recipe)
    for field in dataclasses.fields(recipe):
        section = getattr(recipe, field.name)
        if not dataclasses.is_dataclass(section):
            table.add_row(field.name, escape(str(section)), about_recipe.get(field.name, ""))
            continue
        if field.name == "model":
            continue
        # The section on a line of its own: before every key it would leave the meanings no room.
        table.add_section()
        table.add_row(f"[bold]{field.name}[/bold]", "", "")
        meanings = describe_fields(type(section))
        for one in dataclasses.fields(section):
            value = getattr(section, one.name)
            missing = one.default is dataclasses.MISSING
            default = one.default_factory() if missing else one.default
            mark = "" if value == default else "*"
            table.add_row(f"  {one.name}", f"{mark}{escape(str(value))}", escape(meanings.get(one.name, "")))
    return table


def model_table(recipe: Recipe, config: MiniGPTConfig) -> Table:
    """Lay out the model's config, preset and overrides resolved; a star marks what the recipe itself changes."""
    table = new_table(f"model: {recipe.model.preset} (* changed by the recipe)")
    for key, _, _, meaning in list_model_keys():
        if key != "preset":
            mark = "*" if key in recipe.model.fields else ""
            table.add_row(key, f"{mark}{escape(str(getattr(config, key)))}", escape(meaning))
    return table


def mark_targets(run: Run, row: Rows) -> Text:
    """Decode one row, with what counts in the loss between brackets: `Title. born in⁇[Rome⁇]`."""
    # Neighbours that count alike are decoded together: a word may be several tokens.
    marked = Text()
    for counts, group in groupby(zip(row.targets.tolist(), row.ids.tolist(), strict=True), key=lambda pair: pair[0]):
        piece = run.tokenizer.decode([token for _, token in group])
        marked.append(f"[{piece}]" if counts else piece, style=LOSS_STYLE if counts else "")
    return marked


def sample_rows(run: Run, batches: TrainingBatches) -> Iterator[Text]:
    """Yield rows of a stage's first batch, evenly spread over it, which is sorted by length."""
    # First, middle and last of a sorted batch: its shortest and longest rows look different.
    for number in np.linspace(0, batches.stage.batch_size - 1, SHOWN_ROWS).round().astype(int).tolist():
        yield mark_targets(run, batches.rows(0, np.array([number])))


def time_step(run: Run, batches: TrainingBatches, stage: str) -> float:
    """Return the seconds of one optimizer step of a stage, the second of two: the first one warms up."""
    # A model of its own for each stage, thrown away: stepping changes weights, and the next stage starts afresh.
    arguments = getattr(run.recipe, stage)
    stepper = Stepper.prepare(init_model(run), arguments, run.accelerator, len(batches), run.formats.muon_dtype)
    seconds = 0.0
    for step in range(min(2, len(batches))):
        start = time.monotonic()
        loss, _ = stepper.step(step, batches[step])
        loss.item()  # waits for the device
        seconds = time.monotonic() - start
    run.accelerator.free_memory()
    return seconds


def peak_memory(device: torch.device) -> float | None:
    """Return the most memory that this process has used so far, in MiB; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource  # POSIX alone
    except ModuleNotFoundError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB on Linux


def show(recipe: Recipe, console: Console | None = None) -> None:
    """Print a recipe's settings, its model, each stage's steps and estimated minutes, memory, and training rows.

    Raises:
        UserError: as training would, for data or a model that cannot be used.
    """
    console = TolerantConsole(console)
    console.print(settings_table(recipe))
    # Built as for training, in a folder that is removed: what is shown went through the checks that training makes.
    with tempfile.TemporaryDirectory() as folder, as_disk_error(*find_place(recipe, folder), "choose another folder"):
        run = build_run(dataclasses.replace(recipe, output=folder), trains=True)
        try:
            console.print(model_table(recipe, run.config))
            console.print(f"\nparameters: {init_model(run).num_parameters():,}", highlight=False)
            batches_of = {stage: training_batches(run, stage) for stage in STAGES}
            for stage, batches in batches_of.items():
                minutes = len(batches) * time_step(run, batches, stage) / 60
                compiled = "; less once compiled" if recipe.run.compile else ""
                console.print(
                    f"{stage}: {len(batches):,} steps, estimated {minutes:.1f} minutes (from one step on this machine"
                    f"{compiled})",
                    highlight=False,
                )
            memory = peak_memory(run.accelerator.device)
            if memory is not None:
                console.print(f"memory: {memory:,.0f} MiB, measured over these steps, libraries included")
            console.print("\ntraining rows of pretrain; what counts in the loss is in brackets", highlight=False)
            for row in sample_rows(run, batches_of["pretrain"]):
                console.print(Text("  ") + row)
        finally:
            run.accelerator.end_training()
