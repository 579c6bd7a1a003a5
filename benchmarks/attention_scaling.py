"""Time and memory of every attention variant against context length, beside its peers.

    python -m benchmarks.attention_scaling                              # 512 … 16,384 tokens on two cores, 20 minutes
    python -m benchmarks.attention_scaling --lengths 512 1024 --rounds 1 --output /tmp/scaling

Every point runs in a fresh process; points are interleaved over rounds; medians and ranges are given. The slope is the
exponent p of value ∝ length^p over the top four octaves, by least squares in logarithms over all rounds, with its 95 %
confidence interval. With a CUDA device it runs there: bfloat16, 1,024 … 262,144 tokens, FlexAttention compiled.
Writes attention_scaling.{json,md,svg}, and exits with 1 where one of the bars printed at the end is missed.
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
    LINEAR,
    SDPA,
    VARIANTS,
    Point,
    available_peers,
    measure_point,
)
from benchmarks.measurement import describe_machine, exponent, interleave
from evaluation.report import markdown_table

QUANTITIES = [  # what, field, heading, unit, units in one SI unit
    ("forward", "seconds", "Forward, one layer", "ms", 1e3),
    ("forward+backward", "seconds", "Forward and backward, one layer", "ms", 1e3),
    ("forward+backward", "bytes", "Peak memory of forward and backward, one layer", "MiB", 2**-20),
    ("training step", "seconds", "Training step, two-layer model", "ms", 1e3),
    ("training step", "bytes", "Peak memory of a training step, two-layer model", "MiB", 2**-20),
    ("decode", "seconds", "Decoding, two-layer model, a token", "ms", 1e3),
    ("decode", "bytes", "Cache, two-layer model", "MiB", 2**-20),
]
OCTAVES = 4
LINEAR_SLOPE, QUADRATIC_SLOPE, SPEEDUP, FLATNESS = 1.10, 1.7, 3.0, 1.3  # the bars


def collect(results: dict[Point, list[dict]]) -> dict:
    """Arrange results as `{(what, field): {subject: {length: [values of all rounds] or the error}}}`."""
    table = defaultdict(lambda: defaultdict(dict))
    for point, rounds in results.items():
        error = next((result["error"] for result in rounds if "error" in result), None)
        for what, field, *_ in QUANTITIES:
            if error is not None and what in measured_by(point):
                table[what, field][point.subject][point.length] = error
            elif what in rounds[0]:
                values = [result[what][field] for result in rounds]
                if None not in values:
                    table[what, field][point.subject][point.length] = values
    return table


def measured_by(point: Point) -> tuple[str, ...]:
    """Return what a point's measure yields."""
    return {"layer": ("forward", "forward+backward"), "step": ("training step",), "decode": ("decode",)}[point.measure]


def top_slope(values: dict[int, list[float]]) -> tuple[float, float, float] | None:
    """Return the exponent over the top octaves with its interval; None unless all of them were measured."""
    measured = {length: rounds for length, rounds in values.items() if not isinstance(rounds, str)}
    longest = max(values)
    lengths = sorted(length for length in measured if length * 2**OCTAVES >= longest)
    if lengths[-1:] != [longest] or lengths[0] * 2**OCTAVES > longest or min(map(min, measured.values())) <= 0:
        return None
    return exponent(lengths, [measured[length] for length in lengths])


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
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {machine['dtype']}. Medians "
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
        f"- {subject} at {length:,}: {rounds}"
        for subjects in table.values()
        for subject, values in subjects.items()
        for length, rounds in values.items()
        if isinstance(rounds, str)
    }
    if errors:
        parts.append("What failed, and why:\n\n" + "\n".join(sorted(errors)) + "\n")
    return "\n".join(parts)


def draw(table: dict, path: Path) -> None:
    """Draw the main quantities against length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "minigpt"  # the same numbers, the same file
    shown = [quantity for quantity in QUANTITIES if quantity[0] in ("forward+backward", "decode")]
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.6), layout="constrained")
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
            color = plt.get_cmap("tab10")(number % 10)
            plot.plot(*zip(*points, strict=True), marker=marker, linestyle=dash, color=color, label=subject, ms=4)
        plot.set_xscale("log", base=2)
        plot.set(title=heading, xlabel="context, tokens", ylabel=unit, yscale="log")
        plot.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def judge(table: dict, fits: dict, device: str) -> list[tuple[str, float, float, bool]]:
    """Return each bar as (what, found, bar, whether it holds), as far as the lengths measured allow."""
    bars = []
    for field, name in (("seconds", "time"), ("bytes", "peak memory")):
        for subject, (slope, *_) in fits.get(("forward+backward", field), {}).items():
            if subject in LINEAR:
                bars.append((f"{subject}: exponent of {name} at most", slope, LINEAR_SLOPE, slope <= LINEAR_SLOPE))
            elif subject == EAGER or (subject == SDPA and field == "seconds"):
                enough = slope >= QUADRATIC_SLOPE
                bars.append((f"{subject}: exponent of {name} at least", slope, QUADRATIC_SLOPE, enough))
    for subject in LINEAR:
        decoding = table.get(("decode", "seconds"), {}).get(subject, {})
        if isinstance(decoding.get(1024), list) and isinstance(decoding.get(16384), list):
            ratio = statistics.median(decoding[16384]) / statistics.median(decoding[1024])
            bars.append((f"{subject}: decoding at 16,384 over 1,024 at most", ratio, FLATNESS, ratio <= FLATNESS))
        training = table.get(("forward+backward", "seconds"), {})
        rival, own = training.get(SDPA, {}).get(8192), training.get(subject, {}).get(8192)
        if device == "cpu" and isinstance(rival, list) and isinstance(own, list):
            ratio = statistics.median(rival) / statistics.median(own)
            bars.append((f"{subject}: times SDPA's speed at 8,192 at least", ratio, SPEEDUP, ratio >= SPEEDUP))
    return bars


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device, help=f"default here: {device}")
    parser.add_argument("--lengths", type=int, nargs="+", help="context lengths in tokens")
    parser.add_argument("--measures", nargs="+", default=["layer", "step", "decode"], help="of: layer step decode")
    parser.add_argument("--rounds", type=int, default=5, help="times each point is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads on a CPU (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/attention_scaling"), help="folder for the results")
    arguments = parser.parse_args(argv)
    top = 262_144 if arguments.device == "cuda" else 16_384
    arguments.lengths = arguments.lengths or [n for n in (2**e for e in range(9, 19)) if top // 256 <= n <= top]
    return arguments


def plan(arguments: argparse.Namespace) -> list[Point]:
    """Return all points to measure: layers of everything, models of our variants with their usual kernels."""
    models = [*(name for name in VARIANTS if name != EAGER), *(CUDA_VARIANTS if arguments.device == "cuda" else ())]
    return [
        Point(subject, measure, length)
        for measure in arguments.measures
        for subject in ((EAGER, *models, *available_peers()) if measure == "layer" else models)
        for length in arguments.lengths
    ]


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(torch.device(arguments.device))
    machine["dtype"] = "bfloat16" if arguments.device == "cuda" else "float32"
    results = interleave(measure_point, plan(arguments), arguments.rounds, arguments.device, arguments.threads)
    table = collect(results)
    fits = slopes(table)
    bars = judge(table, fits, arguments.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine,
        "points": [{**vars(point), "rounds": rounds} for point, rounds in results.items()],
        "exponents": [
            {"what": what, "field": field, "subject": subject, "slope": slope, "low": low, "high": high}
            for (what, field), row in fits.items()
            for subject, (slope, low, high) in row.items()
        ],
        "bars": [{"what": what, "found": found, "bar": bar, "holds": holds} for what, found, bar, holds in bars],
    }
    (arguments.output / "attention_scaling.json").write_text(json.dumps(record, indent=1) + "\n")
    text = write_tables(table, fits, machine, arguments.rounds)
    (arguments.output / "attention_scaling.md").write_text(text, encoding="utf-8")
    draw(table, arguments.output / "attention_scaling.svg")
    print(text)
    for what, found, bar, holds in bars:
        print(f"{'holds ' if holds else 'MISSED'} {what} {bar:g}: {found:.2f}")
    return int(not all(holds for *_, holds in bars))


if __name__ == "__main__":
    sys.exit(main())
