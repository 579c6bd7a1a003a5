"""`train.py show`: what a recipe would run, before it runs. Nothing is written where the run would write.

Two steps of each stage are taken, on its own batches; the time of the second is extrapolated over the stage.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts.run_folder import STAGES
from configuration.reference import describe_fields
from configuration.schema import Recipe
from data_scripts.batches import Rows, TrainingBatches
from training.run_context import Run, build_run, init_model, training_batches
from training.stepper import Stepper

SHOWN_ROWS = 5
BYTES_PER_PARAMETER = 16  # weight, gradient and two moments in float32; Muon keeps one, so this is an upper bound


def settings_table(recipe: Recipe) -> Table:
    """Lay out every setting of a recipe with its meaning; what differs from the default is marked by a star."""
    table = Table(title="settings (* not the default)", title_justify="left")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", overflow="fold")
    for field in dataclasses.fields(recipe):
        section = getattr(recipe, field.name)
        if not dataclasses.is_dataclass(section):
            table.add_row(field.name, escape(str(section)), "")
            continue
        meanings = describe_fields(type(section))
        for one in dataclasses.fields(section):
            value = getattr(section, one.name)
            missing = one.default is dataclasses.MISSING
            default = one.default_factory() if missing else one.default
            mark = "" if value == default else "*"
            meaning = meanings.get(one.name, "")
            table.add_row(f"{field.name}.{one.name}", f"{mark}{escape(str(value))}", escape(meaning))
    return table


def mark_targets(run: Run, rows: Rows, number: int) -> str:
    """Decode row `number` of a batch, with what counts in the loss between brackets: `Title. born in⁇[Rome⁇]`."""
    row = rows.part(number, number + 1)
    pieces = []
    for counts, group in groupby(zip(row.targets.tolist(), row.ids.tolist(), strict=True), key=lambda pair: pair[0]):
        text = run.tokenizer.decode([token for _, token in group])
        pieces.append(f"[{text}]" if counts else text)
    return "".join(pieces)


def sample_rows(run: Run, batches: TrainingBatches) -> Iterator[str]:
    """Yield rows of a stage's first batch, evenly spread over it, which is sorted by length."""
    rows = batches.rows(0)
    for number in np.linspace(0, len(rows.lengths) - 1, SHOWN_ROWS).round().astype(int).tolist():
        yield mark_targets(run, rows, number)


def time_step(run: Run, batches: TrainingBatches, stage: str) -> float:
    """Return the seconds of one optimizer step of a stage, the second of two: the first one warms up."""
    stepper = Stepper.prepare(init_model(run), getattr(run.recipe, stage), run.accelerator, len(batches))
    seconds = 0.0
    for step in range(min(2, len(batches))):
        start = time.monotonic()
        loss, _ = stepper.step(step, batches[step])
        loss.item()  # waits for the device
        seconds = time.monotonic() - start
    run.accelerator.free_memory()
    return seconds


def show(recipe: Recipe, console: Console | None = None) -> None:
    """Print a recipe's settings, its model's size, each stage's steps and estimated minutes, and training rows.

    Raises:
        UserError: as training would, for data or a model that cannot be used.
    """
    console = console or Console()
    console.print(settings_table(recipe))
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(dataclasses.replace(recipe, output=folder), trains=True, resume=False)
        try:
            parameters = init_model(run).num_parameters()
            memory = parameters * BYTES_PER_PARAMETER / 2**20
            console.print(f"\nparameters: {parameters:,}; weights, gradients and optimizer state: {memory:,.0f} MiB")
            batches_of = {stage: training_batches(run, stage) for stage in STAGES}
            for stage, batches in batches_of.items():
                minutes = len(batches) * time_step(run, batches, stage) / 60
                compiled = ", less once compiled" if recipe.run.compile else ""
                line = f"{stage}: {len(batches):,} steps, about {minutes:.1f} minutes on this machine{compiled}"
                console.print(line)
            console.print("\ntraining rows of pretrain; what counts in the loss is in brackets", highlight=False)
            for row in sample_rows(run, batches_of["pretrain"]):
                console.print(f"  {row}", markup=False, highlight=False)
        finally:
            run.accelerator.end_training()
