"""Time and memory of every attention variant against context length, beside its peers.

    python -m benchmarks.attention_scaling                              # 512 … 16,384 tokens on two cores, 20 minutes
    python -m benchmarks.attention_scaling --lengths 512 1024 --rounds 1 --output FOLDER
    python -m benchmarks.attention_scaling --subjects window linformer      # or any name of ATTENTION_CLASSES

Every point runs in a fresh process; points are interleaved over rounds; medians and ranges are given. The slope is the
exponent p of value ∝ length^p over the top four octaves, by least squares through the medians in logarithms, with its
95 % confidence interval. With a CUDA device it runs there: bfloat16, 1,024 … 262,144 tokens, FlexAttention compiled.
Writes attention_scaling.DEVICE.{json,md,svg} after each round, and exits with 1 where a bar printed at the end is
missed, or could not be judged although its lengths were asked for.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.attention_subjects import (
    CUDA_VARIANTS,
    EAGER,
    PEERS,
    SDPA,
    SHORTEST,
    VARIANTS,
    Point,
    available_peers,
    is_linear_time,
    measure_point,
)
from benchmarks.measurement import describe_machine, exponent, interleave, name_machine
from evaluation.plots import new_figure, save_figure
from evaluation.tables import markdown_table
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES

QUANTITIES = [  # what, field, heading, unit, units in one SI unit
    ("forward", "seconds", "Forward, one layer", "ms", 1e3),
    ("forward+backward", "seconds", "Forward and backward, one layer", "ms", 1e3),
    ("forward+backward", "bytes", "Peak memory of forward and backward, one layer", "MiB", 2**-20),
    ("training step", "seconds", "Training step, two-layer model", "ms", 1e3),
    ("training step", "bytes", "Peak memory of a training step, two-layer model", "MiB", 2**-20),
    ("decode", "seconds", "Decoding, two-layer model, a token", "ms", 1e3),
    ("decode", "bytes", "Cache, two-layer model", "MiB", 2**-20),
]
WHAT = {"layer": ("forward", "forward+backward"), "step": ("training step",), "decode": ("decode",)}
NOTES = """\
- A range is that of the rounds. Memory is what a point needs over its weights and its input.
- transformers' BigBird and the linformer package are bidirectional: neither can train a causal model. The former
  multiplies its attention out to T × T besides, to return it, and turns into full attention on short texts.
- The buffer of bigbird's cache doubles when full, so it may hold twice what it needs.
"""
OCTAVES = 4
LINEAR_SLOPE, QUADRATIC_SLOPE, SPEEDUP, FLATNESS = 1.10, 1.7, 3.0, 1.3  # the bars


def collect(results: dict[Point, list[dict]]) -> dict:
    """Arrange results as `{(what, field): {subject: {length: [values of all rounds] or the error}}}`."""
    table = defaultdict(lambda: defaultdict(dict))
    for point, rounds in results.items():
        good = [result for result in rounds if "error" not in result]
        for what, field, *_ in QUANTITIES:
            if what not in WHAT[point.measure]:
                continue
            values = [result.get(what, {}).get(field) for result in good]
            if not good:
                table[what, field][point.subject][point.length] = rounds[0]["error"]
            elif None not in values:  # memory that nobody counts
                table[what, field][point.subject][point.length] = values
    return table


def top_slope(values: dict[int, list[float] | str]) -> tuple[float, float, float] | None:
    """Return the exponent over the top octaves with its interval; None unless all of them were measured."""
    lengths = sorted(length for length in values if length * 2**OCTAVES >= max(values))
    if lengths[0] * 2**OCTAVES > lengths[-1] or any(isinstance(values[length], str) for length in lengths):
        return None
    medians = [statistics.median(values[length]) for length in lengths]
    return exponent(lengths, medians) if min(medians) > 0 else None


def slopes(table: dict) -> dict:
    """Return `{(what, field): {subject: (slope, low, high)}}` where there are enough lengths."""
    found = {
        key: {subject: top_slope(values) for subject, values in subjects.items()} for key, subjects in table.items()
    }
    return {key: {name: slope for name, slope in row.items() if slope} for key, row in found.items()}


def cell(rounds: list[float] | str | None, scale: float) -> str:
    """Write a median and its range."""
    if rounds is None or isinstance(rounds, str):
        return "–" if rounds is None else "fails"
    low, middle, high = (f"{scale * value:.3g}" for value in (min(rounds), statistics.median(rounds), max(rounds)))
    return middle if low == high else f"{middle} ({low}–{high})"


def write_tables(table: dict, fits: dict, machine: dict, rounds: int) -> str:
    """Return all quantities as Markdown tables."""
    parts = [
        "# Attention against context length\n",
        f"{name_machine(machine)}, {machine['dtype']}. Medians "
        f"(and ranges) of {rounds} rounds; p is the exponent over the top {OCTAVES} octaves with its 95 % interval.\n",
    ]
    for what, field, heading, unit, scale in QUANTITIES:
        subjects = table.get((what, field))
        if not subjects:
            continue
        lengths = sorted({length for values in subjects.values() for length in values})
        rows = []
        for subject, values in subjects.items():
            slope = fits[what, field].get(subject)
            p = "–" if slope is None else f"{slope[0]:.2f} ({slope[1]:.2f}–{slope[2]:.2f})"
            rows.append([subject, *(cell(values.get(length), scale) for length in lengths), p])
        columns = [f"{unit}, by tokens", *(f"{length:,}" for length in lengths), "p"]
        parts.append(f"## {heading}\n\n{markdown_table(columns, rows)}")
    errors = {
        f"- {subject}, {what}, {length:,} tokens: {values[length]}"
        for (what, _), subjects in table.items()
        for subject, values in subjects.items()
        for length in values
        if isinstance(values[length], str)
    }
    failures = ["## What failed\n\n" + "\n".join(sorted(errors)) + "\n"] if errors else []
    return "\n".join([*parts, "## Notes\n\n" + NOTES, *failures])


def draw(table: dict, path: Path) -> None:
    """Draw the main quantities against length, both axes logarithmic."""
    shown = [quantity for quantity in QUANTITIES if quantity[0] in ("forward+backward", "decode")]
    figure, axes = new_figure(2, 2, width=9.6, height=7.6)
    styles = {}
    for (what, field, heading, unit, scale), plot in zip(shown, axes.flat, strict=True):
        for subject, values in table.get((what, field), {}).items():
            points = [
                (n, scale * statistics.median(v))
                for n, v in sorted(values.items())
                if not isinstance(v, str) and min(v)
            ]
            number = styles.setdefault(subject, len(styles))
            marker, dash = "os^Dv<>pPX"[number % 10], "--" if "leaks" in subject else "-"
            color = f"C{number % 10}"
            plot.plot(*zip(*points, strict=True), marker=marker, linestyle=dash, color=color, label=subject, ms=4)
        plot.set_xscale("log", base=2)
        plot.set_title(heading, fontsize="medium")
        plot.set(xlabel="context, tokens", ylabel=unit, yscale="log")
        plot.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def ratio(table: dict, what: str, one: tuple[str, int], other: tuple[str, int]) -> float | None:
    """Return the median seconds of one subject and length over another's; None unless both were measured."""
    values = [table.get((what, "seconds"), {}).get(subject, {}).get(length) for subject, length in (one, other)]
    if any(not isinstance(rounds, list) for rounds in values):
        return None
    return statistics.median(values[0]) / statistics.median(values[1])


def judge(table: dict, fits: dict, arguments: argparse.Namespace) -> list[dict]:
    """Return each bar that the lengths and measures asked for allow: what, what was found (None: failed), the bar."""
    subjects = {point.subject: None for point in plan(arguments)}
    linear = [subject for subject in subjects if is_linear_time(subject)]
    bars: list[tuple[str, float | None, str, float]] = []
    octaves = max(arguments.lengths) >= min(arguments.lengths) * 2**OCTAVES
    if octaves and "layer" in arguments.measures:
        for field, name in (("seconds", "time"), ("bytes", "peak memory")):
            fitted = fits.get(("forward+backward", field), {})
            steep = [subject for subject in (EAGER, *([SDPA] if field == "seconds" else [])) if subject in subjects]
            for subject in (*steep, *linear):
                sign, bar = (">=", QUADRATIC_SLOPE) if subject in steep else ("<=", LINEAR_SLOPE)
                bars.append((f"{subject}: exponent of {name}", fitted.get(subject, (None,))[0], sign, bar))
    for subject in linear:
        if {1024, 16384} <= set(arguments.lengths) and "decode" in arguments.measures and subject not in CUDA_VARIANTS:
            found = ratio(table, "decode", (subject, 16384), (subject, 1024))
            bars.append((f"{subject}: decoding at 16,384 over 1,024 tokens", found, "<=", FLATNESS))
        if 8192 in arguments.lengths and "layer" in arguments.measures and arguments.device == "cpu":
            found = ratio(table, "forward+backward", (SDPA, 8192), (subject, 8192))
            bars.append((f"{subject}: speed over SDPA's at 8,192 tokens", found, ">=", SPEEDUP))
    return [
        {"what": what, "found": found, "sign": sign, "bar": bar, "holds": holds(found, sign, bar)}
        for what, found, sign, bar in bars
    ]


def holds(found: float | None, sign: str, bar: float) -> bool:
    """Say whether `found` is on the right side of a bar; what could not be measured is not."""
    return found is not None and (found <= bar if sign == "<=" else found >= bar)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device, help=f"default here: {device}")
    parser.add_argument("--lengths", type=int, nargs="+", help="context lengths in tokens")
    known = [*dict.fromkeys((*VARIANTS, *CUDA_VARIANTS, *available_peers(), *ATTENTION_CLASSES))]
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=known,
        metavar="NAME",
        help=f"of {', '.join(known)} (default: those of this file)",
    )
    parser.add_argument("--measures", nargs="+", choices=list(WHAT), default=list(WHAT), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="times each point is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads on a CPU (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/attention_scaling"), help="folder for the results")
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
    }
    return [
        Point(subject, measure, length)
        for measure in arguments.measures
        for subject in subjects[measure]
        for length in arguments.lengths
        if length >= SHORTEST.get(subject, 1)
    ]


def write(results: dict[Point, list[dict]], machine: dict, arguments: argparse.Namespace) -> tuple[str, list[dict]]:
    """Write what was measured so far; return its tables and bars."""
    table = collect(results)
    fits = slopes(table)
    bars = judge(table, fits, arguments)
    record = {
        "machine": machine,
        "points": [{**vars(point), "rounds": rounds} for point, rounds in results.items()],
        "exponents": [
            {"what": what, "field": field, "subject": subject, "slope": slope, "low": low, "high": high}
            for (what, field), row in fits.items()
            for subject, (slope, low, high) in row.items()
        ],
        "bars": bars,
    }
    text = write_tables(table, fits, machine, max(map(len, results.values())))
    path = arguments.output / f"attention_scaling.{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(table, path.with_suffix(".svg"))
    return text, bars


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(torch.device(arguments.device))
    machine["dtype"] = "bfloat16" if arguments.device == "cuda" else "float32"
    text, bars = "", []
    for results in interleave(measure_point, plan(arguments), arguments.rounds, arguments.device, arguments.threads):
        text, bars = write(results, machine, arguments)
    print(text)
    for bar in bars:
        found = "failed" if bar["found"] is None else f"{bar['found']:.2f}"
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['what']}: {found} {bar['sign']} {bar['bar']:g}")
    return int(not all(bar["holds"] for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
