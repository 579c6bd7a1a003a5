"""Draw on axes that tests then read."""

from evaluation.plots import new_figure


def draw(plot, *arguments):
    """Return the axes on which a function of axes and these arguments has drawn."""
    import matplotlib.pyplot as plt

    figure, axes = new_figure(1, 1, width=4.0, height=3.0)
    plot(axes, *arguments)
    figure.canvas.draw()
    plt.close(figure)
    return axes


def legend_texts(axes) -> list[str]:
    """Return the texts of the axes' legend."""
    return [text.get_text() for text in axes.get_legend().get_texts()]
