"""What helps the birthplace recipe and what does not: one thing changed at a time, the same time to train for each.

    python -m benchmarks.ablations FOLDER --output ablations.json        # three hours, two cores
    python -m benchmarks.ablations FOLDER --only baseline contexts --minutes 1 --output ablations.json
    python -m benchmarks.ablations FOLDER --steps 400 --seeds 0 1 2 --output benchmarks/results/ablations.cpu.json

A variant is the recipe with a few settings changed, in a fresh process. It takes the steps that are asked for, with
the learning rate's course as long as those, or as many as fit into the minutes: then its steps are timed first, which
needs a machine that does nothing else. Accuracy is on 500 training questions that are held out of all training; the
dev file is not opened. Writes the results as JSON and, beside it, as Markdown after each point; what an earlier run of
the same command left there stays, and the rest is added.
"""

import math
import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

import torch

from artifacts.loading import load_model
from artifacts.machine import describe_machine, name_machine
from benchmarks.command_line import (
    add_recipe_options,
    default_device,
    new_parser,
    positive_float,
    positive_int,
    seed_number,
)
from benchmarks.harness import Point, Record, failed, failures, results_of, write_report
from benchmarks.inputs import folder_digests
from benchmarks.model_ideas import IDEAS
from benchmarks.training_steps import TrainingSteps, padding_share, train_and_score, with_paths
from configuration.errors import UserError, run_main, show
from configuration.recipe import load_recipe
from data_scripts.bios_folder import check_folder
from evaluation.tables import markdown_table
from modeling_minigpt import MiniGPTForCausalLM
from training.checkpoints import Progress
from training.run_context import Run, build_run, training_batches

RECIPE = "cs224n-speedrun"
ALL_QUESTIONS = ("data.calibration_questions=0", "data.withheld_people=0")  # but for those that are scored
HELD_OUT = 500  # training questions; the standard error of an accuracy near 80 % is 1.8 points
WARMUP = 16  # steps; what is compiled for one length alone is compiled in these
TIMED = 24  # steps
AVERAGED = "none, weights averaged over the last fifth"
AVERAGED_SHARE = 0.2
VARIANTS: dict[str, dict[str, list[str]]] = {
    "": {"baseline": []},
    "what is taken out": {
        "what looks like an answer no sooner than the rest": ["corruption.likely_answer_fraction=0"],
        "what looks like an answer, in half of the rows": ["corruption.likely_answer_fraction=0.5"],
        "what looks like an answer, always": ["corruption.likely_answer_fraction=1"],
        "up to two spans": ["corruption.max_spans=2"],
        "random spans": ["corruption.policy=random-span"],
    },
    "contexts": {
        "at most 12 characters": ["corruption.max_context=12"],
        "at most 48 characters": ["corruption.max_context=48"],
    },
    "questions": {
        "none before finetuning": ["pretrain.question_fraction=0"],
        "a fifth of the rows": ["pretrain.question_fraction=0.2"],
    },
    "loss": {
        "on titles too": ["pretrain.title_loss=true", "pretrain.title_fraction=1"],
        "on titles in a quarter of the rows": ["pretrain.title_loss=true", "pretrain.title_fraction=0.25"],
        "on spans alone": ["pretrain.context_loss=false"],
    },
    "vocabulary": {
        "1,000": ["tokenizer.vocab_size=1000"],
        "4,000, tied": ["tokenizer.vocab_size=4000", "model.tie_word_embeddings=true"],
        "characters": ["tokenizer.type=character", "tokenizer.vocab_size=null"],
    },
    "batches": {
        "64 rows": ["pretrain.batch_size=64"],
        "256 rows": ["pretrain.batch_size=256"],
        "not sorted by length": ["pretrain.bucket_batches=1"],
    },
    "optimizer": {
        "AdamW": ["pretrain.optimizer=adamw"],
        "Muon at 0.01": ["pretrain.muon_learning_rate=0.01"],
        "Muon at 0.04": ["pretrain.muon_learning_rate=0.04"],
        "Muon, four iterations": [],
        "Polar Express": [],
    },
    "schedule": {
        "cosine": ["pretrain.schedule=cosine"],
        "decay from the start": ["pretrain.decay_fraction=1.0"],
        "decay over the last third": ["pretrain.decay_fraction=0.33"],
        AVERAGED: ["pretrain.decay_fraction=0", "run.checkpoint_minutes=0.05"],
    },
    "shape": {
        "4 layers of 256": [
            "model.num_hidden_layers=4",
            "model.hidden_size=256",
            "model.num_attention_heads=8",
            "model.intermediate_size=null",
        ],
        "3 layers of 288": [
            "model.num_hidden_layers=3",
            "model.hidden_size=288",
            "model.num_attention_heads=9",
            "model.intermediate_size=null",
        ],
        "3.3 million parameters": ["model.intermediate_size=640"],
    },
    "parts of the model": {
        "n-gram embeddings": [],
        "short convolutions": ["evaluate.batch_size=1"],  # they would read padding on the left
        "value embeddings": [],
        "residual scalars": [],
    },
}


def find_variants(wanted: list[str] | None) -> dict[tuple[str, str], list[str]]:
    """Return the overrides of the variants whose names or groups are wanted, by (group, name); all when None.

    Raises:
        UserError: one is asked for that is not there.
    """
    every = {(group, name): settings for group, variants in VARIANTS.items() for name, settings in variants.items()}
    if wanted is None:
        return every
    known = {word for key in every for word in key}
    if unknown := sorted(set(wanted) - known):
        raise UserError(f"no variant or group {unknown[0]!r}; there are {', '.join(sorted(known - {''}))}")
    return {key: settings for key, settings in every.items() if set(key) & set(wanted)}


class WeightAverage:
    """The mean of the weights at a pretraining's last checkpoints.

    Args:
        first_step: the step from which checkpoints are counted.
    """

    def __init__(self, first_step: float):
        self.first_step = first_step
        self.weights: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, stage: str, model: MiniGPTForCausalLM, progress: Progress) -> None:
        """Add the weights of a checkpoint; the `on_checkpoint` of a run."""
        if stage != "pretrain" or progress.step < self.first_step:
            return
        self.count += 1
        for name, weight in model.state_dict().items():
            self.weights.setdefault(name, torch.zeros_like(weight)).lerp_(weight, 1 / self.count)

    def replace_weights(self, run: Run) -> None:
        """Save the mean as the run's pretrained model."""
        folder = run.folder.stage("pretrain")
        model = load_model(folder)
        model.load_state_dict(self.weights)
        model.save_pretrained(folder)


def measure(point: Point, base: list[str], recipe: Path, data: Path, minutes: float, steps: int | None) -> dict:
    """Train one variant for some minutes, or some steps, and score it on the held-out questions."""
    settings = VARIANTS[point.task or ""][point.subject]
    overrides = [*base, *settings, f"seed={point.seed}"]
    average = point.subject == AVERAGED
    idea = IDEAS.get(point.subject, nullcontext)
    with idea(), tempfile.TemporaryDirectory() as folder:
        held_out = ["run.checkpoint_minutes=1000", *ALL_QUESTIONS, *overrides, f"data.validation_questions={HELD_OUT}"]
        if steps is None:
            trial = TrainingSteps(load_recipe(recipe, with_paths(held_out, f"{folder}/trial", data)))
            with trial.compiled():
                steps = max(1, round(60 * minutes / statistics.mean(trial.seconds(WARMUP, TIMED))))
        length = [f"pretrain.steps={steps}", "pretrain.epochs=null"]
        full = load_recipe(recipe, with_paths([*held_out, *length], folder, data))
        mean = WeightAverage((1 - AVERAGED_SHARE) * steps)
        run = build_run(full, on_checkpoint=mean.add if average else None)
        padding = padding_share(training_batches(run, "pretrain"))
        found = train_and_score(run, mean.replace_weights if average else None)
        assert found["split"] == "held_out"
        return {"settings": settings, "steps": steps, "padding": padding, **found}


def gain_over(baseline: dict[int | None, float], accuracies: dict[int | None, float]) -> str:
    """Write by how many points accuracies, by seed, are over the baseline's, with a 95 % interval over the seeds.

    Differences are taken seed by seed, since two runs of one seed have the same held-out questions and first weights:
    +1, +2 and +3 points are a gain of +2.0 ± 2.5 (Student's t with 2 degrees of freedom). One seed has no interval.
    """
    from scipy import stats

    differences = [100 * (accuracy - baseline[seed]) for seed, accuracy in accuracies.items() if seed in baseline]
    if not differences:
        return "–"
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{mean:+.1f}"
    reach = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean:+.1f} ± {reach:.1f}"


def report(content: dict) -> str:
    """Return the results as Markdown: a row per variant, its seeds' mean accuracy, and that less the baseline's."""
    results = results_of(content)
    variants: dict[tuple[str | None, str], dict[int | None, dict]] = defaultdict(dict)
    for point, rounds in results.items():
        if not failed(rounds):
            variants[point.task, point.subject][point.seed] = rounds[0]
    baseline = variants.get((None, "baseline"), {})
    base = {seed: one["accuracy"] for seed, one in baseline.items()}
    groups = list(dict.fromkeys(group for group, _ in variants))
    rows = []
    for (group, name), found in sorted(variants.items(), key=lambda one: groups.index(one[0][0])):
        accuracies = {seed: one["accuracy"] for seed, one in found.items()}
        mean = 100 * statistics.mean(accuracies.values())
        gain = "–" if name == "baseline" else gain_over(base, accuracies)
        steps = statistics.mean(one["steps"] for one in found.values())
        size = f"{next(iter(found.values()))['parameters'] / 1e6:.2f}"
        rows.append([group or "–", name, str(len(found)), f"{mean:.1f}", gain, f"{steps:,.0f}", size])
    packing = ""
    if baseline:
        padding = next(iter(baseline.values()))["padding"]
        packing = f" {100 * padding:.1f} % of its positions are padding, which packing would save."
    length = f"{content['steps']:,} steps" if content.get("steps") else f"{content['minutes']:g} minutes"
    introduction = (
        f"`{' '.join([content['recipe'], *content['overrides']])}` with one thing changed, {length} "
        f"of pretraining each; accuracy in % on {content['held_out']} held-out training questions.{packing} "
        f"{name_machine(content['machine'])}."
    )
    columns = ["group", "variant", "seeds", "accuracy", "over baseline, ± 95 %", "steps", "parameters, M"]
    return write_report("What helps and what does not", introduction, markdown_table(columns, rows), failures(results))


def main(argv: list[str] | None = None) -> int:
    """Measure every variant under every seed, seed by seed; return the exit status, 1 where one failed."""
    parser = new_parser(__doc__)
    parser.add_argument("data", type=Path, metavar="FOLDER", help="the four files")
    add_recipe_options(parser, RECIPE)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants, or groups of them")
    parser.add_argument("--minutes", type=positive_float, default=3.0, help="minutes of pretraining (%(default)s)")
    parser.add_argument("--steps", type=positive_int, help="of pretraining, instead of minutes")
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0], help="(%(default)s)")
    arguments = parser.parse_args(argv)
    base = arguments.overrides

    def command() -> int:
        check_folder(arguments.data)
        variants = find_variants(arguments.only)
        for settings in variants.values():
            load_recipe(arguments.recipe, [*base, *settings, f"data.path={arguments.data}"])
        machine = describe_machine(torch.device(default_device()))
        settings = {
            "recipe": arguments.recipe.stem,
            "overrides": base,
            "data": folder_digests(arguments.data, ("documents", "train")),  # no other file is read
            "minutes": arguments.minutes,
            "steps": arguments.steps,
            "held_out": HELD_OUT,
        }
        record = Record(arguments.output, report, {"machine": machine, **settings})
        points = [Point(name, group or None, seed=seed) for seed in arguments.seeds for group, name in variants]
        record.measure(points, measure, base, arguments.recipe, arguments.data, arguments.minutes, arguments.steps)
        show(record.text())
        return int(any(failed(rounds) for rounds in record.results.values()))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
