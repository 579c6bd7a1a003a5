"""The report and the figure of `capacity`, from its results alone."""

from pathlib import Path
from statistics import fmean

from artifacts.machine import name_machine
from benchmarks.harness import failures, results_of, section, successes, write_report
from evaluation.plots import label_sizes, legend_beside, new_figure, save_figure, style_of
from evaluation.tables import percent

Key = tuple  # what seeds of one point have in common
PAPER = {100: 1.0, 1000: 2.0}  # bits per parameter after as many exposures, as the paper finds


def group_runs(content: dict, *fields: str, extraction: bool = False) -> dict[Key, list[dict]]:
    """Return the runs that have the same values of some fields, by these, in their order.

    Those with questions, or those without.
    """
    groups: dict[Key, list[dict]] = {}
    order: dict[str, int] = {}  # variants stay in the order in which they were measured, numbers do not
    for rounds in results_of(content).values():
        for run in successes(rounds):
            if (run["questions"] is not None) == extraction:
                groups.setdefault(tuple(run[field] for field in fields), []).append(run)
                order.setdefault(run["attention"], len(order))
    return dict(sorted(groups.items(), key=lambda group: [order.get(value, value) for value in group[0]]))


def bits_per_parameter(run: dict, fact: str = "all", parameters: str = "parameters") -> float:
    """Return the bits of a fact that a run has stored per parameter."""
    return run["bits"][fact]["learned"] / run[parameters]


def mean_and_range(values: list[float]) -> str:
    """Write the mean with two digits behind the point, and the range of several."""
    mean = f"{fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f}–{max(values):.2f})"


def capacity_section(content: dict) -> str:
    """Return the table of bits per parameter of each variant, size and number of exposures."""
    columns = [
        "attention, size", "parameters", "non-embedding", "people", "exposures", "bits offered per parameter",
        "stored per parameter", "of these, values", "stored per non-embedding parameter", "minutes",
    ]  # fmt: skip
    rows = []
    for (attention, width, layers, people, exposures), runs in group_runs(
        content, "attention", "width", "layers", "people", "exposures"
    ).items():
        run = runs[0]
        rows.append(
            [
                f"{attention}, {width}x{layers}",
                f"{run['parameters']:,}",
                f"{run['parameters_without_embeddings']:,}",
                f"{people:,}",
                f"{exposures:,}",
                f"{run['bits']['all']['offered'] / run['parameters']:.2f}",
                mean_and_range([bits_per_parameter(run) for run in runs]),
                mean_and_range([bits_per_parameter(run, "values") for run in runs]),
                mean_and_range([bits_per_parameter(run, "all", "parameters_without_embeddings") for run in runs]),
                f"{fmean(run['minutes'] for run in runs):.1f}",
            ]
        )
    return section("Bits stored", columns, rows)


def relation_section(content: dict) -> str:
    """Return the table of the share of each fact's bits that is stored."""
    groups = group_runs(content, "attention", "width", "layers", "people", "exposures")
    if not groups:
        return ""
    # Names have fewer bits each where they are of more people: together they are a set.
    facts = [fact for fact in next(iter(groups.values()))[0]["bits"] if fact not in ("name", "values", "all")]
    rows = []
    for (attention, width, layers, people, exposures), runs in groups.items():
        shares = [fmean(run["bits"][fact]["learned"] / run["bits"][fact]["offered"] for run in runs) for fact in facts]
        rows.append([f"{attention}, {width}x{layers}, {people:,} people, {exposures:,} times", *map(percent, shares)])
    offered = next(iter(groups.values()))[0]
    bits = [f"{offered['bits'][fact]['offered'] / offered['people']:.1f}" for fact in facts]
    return section("Share of each fact's bits that is stored", ["model", *facts], [*rows, ["bits per person", *bits]])


def extraction_section(content: dict) -> str:
    """Return the table of what is stored beside what is answered."""
    columns = [
        "wordings, questions", "people", "exposures", "bits of values stored",
        "correct answers about people with training questions", "about the other people",
    ]  # fmt: skip
    rows = []
    for (wordings, questions, people, exposures), runs in group_runs(
        content, "wordings", "questions", "people", "exposures", extraction=True
    ).items():
        stored = fmean(run["bits"]["values"]["learned"] / run["bits"]["values"]["offered"] for run in runs)
        right = [
            fmean(share for run in runs for share in run["accuracy"][half].values()) for half in ("trained", "others")
        ]
        label = f"{wordings}, {'mixed in' if questions == 'mixed' else 'after the biographies'}"
        rows.append([label, f"{people:,}", f"{exposures:,}", *map(percent, (stored, *right))])
    return section("Storage and extraction", columns, rows)


def report(content: dict) -> str:
    """Return the results as Markdown."""
    seeds = sorted({point.seed for point in results_of(content) if point.seed is not None})
    introduction = (
        f"Plain biographies, {content['batch']} per step; the vocabulary has {content['vocabulary']:,} words, a token "
        f"each. {name_machine(content['machine'])}. Seeds: {', '.join(map(str, seeds)) or 'none'}; of several, the "
        "mean (and range). A value drawn from n has log2 n bits, of which the model lacks the -log2 of the probability"
        " that it assigns to the value's tokens; names are counted as drawn from "
        f"{content['names']:,} (Allen-Zhu and Li 2024, arXiv 2404.05405, section 3). The employer's city is counted "
        f"with the employer{', which is always named first' if content['employer_first'] else ''}. An answer is right "
        "if it is the whole value."
    )
    sections = (capacity_section(content), relation_section(content), extraction_section(content))
    return write_report("How much a model can know", introduction, *sections, failures(results_of(content)))


def draw(content: dict, path: Path) -> None:
    """Draw bits per parameter against exposures: a line for each variant and size, bars over the range of seeds.

    Of several numbers of people, the one of which most is stored.
    """
    figure, plot = new_figure(1, 1, width=7.5, height=4.5)
    lines: dict[str, dict[int, list[float]]] = {}  # the bits of all seeds, by label and exposures
    for (attention, width, layers, _, exposures), runs in group_runs(
        content, "attention", "width", "layers", "people", "exposures"
    ).items():
        stored = [bits_per_parameter(run) for run in runs]
        line = lines.setdefault(f"{attention}, {width}x{layers}", {})
        if fmean(stored) >= fmean(line.get(exposures, stored)):
            line[exposures] = stored  # of several numbers of people, that of which it stores most
    for number, (label, line) in enumerate(lines.items()):
        points = sorted(line.items())
        means = [fmean(stored) for _, stored in points]
        reach = [
            [mean - min(stored) for mean, (_, stored) in zip(means, points, strict=True)],
            [max(stored) - mean for mean, (_, stored) in zip(means, points, strict=True)],
        ]
        plot.errorbar([exposures for exposures, _ in points], means, reach, label=label, capsize=2, **style_of(number))
    plot.plot(*zip(*PAPER.items(), strict=True), "kx", label="Allen-Zhu and Li 2024")
    plot.axhline(0, color="0.6", linewidth=0.8)  # below it a model is surer of wrong values than one that only guesses
    sizes = sorted({exposures for line in lines.values() for exposures in line} | set(PAPER))
    label_sizes(plot, sizes, [f"{size:,}" for size in sizes])
    plot.set(xlabel="exposures of each person", ylabel="bits stored per parameter")
    plot.grid(alpha=0.3)
    legend_beside(figure)
    save_figure(figure, path)
