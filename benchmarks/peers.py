"""MiniGPT beside its peers in one run: training, generation, data path and memory at one shape.

    python -m benchmarks.peers --data FOLDER --output runs/peers.cpu.json   # a quarter of an hour on two cores
    python -m benchmarks.peers --rounds 1 --batch-size 32 --plain-questions 5          # invented people, minutes

The peers are transformers' GPT-2, trained as its Trainer does, and the published recipe in plain PyTorch
(`plain_mingpt`); all have 4 layers, 8 heads, width 256, 128 positions and a character vocabulary of 256, and learn the
same text in float32 (MiniGPT in bfloat16, too, where the processor multiplies that faster). Every measurement runs in
a fresh process; they are interleaved over rounds; a ratio is taken within a round. Exits with 1
where a bar printed at the end is missed.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.machine import describe_machine, name_machine
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import (
    available_device,
    default_device,
    new_parser,
    non_negative_int,
    positive_float,
    positive_int,
    thread_count,
)
from benchmarks.harness import Point, Record, Results, failures, median_and_range, results_of, successes, write_report
from benchmarks.peer_models import CHUNK, GPT2, OURS, OURS_BFLOAT16, PLAIN, Settings, Texts, our_recipe
from benchmarks.peer_tasks import SUBJECTS, describe_settings, measure_point
from benchmarks.plain_mingpt import Shape
from configuration.errors import run_main, show
from data_scripts.synthetic_bios import invent
from evaluation.tables import markdown_table
from training.machine_speed import has_fast_bfloat16

QUANTITIES = [  # task, field, heading, units in one of the field's, whether more is better
    ("training", "text_tokens_per_second", "text tokens/s", 1, True),
    ("training", "positions_per_second", "positions/s", 1, True),
    ("training", "peak_bytes", "peak memory, MiB", 2**-20, False),
    ("generation", "seconds", "all questions, s", 1, False),
    ("generation", "questions_per_second", "questions/s", 1, True),
    ("generation", "peak_bytes", "peak memory, MiB", 2**-20, False),
    ("data path", "examples_per_second", "examples/s", 1, True),
]
BARS = [  # task, field, peer, how many times better MiniGPT must be at least
    ("training", "text_tokens_per_second", PLAIN, 1.2),
    ("training", "text_tokens_per_second", GPT2, 2.0),
    ("data path", "examples_per_second", PLAIN, 20.0),
    ("generation", "questions_per_second", PLAIN, 20.0),
]
NOTES = """\
- Text tokens are the characters predicted, padding aside; positions are those computed, padding and all. The published
  loop always computes 127 a row, GPT-2's collator pads to a batch's longest row, MiniGPT batches rows of like length.
- "{ours}" trains as the recipe `cs224n-speedrun` does (rotary positions, RMSNorm, squared ReLU, no dropout, Muon,
  compiled blocks and loss) on this text, in float32, but for Muon's products: those are in bfloat16 where the
  processor multiplies it faster, as torch's Muon takes them everywhere. "{ours}, bfloat16" is the same with all in the
  format that the recipe takes by itself; "{ours}, seed recipe" is the published model and its AdamW, with the
  package's loop around them. Whatever is compiled is so before the clock starts.
- Every answer has {new_tokens} tokens: no model stops at the sentinel. {scaled}
- A data path has one core: its rate is by the processor time of all its threads. MiniGPT tokenises all texts once,
  before the clock starts, in half a second.
- Memory is the peak of a process over what its imports and the texts take.
"""


def values_of(results: Results, task: str, subject: str, field: str) -> list[float]:
    """Return a field of the rounds that have it."""
    rounds = successes(results.get(Point(subject, task), []))
    return [result[field] for result in rounds if result.get(field) is not None]


def times_better(results: Results, task: str, subject: str, field: str) -> list[float]:
    """Return how many times better MiniGPT is than a subject, for each round in which both were measured."""
    more_is_better = {(task, field): more for task, field, *_, more in QUANTITIES}
    rounds = (results.get(Point(name, task), []) for name in (OURS, subject))
    ratios = []
    for ours, theirs in zip(*rounds, strict=False):
        if ours.get(field) and theirs.get(field):
            ratio = ours[field] / theirs[field]
            ratios.append(ratio if more_is_better[task, field] else 1 / ratio)
    return ratios


def judge(results: Results, tasks: list[str]) -> list[Bar]:
    """Return each bar of the tasks asked for, with the median ratio that was found."""
    bars = []
    for task, field, peer, limit in BARS:
        if task in tasks:
            ratios = times_better(results, task, peer, field)
            what = f"{task}: {field.replace('_per_second', '/s').replace('_', ' ')} over {peer}'s"
            bars.append(Bar(what, statistics.median(ratios) if ratios else None, ">=", limit))
    return bars


def task_table(results: Results, task: str) -> str:
    """Return the quantities of one task as a table, one row per subject."""
    quantities = [quantity for quantity in QUANTITIES if quantity[0] == task]
    columns = [task]
    for _, _, heading, *_ in quantities:
        columns += [heading, "×"]
    rows = []
    for subject in (point.subject for point in results if point.task == task):
        row = [subject]
        for _, field, _, scale, _ in quantities:
            ratios = [] if subject == OURS else times_better(results, task, subject, field)
            row += [median_and_range(values_of(results, task, subject, field), scale), median_and_range(ratios)]
        rows.append(row)
    return markdown_table(columns, rows)


def report(content: dict) -> str:
    """Return the results as Markdown."""
    results = results_of(content)
    settings = content["settings"]
    shape = settings["shape"]
    rounds = max(map(len, results.values()), default=0)
    introduction = (
        f"{shape['layers']} layers, {shape['heads']} heads, width {shape['width']}, block {shape['block']}, "
        f"vocabulary {shape['vocabulary']}; {settings['steps']} steps of {settings['batch_size']} rows; "
        f"{settings['documents']:,} documents, {settings['questions']} questions ({content['data']}). "
        f"{name_machine(content['machine'])}. Medians (and ranges) of {rounds} rounds; × is how many times better "
        "MiniGPT is, by round."
    )
    tables = [task_table(results, task) for task in SUBJECTS if any(point.task == task for point in results)]
    asked = settings["questions"]
    answered = min(settings["plain_questions"], asked)
    scaled = f"The plain loop answered {answered} of {asked}, its seconds are scaled up." if answered < asked else ""
    notes = NOTES.format(ours=OURS, new_tokens=settings["new_tokens"], scaled=scaled)
    return write_report("MiniGPT and its peers", introduction, *tables, notes, failures(results))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    base = Settings()
    shape = Shape()
    device = default_device()
    parser = new_parser(__doc__, f"runs/peers.{device}.json")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="cs224n layout (default: 1,400 invented people)")
    parser.add_argument(
        "--device", type=available_device, choices=["cpu", "cuda"], default=device, help=f"default here: {device}"
    )
    parser.add_argument("--threads", type=thread_count, default=torch.get_num_threads(), help="on a CPU (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="default: all")
    parser.add_argument("--rounds", type=positive_int, default=5, help="times each point is measured (%(default)s)")
    parser.add_argument(
        "--shape", type=positive_int, nargs=4, default=[shape.layers, shape.heads, shape.width, shape.block],
        metavar=("LAYERS", "HEADS", "WIDTH", "BLOCK"), help="of all models (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=base.batch_size, help="rows of a step (%(default)s)"
    )
    parser.add_argument(
        "--warmup", type=non_negative_int, default=base.warmup, help="steps before the clock starts (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=positive_int, default=base.steps, help="steps timed, a multiple of 8 (%(default)s)"
    )
    parser.add_argument(
        "--questions", type=positive_int, default=500, help="number of dev questions, the first ones (%(default)s)"
    )
    parser.add_argument(
        "--plain-questions", type=positive_int, default=base.plain_questions,
        help="how many of them the one-at-a-time loop answers, its time scaled to all (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--data-seconds", type=positive_float, default=base.data_seconds, help="per data path (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    if arguments.steps % CHUNK:  # the batches that are drawn at once
        parser.error(f"argument --steps: must be a multiple of {CHUNK}, found {arguments.steps}")
    return arguments


def load_texts(arguments: argparse.Namespace) -> Texts:
    """Return the documents and the first questions."""
    if arguments.data is None:
        bios = invent(1400, lines=3)
        texts = Texts(bios.documents, [question.text for question in bios.validation])
    else:
        texts = Texts.read(arguments.data)
    return replace(texts, questions=texts.questions[: arguments.questions])


def main(argv: list[str] | None = None) -> int:
    """Measure every task of every subject; return the exit status, 1 where a bar is missed."""
    arguments = parse_arguments(argv)
    chosen = ("batch_size", "warmup", "steps", "plain_questions", "data_seconds", "device", "threads")
    settings = Settings(shape=Shape(*arguments.shape), **{name: getattr(arguments, name) for name in chosen})

    def command() -> int:
        our_recipe(OURS, settings.shape)  # a shape that no model has ends the command now, not at each point
        texts = load_texts(arguments)
        texts.check(settings.shape, settings.new_tokens)
        torch.set_num_threads(arguments.threads)
        what = {
            "machine": describe_machine(torch.device(arguments.device)),
            "data": "invented people" if arguments.data is None else arguments.data.resolve().name,
            "settings": describe_settings(settings, texts),
        }
        record = Record(arguments.output, report, what)
        # Where the device emulates bfloat16, its training would take hours.
        lacking = set() if has_fast_bfloat16(torch.device(arguments.device)) else {OURS_BFLOAT16}
        points = [
            Point(subject, task) for task in arguments.tasks for subject in SUBJECTS[task] if subject not in lacking
        ]
        record.measure(points, measure_point, texts, settings, rounds=arguments.rounds)
        show(record.text())
        return print_bars(judge(record.results, arguments.tasks))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
