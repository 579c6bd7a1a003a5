"""Compare attention variants by one command: accuracy, recall by distance, time, memory, decoding, exponents.

    python -m benchmarks.compare --variants vanilla mine --quick                     # a first table, in minutes
    python -m benchmarks.compare --variants vanilla mine --data FOLDER --seeds 0 1 2

`mine` is any name in `ATTENTION_CLASSES`. Each variant

- trains by a recipe (--recipe, by default quickstart) on the data, once for each seed, and is asked training questions
  that were held out; the dev file of the data is not opened. Without --data these are the recipe's own data, and if
  their people are invented, the dev questions are asked. If the recipe has a sibling for the variant, such as
  quickstart-bigbird, the sizes of its model are taken from that;
- learns the task "people" of `attention_recall`, once for each seed, and is asked about facts near and far in a long
  text;
- is timed at growing lengths, as in `attention_scaling`: a layer's forward and backward pass, with peak memory, and
  decoding.

Prints one table, and writes it beside the results (.md), with a page of plots (.svg). Every measurement is written as
soon as it is there: the same command continues after an interruption, tries again what failed, and with more seeds or
variants measures only those. When a variant's file has changed, the variant is measured again. Exits with 1 if
something failed.
"""

import argparse
import hashlib
import inspect
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.machine import describe_machine
from artifacts.memory import tune_glibc_malloc
from benchmarks import attention_recall
from benchmarks.ablations import ALL_QUESTIONS
from benchmarks.attention_subjects import measure_point
from benchmarks.command_line import default_device, new_parser, positive_int, seed_number, thread_count
from benchmarks.compare_report import ACCURACY, RECALL, draw, report
from benchmarks.harness import Point, Record, failed
from benchmarks.recall_models import UNSCALED, build_model, milliseconds_a_token
from benchmarks.training_steps import train_and_score, with_paths
from configuration.data_schema import INVENTED_SOURCES
from configuration.errors import run_main, show
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from configuration.schema import Recipe
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES, VanillaAttention
from training.preview import time_step
from training.run_context import Run, build_run, training_batches

HELD_OUT = 300  # training questions; the standard error of an accuracy near 80 % is 2.3 points
SCALING_SECONDS = 3  # of a point of time and memory, its process included
QUICK_OUTPUT = Path("runs/compare.quick.json")
READING = 1.25  # times the training on recall: its contexts are read, too


@dataclass(frozen=True)
class RecallTraining:
    """How recall is trained and asked; see `attention_recall`."""

    length: int
    tokens: int
    steps: tuple[int, ...]
    contexts: int


@dataclass(frozen=True)
class Effort:
    """How much is measured, where the command does not say it.

    Attributes:
        steps: of pretraining; the recipe's own where None.
        lengths: of time and memory, in tokens.
        rounds: of each of these.
        recall: how recall is trained.
    """

    steps: int | None
    lengths: tuple[int, ...]
    rounds: int
    recall: RecallTraining


FULL = Effort(None, (512, 1024, 2048, 4096, 8192), 3, RecallTraining(4096, 4096, (100, 60, 60, 60, 140), 12))
QUICK = Effort(300, (512, 1024, 2048, 4096), 1, RecallTraining(1024, 2048, (0, 50, 40, 40, 60), 12))


@dataclass(frozen=True)
class Plan:
    """What every point needs to know.

    Attributes:
        recipe: file of the recipe to train by.
        overrides: the user's, `section.key=value`.
        data: folder or file of the data; the recipe's own where None.
        steps: of pretraining; the recipe's own where None.
        recall: how recall is trained.
        device: of time and memory.
        threads: on a CPU.
        codes: digest of the file of each variant, as it was when the command started and imported it.
    """

    recipe: Path
    overrides: tuple[str, ...]
    data: str | None
    steps: int | None
    recall: RecallTraining
    device: str
    threads: int
    codes: dict[str, str]

    def load(self, folder: str | Path, sizes: Sequence[str] = (), own: Sequence[str] = ()) -> Recipe:
        """Return the recipe with its output in a folder, and with what is held out.

        Args:
            folder: of the run.
            sizes: overrides that the user's win over.
            own: overrides that win over the user's.

        Raises:
            RecipeError: the recipe or an override cannot be used, or the recipe's source takes no other data.
        """
        length = [] if self.steps is None else [f"pretrain.steps={self.steps}", "pretrain.epochs=null"]
        paths = with_paths([], folder, self.data)
        base = ["run.checkpoint_minutes=1000", *ALL_QUESTIONS]
        source = load_recipe(self.recipe, [*paths, *self.overrides]).data.source
        # Dev questions about invented people can be used up: others can be invented. A corpus that is prepared has
        # held people out already, or none.
        if source not in (*INVENTED_SOURCES, "prepared"):
            base.append(f"data.validation_questions={HELD_OUT}")
        return load_recipe(self.recipe, [*base, *length, *sizes, *self.overrides, *own, *paths])


def sizes_of(plan: Plan, variant: str) -> list[str]:
    """Return the model settings in which a variant's own recipe, beside the plan's, differs from that; or none."""
    sibling = plan.recipe.with_name(f"{plan.recipe.stem}-{variant.replace('_', '-')}.yaml")
    if not sibling.is_file():
        return []
    settings = with_paths(list(plan.overrides), "x", plan.data)
    own, base = (load_recipe(path, settings).model.fields for path in (sibling, plan.recipe))
    changed = {key: value for key, value in own.items() if key not in base or base[key] != value}
    return [f"model.{key}={json.dumps(value)}" for key, value in changed.items() if key != "attention_type"]


def code_of(variant: str) -> str:
    """Return a digest of the file that defines a variant."""
    variant_class = ATTENTION_CLASSES[variant]
    # The file of vanilla lists all variants too, and a new one there changes no measurement of vanilla.
    part = variant_class if variant_class is VanillaAttention else inspect.getmodule(variant_class)
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]


def measure_accuracy(point: Point, plan: Plan) -> dict:
    """Train a variant under a seed by the recipe, and score it."""
    sizes = sizes_of(plan, point.subject)
    with tempfile.TemporaryDirectory() as folder:
        recipe = plan.load(folder, sizes, [f"seed={point.seed}", f"model.attention_type={point.subject}"])
        return {"settings": sizes, **train_and_score(build_run(recipe))}


def measure(point: Point, plan: Plan) -> dict:
    """Measure one point: the accuracy or the recall of a training, or time and memory at a length."""
    torch.set_num_threads(plan.threads)
    tune_glibc_malloc()
    if point.task == ACCURACY:
        found = measure_accuracy(point, plan)
    elif point.task == RECALL:
        how = plan.recall
        settings = (how.length, list(how.steps), how.tokens, how.contexts, [how.length], [UNSCALED])
        found = attention_recall.measure(point, *settings)
    else:
        found = measure_point(point, plan.device, plan.threads)
    return {**found, "code": plan.codes[point.subject]}


def plan_points(arguments: argparse.Namespace) -> tuple[list[Point], list[Point]]:
    """Return the points of time and memory, and those of trainings, seed by seed."""
    scaling = [
        Point(variant, task, length)
        for task in ("layer", "decode")
        for variant in arguments.variants
        for length in arguments.lengths
    ]
    trainings = [
        Point(variant, task, seed=seed)
        for seed in arguments.seeds
        for task in (RECALL, ACCURACY)
        for variant in arguments.variants
    ]
    return scaling, trainings


@contextmanager
def trial_run(plan: Plan) -> Iterator[Run]:
    """Build what a training of the recipe needs, in a folder that is removed; UserError as training would raise."""
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(plan.load(folder))
        try:
            yield run
        finally:
            run.accelerator.end_training()


def estimate_seconds(run: Run, plan: Plan, missing: dict[Point, int]) -> float:
    """Estimate the seconds of points, if every variant takes as long as vanilla; one step of each stage is timed.

    Args:
        run: of the recipe.
        plan: of all points.
        missing: the rounds that each point lacks.
    """
    tasks = {
        task: sum(rounds for point, rounds in missing.items() if point.task == task) for task in (ACCURACY, RECALL)
    }
    seconds = float(SCALING_SECONDS * (sum(missing.values()) - sum(tasks.values())))
    if tasks[ACCURACY]:
        for stage in ("pretrain", "finetune"):
            batches = training_batches(run, stage)
            seconds += tasks[ACCURACY] * len(batches) * time_step(run, batches, stage)
    if tasks[RECALL]:
        length = plan.recall.length
        tokens = sum(plan.recall.steps) * plan.recall.tokens
        per_token = milliseconds_a_token(build_model("vanilla", length, RECALL), length, at_least=0.0) / 1e3
        seconds += tasks[RECALL] * READING * tokens * per_token
    return seconds


def discard_stale(record: Record, codes: dict[str, str]) -> None:
    """Drop what a record has of variants whose file has changed since, and say so."""
    for variant, code in codes.items():
        stale = [
            point
            for point, rounds in record.results.items()
            if point.subject == variant and any(found["code"] != code for found in rounds)
        ]
        if stale:
            show(f"{variant}: its file has changed, so it is measured again")
        for point in stale:
            del record.results[point]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; what it does not say is that of `FULL` or `QUICK`."""
    parser = new_parser(__doc__, "runs/compare.json")
    add = parser.add_argument
    add(
        "--variants", nargs="+", required=True, choices=list(ATTENTION_CLASSES), metavar="NAME",
        help=f"the others are compared with the first one; of {', '.join(ATTENTION_CLASSES)}",
    )  # fmt: skip
    add("--data", metavar="FOLDER", help="the four files, or anything else that data.path takes (the recipe's own)")
    add("--recipe", default="quickstart", help="name or file of the recipe to train by (%(default)s)")
    add("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    add("--seeds", type=seed_number, nargs="+", default=[0], metavar="N", help="seeds to train with (0)")
    add("--quick", action="store_true", help=f"fewer steps, shorter texts, one round, into {QUICK_OUTPUT}")
    add("--steps", type=positive_int, help=f"pretraining steps (the recipe's; {QUICK.steps} with --quick)")
    add(
        "--lengths", type=positive_int, nargs="+", metavar="N",
        help="tokens, for time and memory (512 to 8,192 or 4,096)",
    )  # fmt: skip
    add("--rounds", type=positive_int, help=f"rounds of time and memory ({FULL.rounds}; {QUICK.rounds} with --quick)")
    add(
        "--threads", type=thread_count, default=torch.get_num_threads(),
        help="threads on a CPU (default here: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    effort = QUICK if arguments.quick else FULL
    for name in ("steps", "lengths", "rounds"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(effort, name))
    arguments.recall = effort.recall
    if arguments.quick and arguments.output == Path(parser.get_default("output")):  # settings of the two differ
        arguments.output = QUICK_OUTPUT
    arguments.variants = list(dict.fromkeys(arguments.variants))
    return arguments


def open_record(arguments: argparse.Namespace, plan: Plan, run: Run) -> Record:
    """Open the results of the command, without those of variants whose code has changed since."""
    settings = {
        "machine": describe_machine(torch.device(plan.device)),
        "recipe": plan.recipe.stem,
        "overrides": list(plan.overrides),
        "data": {"name": run.data.name, "inputs": run.data.inputs},
        "steps": plan.steps,
        "recall": {**asdict(plan.recall), "steps": list(plan.recall.steps)},
    }
    record = Record(arguments.output, report, settings, {"variants": arguments.variants})
    discard_stale(record, plan.codes)
    return record


def main(argv: list[str] | None = None) -> int:
    """Measure and compare; return the exit status, 1 where a point failed."""
    arguments = parse_arguments(argv)

    def command() -> int:
        torch.set_num_threads(arguments.threads)
        codes = {name: code_of(name) for name in arguments.variants}
        plan = Plan(
            find_recipe(arguments.recipe), tuple(arguments.overrides), arguments.data, arguments.steps,
            arguments.recall, default_device(), arguments.threads, codes,
        )  # fmt: skip
        for variant in arguments.variants:
            sizes_of(plan, variant)  # a recipe that cannot be used ends the command now, not after hours
        scaling, trainings = plan_points(arguments)
        wanted = {**dict.fromkeys(scaling, arguments.rounds), **dict.fromkeys(trainings, 1)}
        with trial_run(plan) as run:
            record = open_record(arguments, plan, run)
            missing = {point: rounds - len(record.results.get(point, [])) for point, rounds in wanted.items()}
            missing = {point: rounds for point, rounds in missing.items() if rounds > 0}
            minutes = estimate_seconds(run, plan, missing) / 60
        show(
            f"{len(missing)} of {len(wanted)} points to measure, in about {max(1, round(minutes))} minutes if every "
            "variant takes as long as vanilla"
        )
        # First what takes seconds: a variant that fails shows it before anything is trained.
        record.measure(scaling, measure, plan, rounds=arguments.rounds)
        record.measure(trainings, measure, plan)
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text(), end="")
        show(f"\ntable: {arguments.output.with_suffix('.md')}\nplots: {arguments.output.with_suffix('.svg')}")
        return int(any(failed(record.results[point]) for point in wanted))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
