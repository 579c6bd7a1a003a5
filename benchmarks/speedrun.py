"""The birthplace speedrun: how soon, from the four files of the practical, is there a model that knows?

    python -m benchmarks.speedrun FOLDER --output benchmarks/results/speedrun.cpu.json
    python -m benchmarks.speedrun FOLDER --seeds 0 --set pretrain.steps=900 --output sprint.json

The rules:

- The files are taken as they are: wiki.txt, birth_places_train.tsv, birth_dev.tsv.
- The clock runs from before the first file is read until the dev questions are answered and scored: data preparation,
  training of the tokenizer, pretraining and finetuning, and the copies of the model on the way, are inside. Importing
  the libraries is not, nor is scoring those copies afterwards.
- No dev or test label is read before scoring; no question is made up about anybody; nothing is chosen by dev scores,
  neither a setting nor a checkpoint: the result is the last model's.
- At most 4.2 million parameters. Nothing is read for an answer but the weights and the question.
- A result is the mean of at least three seeds, a record of five (`benchmarks/RECORDS.md`).

Time to an accuracy is the first moment at which the mean over the seeds of each one's newest copy reaches it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from artifacts.loading import load_model, load_tokenizer
from artifacts.machine import describe_machine, name_machine
from artifacts.run_folder import RunError
from benchmarks.command_line import add_recipe_options, default_device, new_parser, seed_number
from benchmarks.harness import Point, Record, in_this_process, results_of, write_report
from benchmarks.inputs import folder_digests
from configuration.errors import run_main, show
from configuration.recipe import load_recipe
from configuration.schema import Recipe
from data_scripts.splits import load_scoring_questions
from evaluation.relation_scores import ask_model
from evaluation.tables import markdown_table, mean_and_spread
from evaluation.trust import fraction
from modeling_minigpt import MiniGPTForCausalLM
from training.checkpoints import Progress
from training.run_context import Run, build_run
from training.runner import finetune, pretrain

RECIPE = "cs224n-speedrun"
MILESTONES = (0.128, 0.404, 0.6, 0.8)  # the practical's, the best published, ours
MAX_PARAMETERS = 4_200_000


class Clock:
    """The time since the start of a run, and copies of its model, each with the time of its checkpoint.

    Args:
        folder: where copies are saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.start = time.monotonic()
        self.copies: list[tuple[float, Path]] = []

    def seconds(self) -> float:
        """Return the time on the clock."""
        return time.monotonic() - self.start

    def save_copy(self, stage: str, model: MiniGPTForCausalLM, progress: Progress) -> None:
        """Save a copy of a checkpoint's model and its time; the `on_checkpoint` of a run."""
        copy = self.folder / f"{stage}-{progress.step}"
        model.save_pretrained(copy)
        self.copies.append((self.seconds(), copy))


def score(run: Run, model: MiniGPTForCausalLM) -> float:
    """Return the fraction of dev questions that a model answers right."""
    _, questions = load_scoring_questions(run.data)
    _, right = ask_model(model, load_tokenizer(run.folder.tokenizer), questions, run.recipe.evaluate)
    return fraction(right)


def run_once(recipe: Recipe) -> dict:
    """Run from the files to scored predictions; return seconds, accuracy, size, and the curve of the copies."""
    clock = Clock(Path(recipe.output) / "copies")
    run = build_run(recipe, on_checkpoint=clock.save_copy)
    pretrain(run)
    finetune(run)
    run.accelerator.end_training()
    phases = {stage: 60 * run.folder.training_record(stage)["minutes"] for stage in ("pretrain", "finetune")}
    before = clock.seconds()
    model = load_model(run.folder.stage("finetune"))
    accuracy = score(run, model)
    seconds = clock.seconds()
    phases |= {"answer": seconds - before, "prepare": before - sum(phases.values())}
    parameters = model.num_parameters()
    if parameters > MAX_PARAMETERS:
        raise RunError(f"the model has {parameters:,} parameters, and {MAX_PARAMETERS:,} are allowed")
    curve = [[moment, score(run, load_model(copy))] for moment, copy in clock.copies]
    return {
        "seconds": seconds,
        "accuracy": accuracy,
        "parameters": parameters,
        "phases": phases,
        "curve": [*curve, [seconds, accuracy]],
    }


def time_to(accuracy: float, curves: list[list[list[float]]]) -> float | None:
    """Return the first second at which the mean of the curves' newest points is an accuracy; None if it never is."""
    for moment in sorted(second for curve in curves for second, _ in curve):
        newest = [max((point for point in curve if point[0] <= moment), default=(0.0, 0.0)) for curve in curves]
        if statistics.mean(value for _, value in newest) >= accuracy - 1e-9:
            return moment
    return None


def measure(point: Point, path: Path, overrides: list[str], data: Path) -> dict:
    """Run a recipe on a folder's files with one seed."""
    with tempfile.TemporaryDirectory() as folder:
        own = (f"data.path={data}", f"output={folder}/run", f"seed={point.seed}")
        return run_once(load_recipe(path, [*overrides, *own]))


def report(content: dict) -> str:
    """Return the results as Markdown."""
    runs = {point.seed: rounds[0] for point, rounds in results_of(content).items()}
    accuracies = [100 * run["accuracy"] for run in runs.values()]
    minutes = [run["seconds"] / 60 for run in runs.values()]
    introduction = (
        f"`{' '.join([content['recipe'], *content['overrides']])}` on {name_machine(content['machine'])}. "
        f"{len(runs)} seed{'s' if len(runs) > 1 else ''}: {mean_and_spread(accuracies)} % of the dev questions "
        f"in {mean_and_spread(minutes)} minutes (± is the standard deviation between seeds)."
    )
    rows = [
        [f"seed {seed}", f"{100 * run['accuracy']:.1f}", f"{run['seconds'] / 60:.1f}", f"{run['parameters']:,}"]
        for seed, run in runs.items()
    ]
    curves = [run["curve"] for run in runs.values()]
    reached = [[f"{100 * milestone:.1f} %", time_to(milestone, curves)] for milestone in MILESTONES]
    times = [[accuracy, "not reached" if when is None else f"{when / 60:.1f}"] for accuracy, when in reached]
    return write_report(
        "The birthplace speedrun",
        introduction,
        markdown_table(["run", "accuracy, %", "minutes", "parameters"], rows),
        markdown_table(["mean accuracy", "minutes until it is reached"], times),
    )


def main(argv: list[str] | None = None) -> int:
    """Run every seed; return the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("data", type=Path, metavar="FOLDER", help="the four files")
    add_recipe_options(parser, RECIPE)
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1, 2], help="one run each (%(default)s)")
    arguments = parser.parse_args(argv)

    def command() -> None:
        machine = describe_machine(torch.device(default_device()))
        settings = {
            "recipe": arguments.recipe.stem,
            "overrides": arguments.overrides,
            "data": folder_digests(arguments.data),
        }
        record = Record(arguments.output, report, {"machine": machine, **settings})
        points = [Point(arguments.recipe.stem, seed=seed) for seed in sorted(set(arguments.seeds))]
        where = (arguments.recipe, arguments.overrides, arguments.data)
        record.measure(points, measure, *where, run=in_this_process)
        show(record.text())

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
