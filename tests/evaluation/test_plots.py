"""Figures are read without a calculator: plain labels at what was measured, and no legend on a curve."""

import json
import re

import numpy as np
import pytest

from attention_lab import figures, found
from benchmarks.attention_scaling import draw
from evaluation import plots
from evaluation.plots import MARKERS, PALETTE, label_plainly, label_sizes, new_figure, short_size, style_of
from tests.running import ROOT

LAB = ROOT / "attention_lab"
TEXT = re.compile(r"<!-- (.*?) -->")  # matplotlib writes each text of a figure as a comment beside its paths


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512"), (1000, "1,000"), (1024, "1k"), (16384, "16k"), (10**6, "1,000,000")]
)
def test_sizes_are_short(size, text):
    assert short_size(size) == text


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.03, 0.9), {"0.05", "0.1", "0.2", "0.5"}),
        ((1, 20_000), {"1", "10", "100", "1,000", "10,000"}),
        ((1.75, 3.95), {"2", "2.5", "3", "3.5"}),
    ],
    ids=["two decades", "many decades", "within a decade"],
)
def test_logarithmic_axes_have_plain_labels(values, labels):
    figure, axes = new_figure(1, 1, width=4, height=3)
    axes.plot([512, 16384], values)
    label_sizes(axes, [512, 1024, 16384])
    label_plainly(axes)
    figure.canvas.draw()
    low, high = axes.get_ylim()
    shown = {label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high}
    assert labels <= shown
    assert not any("10^" in text for text in shown)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["512", "1k", "16k"]
    assert list(axes.get_xticks(minor=True)) == []


def test_no_two_subjects_look_alike():
    count = len(PALETTE) * len(MARKERS)
    assert len({tuple(sorted(style_of(number).items())) for number in range(count)}) == count


def test_the_scaling_figure_shows_measured_ranges_and_lengths(tmp_path, monkeypatch):
    rounds = [{"forward+backward": {"seconds": seconds, "bytes": 2**20}} for seconds in (0.001, 0.002, 0.007)]
    points = [{"subject": "window", "task": "layer", "size": size, "rounds": rounds} for size in (512, 1024, 16384)]
    drawn = []
    monkeypatch.setattr("benchmarks.attention_scaling.save_figure", lambda figure, path: drawn.append(figure))
    draw({"points": points}, tmp_path / "x.svg")
    time = drawn[0].axes[0]
    assert [label.get_text() for label in time.get_xticklabels()] == ["512", "1k", "16k"]
    (ranges,) = [line.get_segments() for bar in time.containers for line in bar.lines[2]]
    assert [segment.tolist() for segment in ranges] == [[[n, 1.0], [n, 7.0]] for n in (512, 1024, 16384)]
    plots.save_figure(drawn[0], tmp_path / "x.svg")
    assert set(TEXT.findall((tmp_path / "x.svg").read_text(encoding="utf-8"))) >= {"512", "1k", "16k", "2", "5"}


@pytest.mark.parametrize("path", sorted((LAB / "figures").glob("*.svg")), ids=lambda path: path.stem)
def test_subscripts_of_the_laboratory_are_mathematics(path):
    texts = TEXT.findall(path.read_text(encoding="utf-8"))
    assert texts
    outside = [re.sub(r"\$.*?\$", "", text) for text in texts]
    assert not [text for text in outside if re.search(r"\b\w_\w", text)]


def covered(figure):
    """Return the labels of lines below a legend of their plot, and the titles of plots below one of the figure."""
    figure.canvas.draw()
    hidden = []
    of_figure = [legend.get_window_extent() for legend in figure.legends]
    for plot in figure.axes:
        hidden += [plot.get_title() for box in of_figure if box.overlaps(plot.get_window_extent())]
        box = plot.get_legend() and plot.get_legend().get_window_extent()
        for line in plot.lines if box else ():
            points = line.get_transform().transform(line.get_xydata())
            steps = np.linspace(points[:-1], points[1:], 20).reshape(-1, 2) if len(points) > 1 else points
            inside = ((steps > box.min) & (steps < box.max)).all(axis=1)
            hidden += [line.get_label()] if inside.any() else []
    return hidden


@pytest.mark.parametrize("name", ["averaging", "copying", "performer", "two_heads"])
def test_no_legend_of_the_laboratory_is_on_a_curve(name, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: seen.append(covered(figure)))
    figures.FIGURES[name](tmp_path / "x.svg")
    assert seen == [[]]


def test_no_legend_of_what_was_found_is_on_a_curve(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(found, "save_figure", lambda figure, path: seen.append(covered(figure)))
    found.draw(json.loads((LAB / "results" / "recall.json").read_text()), tmp_path / "x.svg")
    assert seen == [[]]
