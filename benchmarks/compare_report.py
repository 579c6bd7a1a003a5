"""The table and the page of plots of `compare`, from its results alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev

from artifacts.machine import name_machine
from benchmarks.ablations import gain_over
from benchmarks.attention_scaling import OCTAVES, Table, Values, collect, draw_lengths, exponent
from benchmarks.harness import Results, failed, failures, median_and_range, results_of, write_report
from benchmarks.recall_report import draw_distances
from evaluation.plots import legend_beside, new_figure, save_figure, style_of
from evaluation.tables import markdown_table, mean_and_spread

ACCURACY = "accuracy"
RECALL = "people"  # of the tasks of `attention_recall`
SCALING = [  # row, what, field, units in one SI unit, whether it is divided by the length, what its exponent is of
    ("forward + backward, ms per token", "forward+backward", "seconds", 1e3, True, "time"),
    ("peak memory, MiB per token", "forward+backward", "bytes", 2**-20, True, "peak memory"),
    ("decoding, ms per token", "decode", "seconds", 1e3, False, "decoding time"),
    ("cache, MiB", "decode", "bytes", 2**-20, False, "cache"),
]
SPLITS = {"held_out": "held-out training questions", "dev": "dev questions"}
Seeds = dict[int | None, dict]  # by seed, what was measured, or {"error": …}


def seeds_of(results: Results, variant: str, task: str) -> Seeds:
    """Return what was measured of a variant's trainings for a task, by seed; failures, too."""
    return {
        point.seed: rounds[0]
        for point, rounds in results.items()
        if (point.subject, point.task) == (variant, task) and rounds
    }


def good(seeds: Seeds) -> Seeds:
    """Return the seeds that did not fail."""
    return {seed: found for seed, found in seeds.items() if not failed([found])}


def over_seeds(seeds: Seeds, figure: Callable[[dict], float | None]) -> str:
    """Write the mean of a figure over the seeds ± its standard deviation, and how many seeds failed."""
    values = [value for found in good(seeds).values() if (value := figure(found)) is not None]
    lost = len(seeds) - len(good(seeds))
    if not lost:
        return mean_and_spread(values)
    return "fails" if lost == len(seeds) else f"{mean_and_spread(values)}, {lost} of {len(seeds)} fail"


def training_rows(results: Results, variants: list[str]) -> list[list[str]]:
    """Return the rows on the trained models: accuracy, its gain over the first variant's, size and minutes."""
    trained = {variant: seeds_of(results, variant, ACCURACY) for variant in variants}
    shares = {
        variant: {seed: found["accuracy"] for seed, found in good(seeds).items()} for variant, seeds in trained.items()
    }
    first = variants[0]
    gains = ["–" if variant == first else gain_over(shares[first], shares[variant]) for variant in variants]
    rows = [
        ["accuracy, %", *(over_seeds(seeds, lambda found: 100 * found["accuracy"]) for seeds in trained.values())],
        [f"accuracy gain over {first}, points ± 95 %", *gains],
        [
            "parameters, M",
            *(over_first(seeds, lambda found: f"{found['parameters'] / 1e6:.2f}") for seeds in trained.values()),
        ],
        ["pretraining, minutes", *(over_seeds(seeds, lambda found: found["minutes"]) for seeds in trained.values())],
    ]
    return rows if any(trained.values()) else []


def over_first(seeds: Seeds, write: Callable[[dict], str]) -> str:
    """Write what all seeds have in common, by the first that did not fail; a dash for none."""
    return next((write(found) for found in good(seeds).values()), "–")


def recall_rows(results: Results, variants: list[str]) -> list[list[str]]:
    """Return the rows on recall: for each range of distances, and at any distance."""
    trained = {variant: seeds_of(results, variant, RECALL) for variant in variants}
    if not any(trained.values()):
        return []
    read = next((found["reads"][0] for seeds in trained.values() for found in good(seeds).values()), None)
    ranges = [range_name(part, read) for part in read["by_distance"]] if read else []
    rows = []
    for number, name in enumerate(ranges):
        rows.append([name, *(over_seeds(seeds, partial(percentage, number=number)) for seeds in trained.values())])
    return [*rows, ["recall at any distance, %", *(over_seeds(seeds, percentage) for seeds in trained.values())]]


def range_name(part: dict, read: dict) -> str:
    """Return the row of a range of distances: `recall 65 to 256 tokens back, %`."""
    is_last = part == read["by_distance"][-1] and part["above"] > 0
    where = f"over {part['above']:,}" if is_last else f"{part['above'] + 1:,} to {part['to']:,}"
    return f"recall {where} tokens back, %"


def percentage(found: dict, number: int | None = None) -> float | None:
    """Return the recall of a training, of one range of distances or of all, in %; None where nothing was asked."""
    read = found["reads"][0]
    recall = (read if number is None else read["by_distance"][number])["recall"]
    return None if recall is None else 100 * recall


def write_exponent(values: Values) -> str:
    """Write the exponent over the top octaves with its 95 % interval; a dash for fewer than three lengths."""
    top = [length for length in sorted(values) if length * 2**OCTAVES >= max(values)]
    if len(top) < 3 or not all(values[length] for length in top):
        return "–"
    slope, low, high = exponent(top, [median(values[length]) for length in top])
    return f"{slope:.2f} ({low:.2f} to {high:.2f})"


def scaling_rows(table: Table, variants: list[str]) -> list[list[str]]:
    """Return the rows on time and memory by length, and on their exponents."""
    rows = []
    for label, what, field, scale, is_a_token, of in SCALING:
        subjects = table.get((what, field), {})
        found = {variant: subjects.get(variant, {}) for variant in variants}
        for length in sorted({length for values in found.values() for length in values}):
            unit = scale / length if is_a_token else scale
            cells = [
                "fails" if own.get(length) == [] else median_and_range(own.get(length), unit) for own in found.values()
            ]
            rows.append([f"{label}, {length:,} tokens", *cells])
        if any(found.values()):
            rows.append([f"exponent of {of}", *map(write_exponent, found.values())])
    return rows


def chosen(content: dict) -> Results:
    """Return the results of the variants that the command names: the file may have others."""
    return {point: rounds for point, rounds in results_of(content).items() if point.subject in content["variants"]}


def report(content: dict) -> str:
    """Return the results as Markdown: one table, a column for each variant."""
    results = chosen(content)
    variants = content["variants"]
    rows = [
        *training_rows(results, variants),
        *recall_rows(results, variants),
        *scaling_rows(collect(results), variants),
    ]
    accuracies = [found for variant in variants for found in good(seeds_of(results, variant, ACCURACY)).values()]
    scored = f" on {accuracies[0]['questions']:,} {SPLITS[accuracies[0]['split']]}" if accuracies else ""
    seeds = ", ".join(str(seed) for seed in sorted({point.seed for point in results if point.seed is not None}))
    steps = "" if content["steps"] is None else f", {content['steps']:,} steps of pretraining"
    recall = content["recall"]
    introduction = (
        f"{name_machine(content['machine'])}. Seeds: {seeds or 'none'}; ± is the standard deviation over seeds. A "
        "single seed has none, so small differences may be noise.\n\n"
        f"- Accuracy: `{' '.join([content['recipe'], *content['overrides']])}` on {content['data']['name']}{steps}"
        f"{scored}. The gain is paired by seed.\n"
        f"- Recall: two layers of width 128, trained on {sum(recall['steps'])} steps of {recall['tokens']:,} tokens "
        f"and asked about a context of {recall['length']:,}, as in `attention_recall`.\n"
        "- Time and memory: one layer of width 128; decoding: two layers, as in `attention_scaling`; medians (and "
        "ranges) over the rounds. Exponents describe growth with the length, with 95 % intervals: for the time and "
        "memory of a whole text, 1 is linear and 2 quadratic; for decoding, 0 is constant."
    )
    sizes = sizes_of(results, variants)
    return write_report(
        f"{', '.join(variants)} compared",
        introduction,
        markdown_table(["quantity", *variants], rows),
        sizes,
        failures(results),
    )


def sizes_of(results: Results, variants: list[str]) -> str:
    """Return a line for each variant whose training took sizes from a recipe of its own."""
    lines = []
    for variant in variants:
        found = next(iter(good(seeds_of(results, variant, ACCURACY)).values()), None)
        if found is not None and found["settings"]:
            lines.append(f"- {variant} was trained with `{' '.join(found['settings'])}`")
    return "\n".join(lines)


def draw_accuracy(plot, results: Results, variants: list[str]) -> None:
    """Draw each variant's mean accuracy, with the standard deviation of several seeds."""
    for number, variant in enumerate(variants):
        shares = [100 * found["accuracy"] for found in good(seeds_of(results, variant, ACCURACY)).values()]
        if shares:
            reach = stdev(shares) if len(shares) > 1 else None
            plot.errorbar(number, fmean(shares), reach, linestyle="", capsize=3, label=variant, **style_of(number))
    plot.set_xticks(range(len(variants)), variants, rotation=20 if len(variants) > 3 else 0)
    plot.set_xlim(-0.5, len(variants) - 0.5)
    plot.set_ylim(bottom=0)  # else a difference of chance fills the plot
    plot.set_title("accuracy, mean ± standard deviation over seeds", fontsize="medium")
    plot.set_ylabel("%")
    plot.grid(alpha=0.3)


def draw(content: dict, path: Path) -> None:
    """Draw the page: accuracy, recall by distance, and time, memory, decoding and cache by length."""
    results = chosen(content)
    variants = content["variants"]
    table = collect(results)
    figure, axes = new_figure(2, 3, width=13.8, height=7.4)
    plots = list(axes.flat)
    draw_accuracy(plots[0], results, variants)
    runs = {variant: list(good(seeds_of(results, variant, RECALL)).values()) for variant in variants}
    draw_distances(plots[1], runs, content["recall"]["length"])
    plots[1].set_title(f"recall in a context of {content['recall']['length']:,} tokens", fontsize="medium")
    styles = {variant: number for number, variant in enumerate(variants)}
    for plot, (label, what, field, scale, is_a_token, _) in zip(plots[2:], SCALING, strict=True):
        draw_lengths(plot, table.get((what, field), {}), scale, styles, is_a_token)
        plot.set_title(label, fontsize="medium")
    legend_beside(figure)
    save_figure(figure, path)
