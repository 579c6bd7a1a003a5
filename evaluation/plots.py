"""Figures for reports: made without a display, and closed when saved."""

from pathlib import Path

from artifacts.files import written_aside

# Okabe and Ito's palette, distinct to every kind of colour vision.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PINK = "#CC79A7"


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
