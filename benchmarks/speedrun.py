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

Results are written after each seed; seeds that an earlier run of the same command left in the output are kept.

Time to an accuracy is the first moment at which the mean over the seeds of each one's newest copy reaches it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from artifacts.loading import load_model, load_tokenizer
from artifacts.run_folder import RunError, write_json
from benchmarks.measurement import describe_machine, earlier_points
from configuration.recipe import RecipeError, load_recipe
from configuration.schema import Recipe
from data_scripts.bios_folder import DataError
from data_scripts.splits import load_scoring_pairs
from evaluation.scoring import answer_pairs
from evaluation.trust import fraction
from modeling_minigpt import MiniGPTForCausalLM
from training.checkpoints import Progress
from training.run_context import Run, build_run
from training.runner import finetune, pretrain

RECIPE = Path(__file__).parents[1] / "configuration" / "recipes" / "cs224n-speedrun.yaml"
MILESTONES = (0.128, 0.404, 0.6, 0.8)  # the practical's, the best published, ours
MOST_PARAMETERS = 4_200_000


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
    _, pairs = load_scoring_pairs(run.data, run.folder.data)
    _, right = answer_pairs(model, load_tokenizer(run.folder.tokenizer), pairs, run.recipe.evaluate)
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
    if parameters > MOST_PARAMETERS:
        raise RunError(f"the model has {parameters:,} parameters, and {MOST_PARAMETERS:,} are allowed")
    curve = [[moment, score(run, load_model(copy))] for moment, copy in clock.copies]
    return {
        "seed": recipe.seed,
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


def summarize(runs: list[dict]) -> dict:
    """Return means with spread (standard deviation between seeds) and the times to the milestones, in seconds."""
    accuracies, seconds = ([run[key] for run in runs] for key in ("accuracy", "seconds"))
    curves = [run["curve"] for run in runs]
    return {
        "accuracy": statistics.mean(accuracies),
        "accuracy_spread": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "seconds": statistics.mean(seconds),
        "seconds_spread": statistics.stdev(seconds) if len(runs) > 1 else None,
        "seconds_to": {str(milestone): time_to(milestone, curves) for milestone in MILESTONES},
    }


def describe(runs: list[dict]) -> str:
    """Return the results in a few lines."""
    whole = summarize(runs)
    spread = "" if whole["accuracy_spread"] is None else f" ± {100 * whole['accuracy_spread']:.1f}"
    lines = [f"{len(runs)} seeds: {100 * whole['accuracy']:.1f}{spread} % in {whole['seconds'] / 60:.1f} min"]
    for milestone, seconds in whole["seconds_to"].items():
        reached = "not reached" if seconds is None else f"{seconds / 60:.1f} min"
        lines.append(f"{100 * float(milestone):.1f} %: {reached}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run every seed, write the results after each; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="FOLDER", help="the four files")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what to run (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where to write the results")
    arguments = parser.parse_args(argv)
    results = {
        "machine": describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "recipe": arguments.recipe.stem,
        "overrides": arguments.overrides,
    }
    try:
        results["runs"] = earlier_points(arguments.output, results, "runs")
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done = {run["seed"] for run in results["runs"]}
    for seed in sorted(set(arguments.seeds) - done):
        with tempfile.TemporaryDirectory() as folder:
            own = (f"data.path={arguments.data}", f"output={folder}/run", f"seed={seed}")
            try:
                recipe = load_recipe(arguments.recipe, [*arguments.overrides, *own])
                results["runs"].append(run_once(recipe))
            except (RecipeError, DataError, RunError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
        results["summary"] = summarize(results["runs"])
        write_json(arguments.output, results)
        print(json.dumps({key: value for key, value in results["runs"][-1].items() if key != "curve"}), flush=True)
    print(describe(results["runs"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
