"""How much can it know: bits of facts that a model stores per parameter, by its size, attention and exposures.

    python -m benchmarks.capacity --budget 0                  # list all points and their minutes, train nothing
    python -m benchmarks.capacity --budget 60                 # what fits into an hour, the most valuable first
    python -m benchmarks.capacity --subjects vanilla --seeds 0 1 2 --output benchmarks/results/capacity.cpu.json

Models are trained on plain biographies of invented people (`bios_uniform`), every token of which they predict. Bits
are counted as in "Physics of Language Models: Part 3.3" (Allen-Zhu and Li 2024, arXiv 2404.05405), by
`evaluation/stored_bits.py`. The paper finds at least 2 bits per parameter after 1,000 exposures of each person, and 1
after 100.

Each point is one training: an attention variant, a size WIDTHxLAYERS, a number of people, of exposures and a seed.
There are as many people as have --bits-offered bits of values per parameter of the vanilla model of that size; of
several numbers, what a model can know is the largest count. Each exposure has new wordings. A second task, extraction,
compares what the largest model stores with what it can answer (Part 3.1, arXiv 2309.14316): 1 or 5 wordings of a
biography, seen in turn, and questions about half of the people, after the biographies or mixed with them; accuracy is
on questions about the other half.

With --budget a step of each model is timed, and points are taken while they fit: seed by seed, and for each seed in
this order: the first subject at 100 exposures, smaller models first; at 1,000; extraction; its other exposures; the
other subjects at 100 exposures in the smallest model; all else. A point that does not fit is left out, with its
minutes, and the next is tried. What an earlier run of the same command measured is read from --output and costs
nothing. A figure beside the report (.svg) shows bits per parameter against exposures.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.machine import describe_machine
from artifacts.memory import tune_glibc_malloc
from benchmarks.bars import Bar, print_bars
from benchmarks.capacity_report import bits_per_parameter, draw, report
from benchmarks.capacity_texts import BATCH, LISTS, QUESTION_PASSES, Case, Lessons, Writer
from benchmarks.capacity_training import build_config, build_model, run_case, seconds_a_step
from benchmarks.command_line import (
    default_device,
    new_parser,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    seed_number,
    thread_count,
)
from benchmarks.harness import Point, Record, in_this_process
from configuration.errors import UserError, run_main, show
from configuration.model_size import check_fits
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES

SIZES = ("32x2", "64x2")
EXPOSURES = (10, 30, 100, 1000)
VALUABLE = (100, 1000)  # exposures, the most valuable first
BARS = {100: 1.0}  # bits per parameter after as many exposures
EXTRACTION = [(wordings, questions) for questions in ("after", "mixed") for wordings in (1, 5)]


def parse_size(text: str) -> tuple[int, int]:
    """Return the width and layers that "32x3" names; ArgumentTypeError for anything else."""
    width, _, layers = text.partition("x")
    if not (width.isdecimal() and layers.isdecimal() and int(width) > 0 and int(layers) > 0):
        raise argparse.ArgumentTypeError(f"wanted WIDTHxLAYERS as 32x3, found {text!r}")
    return int(width), int(layers)


class Style(NamedTuple):
    """How all points' biographies are written.

    Attributes:
        lists: the names and values to draw from, one of `LISTS`.
        employer_first: whether no biography says the employer's city before the employer.
    """

    lists: str
    employer_first: bool


def read_style(arguments: argparse.Namespace) -> Style:
    """Return how the biographies are written that are asked for."""
    return Style(arguments.lists, arguments.employer_first)


@lru_cache(maxsize=2)
def get_writer(seed: int, people: int, style: Style) -> Writer:
    """Return what writes about a population; points that follow each other share it."""
    return Writer(seed, people, LISTS[style.lists], style.employer_first)


def check_sizes(arguments: argparse.Namespace, writer: Writer) -> None:
    """Raise UserError for a size that a model of one of the subjects cannot have."""
    for width, layers in arguments.sizes:
        for subject in dict.fromkeys(("vanilla", *arguments.subjects)):
            try:
                check_fits(build_config(Case(subject, width, layers, 1, 1), writer))
            except (StrictDataclassError, ValueError) as error:
                raise UserError(f"--sizes {width}x{layers}: {subject}: {error.__cause__ or error}") from error


def count_people(width: int, layers: int, style: Style, bits_offered: float) -> int:
    """Return how many people's values have `bits_offered` bits per parameter of a vanilla model, in tens.

    Raises:
        UserError: more than have names.
    """
    writer = get_writer(0, 1, style)
    parameters = build_model(Case("vanilla", width, layers, 1, 1), writer).num_parameters()
    bits = sum(writer.population.entropies.values())
    people = max(20, 10 * round(bits_offered * parameters / bits / 10))
    if people > writer.population.names:
        most = bits * writer.population.names / parameters
        raise UserError(
            f"--bits-offered {bits_offered:g}: {width}x{layers} would need {people:.3g} people, but the lists "
            f"{style.lists!r} have names for {writer.population.names:,}; wanted at most {most:.3g}"
        )
    return people


def name_point(case: Case) -> Point:
    """Return the point of a case."""
    task = f"{case.width}x{case.layers}, {case.exposures:,} exposures"
    if case.questions is not None:
        task += f", {case.wordings} wordings, questions {case.questions}"
    return Point(case.attention, task, case.people, case.seed)


def list_cases(arguments: argparse.Namespace) -> list[Case]:
    """Return all cases that are asked for, the most valuable first."""
    style = read_style(arguments)
    populations = {
        size: [count_people(*size, style, offered) for offered in sorted(set(arguments.bits_offered))]
        for size in sorted(arguments.sizes)
    }
    smallest, *_, largest = (*populations, *populations)
    first = arguments.subjects[0]

    def rank(case: Case) -> tuple[int, ...]:
        is_first = case.attention == first
        size = list(populations).index((case.width, case.layers))
        if is_first and case.questions is None and case.exposures in VALUABLE:
            group = VALUABLE.index(case.exposures)
        elif is_first:
            group = 2 if case.questions is not None else 3
        else:
            group = 4 if case.exposures == VALUABLE[0] and (case.width, case.layers) == smallest else 5
        return arguments.seeds.index(case.seed), group, size, case.people, case.exposures

    cases = [
        Case(subject, *size, people, exposures, seed=seed, precision=arguments.mixed_precision)
        for seed in arguments.seeds
        for subject in arguments.subjects
        for size in populations
        for people in populations[size]
        for exposures in arguments.exposures
    ]
    # Fewer people than it could store: what is asked is whether it can answer.
    few = max(20, populations[largest][0] // 4)
    cases += [
        Case(first, *largest, few, arguments.extraction_exposures, *forms, seed, arguments.mixed_precision)
        for seed in arguments.seeds
        for forms in EXTRACTION
        if arguments.extraction_exposures
    ]
    return sorted(cases, key=rank)  # stable: within a rank in the order that they were asked for


def plan(minutes: Mapping[Point, float], budget: float) -> tuple[list[Point], list[Point]]:
    """Return the points that fit into a budget, tried in their order, and those that are left out.

    Args:
        minutes: of each point, the most valuable first.
        budget: minutes in all.
    """
    chosen = []
    left_out = []
    for point, cost in minutes.items():
        fits = cost <= budget
        (chosen if fits else left_out).append(point)
        budget -= cost if fits else 0
    return chosen, left_out


def estimate_minutes(cases: Mapping[Point, Case], style: Style) -> dict[Point, float]:
    """Return how long each point will take: a step of each model is timed, in a second or less."""
    seconds: dict[tuple, float] = {}
    minutes = {}
    for point, case in cases.items():
        model = (case.attention, case.width, case.layers, case.questions == "mixed")
        if model not in seconds:
            seconds[model] = seconds_a_step(case, get_writer(case.seed, case.people, style))
        # A step over questions alone has about as many tokens as one over biographies.
        minutes[point] = seconds[model] * len(Lessons(case, get_writer(0, 1, style))) / 60
    return minutes


def choose(record: Record, cases: Mapping[Point, Case], style: Style, budget: float) -> list[Point]:
    """Return the points that fit into a budget of minutes, after those that are measured; print what is left out."""
    done = [point for point in cases if point in record.results]
    minutes = estimate_minutes({point: case for point, case in cases.items() if point not in done}, style)
    chosen, left_out = plan(minutes, budget)
    for points, what in ((chosen, "fit"), (left_out, "are left out")):
        total = sum(minutes[point] for point in points)
        show(f"{len(points)} points {what}, {total:,.0f} minutes:")
        for point in points:
            show(f"  {minutes[point]:8,.1f}  {point}")
    return [*done, *chosen]


def measure(point: Point, cases: Mapping[Point, Case], style: Style) -> dict:
    """Train and score a point's case."""
    case = cases[point]
    return run_case(case, get_writer(case.seed, case.people, style))


def bars_of(record: Record, first: str) -> list[Bar]:
    """Return the limits that the first subject's points have to keep."""
    return [
        Bar(f"{point}: bits per parameter", bits_per_parameter(run), ">=", BARS[run["exposures"]])
        for point, rounds in record.results.items()
        for run in rounds
        if point.subject == first and run.get("exposures") in BARS and run["questions"] is None
    ]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/capacity.json")
    add = parser.add_argument
    known = list(ATTENTION_CLASSES)
    add("--subjects", nargs="+", choices=known, default=known, metavar="NAME", help=f"of {', '.join(known)}")
    add("--sizes", nargs="+", type=parse_size, default=[*map(parse_size, SIZES)], metavar="WIDTHxLAYERS",
        help=f"of models (default: {' '.join(SIZES)})")  # fmt: skip
    add("--exposures", nargs="+", type=positive_int, default=list(EXPOSURES), metavar="N",
        help="default: 10 30 100 1000")  # fmt: skip
    add("--extraction-exposures", type=non_negative_int, default=200, metavar="N",
        help="exposures in the points that ask questions; 0 leaves them out (default: %(default)s)")  # fmt: skip
    add("--bits-offered", nargs="+", type=positive_float, default=[1.8], metavar="N",
        help="bits of values per parameter (default: 1.8)")  # fmt: skip
    add("--lists", choices=list(LISTS), default="short",
        help="names and values to draw from: short, for models of some ten thousand parameters; as many as in the"
        " paper; or so few that many people share each part of their names (default: %(default)s)")  # fmt: skip
    add("--employer-first", action="store_true",
        help="never say the employer's city before the employer, from which it follows (default: sentences are in any"
        " order, as in the paper)")  # fmt: skip
    add("--seeds", type=seed_number, nargs="+", default=[0], metavar="N",
        help="of weights, people and order (default: 0)")  # fmt: skip
    add("--budget", type=non_negative_float, metavar="MINUTES",
        help="train what fits; 0 trains nothing (default: train all)")  # fmt: skip
    add("--mixed-precision", choices=("no", "bf16"), default="no", help="of training (default: no, float32)")
    add("--threads", type=thread_count, default=2, help="threads (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score the points; return the exit status, 1 where a bar is missed."""
    arguments = parse_arguments(argv)
    missed = []

    def command() -> None:
        torch.set_num_threads(arguments.threads)
        tune_glibc_malloc()
        style = read_style(arguments)
        writer = get_writer(0, 1, style)
        settings = {
            "machine": describe_machine(torch.device(default_device())),
            **style._asdict(),
            "precision": arguments.mixed_precision,
            "vocabulary": writer.vocabulary,
            "names": writer.population.names,
            "batch": BATCH,
            "question_passes": QUESTION_PASSES,
        }
        check_sizes(arguments, writer)
        record = Record(arguments.output, report, settings)
        cases = {name_point(case): case for case in list_cases(arguments)}
        points = list(cases)
        if arguments.budget is not None:
            points = choose(record, cases, style, arguments.budget)
        record.measure(points, measure, cases, style, run=in_this_process)
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text())
        missed.append(print_bars(bars_of(record, arguments.subjects[0])))

    return run_main(command) or missed[0]


if __name__ == "__main__":
    sys.exit(main())
