"""Draw the effect of pretraining: accuracy beside baselines and upper bound, and by exposure to the fact."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evaluation.plots import BLUE, GREEN, GREY, ORANGE, error_bars, label_percent, new_figure, save_figure
from evaluation.popularity import wilson_interval

BARS = ("always the top answer", "no pretraining", "pretrained", "upper bound:\nanswer is in a document")
COLORS = (GREY, ORANGE, BLUE, "none")
MODELS = {"pretrained": (BLUE, "o", -0.12), "no_pretraining": (ORANGE, "s", 0.12)}  # colour, marker, place
FACT = "both"  # of the exposures: documents that name the person and an answer


class Comparison(NamedTuple):
    """What is drawn of a relation.

    Attributes:
        name: the relation's; empty where it is the only one.
        accuracies: of `BARS`, None where one was not measured.
        questions: how many were asked.
        exposure: rows of `exposure_rows`; none in results that lack them.
    """

    name: str
    accuracies: Sequence[float | None]
    questions: int
    exposure: Sequence[dict]


def error_bar(share: float, questions: int) -> list[list[float]]:
    """Return the error bar of the 95 % interval of a share of questions."""
    return error_bars([share], [wilson_interval(round(share * questions), questions)])


def plot_accuracies(axes, comparison: Comparison) -> None:
    """Draw a bar for each model and baseline that was measured, with its 95 % interval, from top to bottom."""
    bars = [bar for bar in zip(BARS, COLORS, comparison.accuracies, strict=True) if bar[2] is not None]
    for place, (_, color, share) in enumerate(bars):
        error = error_bar(share, comparison.questions)
        axes.barh(place, share, height=0.6, color=color, edgecolor=GREEN if color == "none" else color, linewidth=1.5)
        axes.errorbar(share, place, xerr=error, color="black", capsize=3, linewidth=1)
        # Beyond the interval, so that neither hides the other.
        axes.text(share + error[1][0] + 0.02, place, f"{100 * share:.1f} %", va="center")
    what = f"{comparison.name}: accuracy" if comparison.name else "Accuracy"
    axes.set(title=f"{what} on {comparison.questions} questions", xlim=(0, 1.2), xticks=[0, 0.25, 0.5, 0.75, 1.0])
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.invert_yaxis()
    label_percent(axes.xaxis)


def plot_exposure(axes, rows: Sequence[dict]) -> None:
    """Draw each model's accuracy, with its 95 % interval, by how many documents have the fact.

    Args:
        rows: those of `exposure_rows` on the fact, not on the person or the answer alone.
    """
    for model, (color, marker, shift) in MODELS.items():
        for place, row in enumerate(rows):
            if model in row:
                axes.errorbar(
                    place + shift, row[model]["accuracy"], error_bar(row[model]["accuracy"], row["questions"]),
                    color=color, marker=marker, capsize=3, linestyle="none",
                    label=model.replace("_", " ") if place == 0 else None,
                )  # fmt: skip
    axes.set_xticks(range(len(rows)), [f"{row['times']}\n(n = {row['questions']})" for row in rows])
    axes.set(
        title="Accuracy by exposure to the fact",
        xlabel="training documents that name both person and answer (n questions)",
        xlim=(-0.6, len(rows) - 0.4), ylim=(-0.03, 1.25), yticks=[0, 0.25, 0.5, 0.75, 1.0],
    )  # fmt: skip
    label_percent(axes.yaxis)
    axes.legend(frameon=False, loc="upper left", ncols=2)


def plot_pretraining(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw a row for each relation: its accuracies, and those by exposure if any relation has them."""
    facts = [[row for row in one.exposure if row["seen"] == FACT] for one in comparisons]
    columns = 2 if any(facts) else 1
    figure, _ = new_figure(len(comparisons), columns, width=5.0 * columns, height=3.2 * len(comparisons))
    plots = iter(figure.axes)
    for comparison, rows in zip(comparisons, facts, strict=True):
        plot_accuracies(next(plots), comparison)
        if columns == 2:
            axes = next(plots)
            if rows:
                plot_exposure(axes, rows)
            else:
                axes.set_axis_off()
    save_figure(figure, path)
