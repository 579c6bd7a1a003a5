"""The report and the figure of `attention_recall`, from its results alone."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev

from artifacts.machine import name_machine
from benchmarks.harness import Results, failures, results_of, section, successes, write_report
from benchmarks.recall_models import UNSCALED
from benchmarks.recall_texts import TASKS
from evaluation.plots import label_sizes, legend_beside, new_figure, save_figure, short_size, style_of
from evaluation.popularity import wilson_interval
from evaluation.tables import percent

Runs = dict[str, list[dict]]  # by subject: what was measured with each seed


def runs_of(results: Results, task: str) -> Runs:
    """Return what was measured on a task, by subject."""
    runs: Runs = {}
    for point, rounds in results.items():
        if point.task == task and (good := successes(rounds)):
            runs.setdefault(point.subject, []).extend(good)
    return runs


def times_of(results: Results) -> dict[str, float]:
    """Return the median time of a forward and backward pass, in ms per token, by subject."""
    return {
        point.subject: median(one["milliseconds"] for one in good)
        for point, rounds in results.items()
        if point.task is None and (good := successes(rounds))
    }


def reads_of(runs: Runs, length: int) -> Runs:
    """Return the scores on contexts of a length, of each seed, by subject and the scaling of its rotation if any."""
    reads: Runs = {}
    for subject, seeds in runs.items():
        for read in (read for run in seeds for read in run["reads"] if read["length"] == length):
            label = subject if read["scaling"] == UNSCALED else f"{subject}, {read['scaling']}"
            reads.setdefault(label, []).append(read)
    return reads


def lengths_of(runs: Runs) -> list[int]:
    """Return the lengths of the contexts read."""
    return sorted({read["length"] for seeds in runs.values() for run in seeds for read in run["reads"]})


def labels_of(subject: str, seeds: list[dict]) -> dict[str, None]:
    """Return what a subject's rows are called, one for each scaling that it was read with."""
    lengths = lengths_of({subject: seeds})
    return dict.fromkeys(label for length in lengths for label in reads_of({subject: seeds}, length))


def cell(parts: Sequence[dict]) -> str:
    """Write the shares of right answers of all seeds: their mean and range, or the one and its Wilson interval."""
    found = [part for part in parts if part["recall"] is not None]
    if not found:
        return "–"
    shares = [part["recall"] for part in found]
    mean = percent(fmean(shares))
    low, high = min(shares), max(shares)
    if len(shares) == 1:
        questions = found[0]["questions"]
        low, high = wilson_interval(round(shares[0] * questions), questions)
    return f"{mean} ({100 * low:.1f}–{100 * high:.1f})"


def distance_section(task: str, runs: Runs, length: int, times: dict[str, float] | None) -> str:
    """Return the table of recall by distance in contexts of a length, with what a subject costs if it is given."""
    reads = reads_of(runs, length)
    if not reads:
        return ""
    first = next(iter(reads.values()))[0]  # all read the same questions
    *near, far = first["by_distance"]
    ranges = [*(f"{part['above']:,}–{part['to']:,}" for part in near), f"over {far['above']:,}"]
    columns = ["recall, by tokens back", *ranges, "any distance"]
    asked = [f"{part['questions']:,}" for part in (*first["by_distance"], first)]
    if times is not None:
        columns += ["loss", "ms per token"]
        asked += ["", ""]
    rows = []
    for label, seeds in reads.items():
        by_range = zip(*(read["by_distance"] for read in seeds), strict=True)
        row = [label, *(cell(parts) for parts in by_range), cell(seeds)]
        if times is not None:
            row.append(f"{fmean(run['loss'] for run in runs[label]):.2f}")
            row.append(f"{times[label]:.3f}" if label in times else "–")
        rows.append(row)
    rows.append(["questions", *asked])
    return section(f"{task}: a context of {length:,} tokens", columns, rows)


def length_section(task: str, runs: Runs) -> str:
    """Return the table of recall at any distance by the length of the context, where several were read."""
    lengths = lengths_of(runs)
    if len(lengths) < 2:
        return ""
    by_length = {length: reads_of(runs, length) for length in lengths}
    labels = [label for subject, seeds in runs.items() for label in labels_of(subject, seeds)]
    rows = [[label, *(cell(by_length[length].get(label, [])) for length in lengths)] for label in labels]
    return section(f"{task}: by the length of the context", ["recall", *(f"{n:,}" for n in lengths)], rows)


def report(content: dict) -> str:
    """Return the results as Markdown."""
    results = results_of(content)
    runs = {task: found for task in TASKS if (found := runs_of(results, task))}
    times = times_of(results)
    seeds = sorted({point.seed for point in results if point.seed is not None})
    tasks = "; ".join(
        f"**{task}**: {TASKS[task].what}, a guess is right for {100 / TASKS[task].choices:.1f} %" for task in runs
    )
    introduction = (
        f"Two layers of width 128, {sum(content['steps'])} steps of {content['tokens']:,} tokens; "
        f"{name_machine(content['machine'])}. Of one seed a share has its 95 % interval; of several it is the mean "
        f"(and range). Seeds: {', '.join(map(str, seeds))}. Tasks: {tasks}. Milliseconds are those of a forward and "
        f"backward pass over {content['length']:,} tokens, medians. `SIZES` of `attention_subjects.py` "
        "gives each variant's segments and blocks."
    )
    sections = []
    for task, found in runs.items():
        for length in lengths_of(found):
            sections.append(distance_section(task, found, length, times if length == content["length"] else None))
        sections.append(length_section(task, found))
    title = f"Recall after training on {content['length']:,} tokens"
    return write_report(title, introduction, *sections, failures(results))


def draw_distances(plot, runs: Runs, length: int) -> None:
    """Draw recall against distance in contexts of a length, ± the deviation of seeds; a scaled rotation is dashed."""
    ends: set[int] = set()
    for number, subject in enumerate(runs):
        for label, seeds in reads_of({subject: runs[subject]}, length).items():
            points = []
            for parts in zip(*(read["by_distance"] for read in seeds), strict=True):
                if shares := [100 * part["recall"] for part in parts if part["recall"] is not None]:
                    points.append((parts[0]["to"], fmean(shares), stdev(shares) if len(shares) > 1 else 0))
            if points:
                at, means, spreads = zip(*points, strict=True)
                dash = "-" if label == subject else "--"
                plot.errorbar(at, means, spreads, linestyle=dash, capsize=2, label=label, **style_of(number))
                ends.update(at)
    # The last range ends some tokens beyond the context, behind the question.
    label_sizes(plot, sorted(ends), [short_size(min(end, length)) for end in sorted(ends)])
    plot.set_title(f"a context of {length:,} tokens", fontsize="medium")
    plot.set(xlabel="tokens back, up to", ylabel="recall, %", ylim=(-3, 103))
    plot.grid(alpha=0.3)


def draw_costs(plot, runs: Runs, length: int, times: dict[str, float]) -> None:
    """Draw recall at any distance, its mean and range over the seeds, against the time of training a token."""
    for number, (subject, seeds) in enumerate(runs.items()):
        shares = [100 * read["recall"] for read in reads_of({subject: seeds}, length)[subject] if read["questions"]]
        if subject in times and shares:
            mean = fmean(shares)
            reach = [[mean - min(shares)], [max(shares) - mean]]
            plot.errorbar(times[subject], mean, reach, label=subject, **style_of(number))
    plot.set_title(f"a context of {length:,} tokens", fontsize="medium")
    plot.set(xlabel="forward + backward, ms per token", ylabel="recall, %", ylim=(-3, 103))
    plot.set_xlim(left=0)
    plot.grid(alpha=0.3)


def draw(content: dict, path: Path) -> None:
    """Draw, for each task, recall against distance, in the longest context too, and against milliseconds per token."""
    results = results_of(content)
    times = times_of(results)
    runs = {task: found for task in TASKS if (found := runs_of(results, task))}
    trained = content["length"]
    lengths = sorted({trained, *(length for found in runs.values() for length in lengths_of(found)[-1:])})
    figure, axes = new_figure(
        len(runs), len(lengths) + 1, width=4.2 * (len(lengths) + 1) + 2.2, height=3.6 * len(runs)
    )
    columns = len(lengths) + 1
    for row, (task, found) in enumerate(runs.items()):
        plots = axes.flat[row * columns : (row + 1) * columns]
        for plot, length in zip(plots, lengths, strict=False):
            draw_distances(plot, found, length)
        draw_costs(plots[-1], found, trained, times)
        plots[0].set_ylabel(f"{task}: recall, %")
    legend_beside(figure)
    save_figure(figure, path)
