"""Time and memory of every attention variant against context length, beside its peers.

    python -m benchmarks.attention_scaling                              # 512 … 16,384 tokens on two cores, 20 minutes
    python -m benchmarks.attention_scaling --lengths 512 1024 --rounds 1 --output scaling.json
    python -m benchmarks.attention_scaling --subjects window linformer      # or any name of ATTENTION_CLASSES
    python -m benchmarks.attention_scaling --measures choice --lengths 16384 32768 65536 131072 262144 --rounds 1

Every point runs in a fresh process; points are interleaved over rounds; medians and ranges are given. The slope is the
exponent p of value ∝ length^p over the top four octaves, by least squares through the medians in logarithms, with its
95 % confidence interval. With a CUDA device it runs there: bfloat16, 1,024 … 262,144 tokens, FlexAttention compiled.
A figure (.svg) is written beside the report. Exits with 1 where a bar printed at the end is missed, or could not be
judged although its lengths were asked for.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.machine import describe_machine, name_machine
from benchmarks.attention_subjects import (
    CUDA_VARIANTS,
    EAGER,
    EXHAUSTIVE,
    PEERS,
    SDPA,
    SHORTEST,
    VARIANTS,
    available_peers,
    chooses_blocks,
    is_linear_time,
    measure_point,
)
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import available_device, default_device, new_parser, positive_int, thread_count
from benchmarks.harness import (
    Point,
    Record,
    Results,
    failures,
    median_and_range,
    results_of,
    section,
    successes,
    write_report,
)
from benchmarks.measurement import exponent
from configuration.errors import run_main, show
from evaluation.plots import label_plainly, label_sizes, legend_beside, new_figure, save_figure, style_of
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES

QUANTITIES = [  # what, field, heading, unit, units in one SI unit
    ("forward", "seconds", "Forward, one layer", "ms", 1e3),
    ("forward+backward", "seconds", "Forward and backward, one layer", "ms", 1e3),
    ("forward+backward", "bytes", "Peak memory of forward and backward, one layer", "MiB", 2**-20),
    ("training step", "seconds", "Training step, two-layer model", "ms", 1e3),
    ("training step", "bytes", "Peak memory of a training step, two-layer model", "MiB", 2**-20),
    ("decode", "seconds", "Decoding, two-layer model, per token", "ms", 1e3),
    ("decode", "bytes", "Cache, two-layer model", "MiB", 2**-20),
    ("choice", "seconds", "Choice of blocks alone, one layer", "ms", 1e3),
    ("choice", "bytes", "Peak memory of the choice of blocks, one layer", "MiB", 2**-20),
]
WHAT = {
    "layer": ("forward", "forward+backward"),
    "step": ("training step",),
    "decode": ("decode",),
    "choice": ("choice",),
}
USUAL = ["layer", "step", "decode"]  # a choice of blocks matters at lengths for which these take long
NOTES = """\
- A range is that of the rounds. Memory is what a point needs over its weights and its input.
- transformers' BigBird and the linformer package are bidirectional: neither can train a causal model. The former
  multiplies its attention out to T × T besides, to return it, and turns into full attention on short texts.
- The buffer of bigbird's cache doubles when full, so it may hold twice what it needs.
"""
OCTAVES = 4
# The bars: exponents of linear and of quadratic time, speed over SDPA, and how flat decoding is.
LINEAR_SLOPE = 1.10
QUADRATIC_SLOPE = 1.7
SPEEDUP = 3.0
FLATNESS = 1.3


Values = dict[int, list[float]]  # of one quantity and subject: by length, the values of all rounds
Table = dict[tuple[str, str], dict[str, Values]]  # by (what, field) and subject; an empty list is a failure


def collect(results: Results) -> Table:
    """Arrange results by quantity, subject and length."""
    table: Table = defaultdict(lambda: defaultdict(dict))
    for point, rounds in results.items():
        good = successes(rounds)
        for what, field, *_ in QUANTITIES:
            if what not in WHAT.get(point.task, ()):  # a comparison measures other things, too
                continue
            values = [result.get(what, {}).get(field) for result in good]
            if None not in values:  # memory is None where nothing counts it
                table[what, field][point.subject][point.size] = values
    return table


def top_slope(values: Values, octaves: int = OCTAVES) -> tuple[float, float, float] | None:
    """Return the exponent over the top octaves with its interval; None unless all of them were measured."""
    lengths = sorted(length for length in values if length * 2**octaves >= max(values))
    if lengths[0] * 2**octaves > lengths[-1] or not all(values[length] for length in lengths):
        return None
    medians = [statistics.median(values[length]) for length in lengths]
    return exponent(lengths, medians) if min(medians) > 0 else None


def slopes(table: Table) -> dict:
    """Return `{(what, field): {subject: (slope, low, high)}}` where there are enough lengths."""
    found = {
        key: {subject: top_slope(values) for subject, values in subjects.items()} for key, subjects in table.items()
    }
    return {key: {name: slope for name, slope in row.items() if slope} for key, row in found.items()}


def report(content: dict) -> str:
    """Return all quantities as Markdown tables."""
    results = results_of(content)
    table = collect(results)
    fits = slopes(table)
    sections = []
    for what, field, heading, unit, scale in QUANTITIES:
        subjects = table.get((what, field), {})
        lengths = sorted({length for values in subjects.values() for length in values})
        rows = []
        for subject, values in subjects.items():
            slope = fits[what, field].get(subject)
            p = "–" if slope is None else f"{slope[0]:.2f} ({slope[1]:.2f}–{slope[2]:.2f})"
            cells = ["fails" if values.get(n) == [] else median_and_range(values.get(n), scale) for n in lengths]
            rows.append([subject, *cells, p])
        sections.append(section(heading, [f"{unit}, by tokens", *(f"{length:,}" for length in lengths), "p"], rows))
    machine = content["machine"]
    rounds = max(map(len, results.values()), default=0)
    introduction = (
        f"{name_machine(machine)}, {machine['dtype']}. Medians (and ranges) of {rounds} rounds; p is the exponent "
        f"over the top {OCTAVES} octaves with its 95 % interval."
    )
    notes = f"## Notes\n\n{NOTES}"
    return write_report("Attention against context length", introduction, *sections, notes, failures(results))


def draw_lengths(
    plot, subjects: dict[str, Values], scale: float, styles: dict[str, int], a_token: bool = False
) -> None:
    """Draw medians and ranges of a quantity against length, both axes logarithmic.

    Args:
        plot: to draw on.
        subjects: the quantity's values.
        scale: what they are multiplied by.
        styles: the number of each subject's style; subjects that are new get the next ones.
        a_token: whether to divide by the length.
    """
    lengths: set[int] = set()
    for subject, values in subjects.items():
        rows = []
        for length, found in sorted(values.items()):
            if found and min(found) > 0:  # a reading of nothing has no logarithm
                unit = scale / length if a_token else scale
                middle = unit * statistics.median(found)
                rows.append((length, middle, middle - unit * min(found), unit * max(found) - middle))
        if rows:
            at, middles, *reach = zip(*rows, strict=True)
            dash = "--" if "leaks" in subject else "-"
            style = style_of(styles.setdefault(subject, len(styles)))
            plot.errorbar(at, middles, reach, linestyle=dash, elinewidth=1, capsize=2, label=subject, **style)
            lengths.update(at)
    if lengths:
        label_sizes(plot, sorted(lengths))
        label_plainly(plot)
    plot.set_xlabel("context, tokens")
    plot.grid(alpha=0.3)


def draw(content: dict, path: Path) -> None:
    """Draw the main quantities against length; nothing where none was measured."""
    table = collect(results_of(content))
    shown = [quantity for quantity in QUANTITIES if quantity[0] in ("forward+backward", "decode")]
    if not any(table.get(quantity[:2]) for quantity in shown):  # of the choice of blocks alone
        return
    figure, axes = new_figure(2, 2, width=11.4, height=7.6)
    styles: dict[str, int] = {}
    for (what, field, heading, unit, scale), plot in zip(shown, axes.flat, strict=True):
        draw_lengths(plot, table.get((what, field), {}), scale, styles)
        plot.set_title(heading, fontsize="medium")
        plot.set_ylabel(unit)
    legend_beside(figure)
    save_figure(figure, path)


def ratio(table: Table, what: str, one: tuple[str, int], other: tuple[str, int]) -> float | None:
    """Return the median seconds of one subject and length over another's; None unless both were measured."""
    values = [table.get((what, "seconds"), {}).get(subject, {}).get(length) for subject, length in (one, other)]
    if not all(values):
        return None
    return statistics.median(values[0]) / statistics.median(values[1])


def judge(table: Table, arguments: argparse.Namespace) -> list[Bar]:
    """Return each bar that the lengths and measures asked for allow."""
    fits = slopes(table)
    subjects = {point.subject: None for point in plan(arguments)}
    linear = [subject for subject in subjects if is_linear_time(subject)]
    bars = []
    octaves = max(arguments.lengths) >= min(arguments.lengths) * 2**OCTAVES
    if octaves and "layer" in arguments.measures:
        for field, name in (("seconds", "time"), ("bytes", "peak memory")):
            fitted = fits.get(("forward+backward", field), {})
            steep = [subject for subject in (EAGER, *([SDPA] if field == "seconds" else [])) if subject in subjects]
            for subject in (*steep, *linear):
                sign, bar = (">=", QUADRATIC_SLOPE) if subject in steep else ("<=", LINEAR_SLOPE)
                bars.append(Bar(f"{subject}: exponent of {name}", fitted.get(subject, (None,))[0], sign, bar))
    for subject in linear:
        if {1024, 16384} <= set(arguments.lengths) and "decode" in arguments.measures and subject not in CUDA_VARIANTS:
            found = ratio(table, "decode", (subject, 16384), (subject, 1024))
            bars.append(Bar(f"{subject}: decoding at 16,384 over 1,024 tokens", found, "<=", FLATNESS))
        if 8192 in arguments.lengths and "layer" in arguments.measures and arguments.device == "cpu":
            found = ratio(table, "forward+backward", (SDPA, 8192), (subject, 8192))
            bars.append(Bar(f"{subject}: speed over SDPA's at 8,192 tokens", found, ">=", SPEEDUP))
    return bars


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    device = default_device()
    parser = new_parser(__doc__, f"runs/attention_scaling.{device}.json")
    parser.add_argument(
        "--device", type=available_device, choices=["cpu", "cuda"], default=device, help=f"default here: {device}"
    )
    parser.add_argument("--lengths", type=positive_int, nargs="+", help="context lengths in tokens")
    known = [*dict.fromkeys((*VARIANTS, *CUDA_VARIANTS, EXHAUSTIVE, *available_peers(), *ATTENTION_CLASSES))]
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=known,
        metavar="NAME",
        help=f"of {', '.join(known)} (default: those of this file)",
    )
    parser.add_argument("--measures", nargs="+", choices=list(WHAT), default=USUAL, help="default: all but choice")
    parser.add_argument(
        "--rounds", type=positive_int, default=5, help="times each point is measured (default: %(default)s)"
    )
    parser.add_argument("--threads", type=thread_count, default=2, help="threads on a CPU (default: %(default)s)")
    arguments = parser.parse_args(argv)
    top = 262_144 if arguments.device == "cuda" else 16_384
    arguments.lengths = arguments.lengths or [n for n in (2**e for e in range(9, 19)) if top // 256 <= n <= top]
    return arguments


def plan(arguments: argparse.Namespace) -> list[Point]:
    """Return all points to measure: layers of everything, models of our variants with their usual kernels."""
    compiled = list(CUDA_VARIANTS) if arguments.device == "cuda" else []
    chosen = arguments.subjects or [*VARIANTS, *compiled, *available_peers()]
    models = [name for name in chosen if name != EAGER and name not in PEERS]
    subjects = {
        "layer": chosen,
        "step": models,
        "decode": [name for name in models if name not in CUDA_VARIANTS],
        "choice": [name for name in arguments.subjects or (*models, EXHAUSTIVE) if chooses_blocks(name)],
    }
    return [
        Point(subject, measure, length)
        for measure in arguments.measures
        for subject in subjects[measure]
        for length in arguments.lengths
        if length >= SHORTEST.get(subject, 1)
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure every point; return the exit status, 1 where a bar is missed."""
    arguments = parse_arguments(argv)

    def command() -> int:
        torch.set_num_threads(arguments.threads)
        machine = describe_machine(torch.device(arguments.device))
        machine["dtype"] = "bfloat16" if arguments.device == "cuda" else "float32"
        record = Record(arguments.output, report, {"machine": machine})
        where = (arguments.device, arguments.threads)
        record.measure(plan(arguments), measure_point, *where, rounds=arguments.rounds)
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text())
        return print_bars(judge(collect(record.results), arguments))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
