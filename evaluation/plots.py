"""Figures for reports: made without a display, and closed when saved."""

import math
from collections.abc import Sequence
from pathlib import Path

from artifacts.files import written_aside

# Okabe and Ito's palette, distinct to every kind of colour vision.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PINK = "#CC79A7"
VERMILION = "#D55E00"
SKY = "#56B4E9"
BLACK = "#000000"
GREY = "#999999"
PALETTE = (BLUE, ORANGE, GREEN, PINK, BLACK, SKY, VERMILION, GREY)
MARKERS = "os^Dv<>PX*p"
FEW_DECADES = 2.5  # of a logarithmic axis; within fewer, 2 and 5 are labelled beside 1 and 10


def new_figure(rows: int, columns: int, width: float, height: float):
    """Return a figure of a size in inches and its axes, an array of them where there are several."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "minigpt"  # the same numbers, the same file
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
    for plot in figure.axes:
        plot.spines[["top", "right"]].set_visible(False)
    return figure, axes


def style_of(number: int) -> dict:
    """Return how the subject of a number is drawn: a colour and a marker, a pair that no other of the first 88 has."""
    return {"marker": MARKERS[number % len(MARKERS)], "color": PALETTE[number % len(PALETTE)], "ms": 4}


def short_size(size: int) -> str:
    """Write a size on an axis: 512, 1k for 1,024, 16k, 1,000."""
    return f"{size // 1024:,}k" if size >= 1024 and size % 1024 == 0 else f"{size:,}"


def label_sizes(plot, sizes: Sequence[int], labels: Sequence[str] | None = None) -> None:
    """Give a plot a logarithmic x-axis with a plain label at each size that was measured, and nowhere else."""
    plot.set_xscale("log", base=2)
    plot.set_xticks(sizes, labels or [short_size(size) for size in sizes])
    plot.set_xticks([], minor=True)


def label_plainly(plot) -> None:
    """Give a plot a logarithmic y-axis labelled 0.5, 1, 2 … or 1, 10, 1,000, without powers; all is drawn already."""
    from matplotlib.ticker import LogLocator, NullFormatter

    plot.set_yscale("log")
    low, high = plot.get_ylim()
    subs = (1, 2, 5) if math.log10(high / low) < FEW_DECADES else (1,)
    plot.yaxis.set_major_locator(LogLocator(subs=subs))
    plot.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.4g}")
    plot.yaxis.set_minor_formatter(NullFormatter())


def legend_beside(figure) -> None:
    """Put one legend of all plots beside them, where it hides no curve; a label that several have is there once."""
    found = [plot.get_legend_handles_labels() for plot in figure.axes]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize="small")


def save_figure(figure, path: Path) -> None:
    """Write a figure in the format that the path's suffix names, and free it."""
    import matplotlib.pyplot as plt

    kind = path.suffix[1:]
    try:
        with written_aside(path) as partial:
            figure.savefig(partial, dpi=120, format=kind, metadata={"Date": None} if kind == "svg" else None)
    finally:
        plt.close(figure)


def label_percent(*axes) -> None:
    """Label axes of shares, as `plot.xaxis`, by percentages as they are written in the text: "2.5 %"."""
    for axis in axes:
        axis.set_major_formatter(lambda share, _: f"{round(100 * share, 1):g} %")


def error_bars(shares: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return how far the intervals of shares reach below and above them, as matplotlib takes error bars."""
    # Not below 0, where rounding has put an end of an interval beyond its share: matplotlib refuses that.
    pairs = list(zip(shares, intervals, strict=True))
    return [
        [max(0.0, share - low) for share, (low, _) in pairs],
        [max(0.0, high - share) for share, (_, high) in pairs],
    ]
