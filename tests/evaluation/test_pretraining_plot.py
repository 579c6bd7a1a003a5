"""The picture of why pretraining matters."""

import pytest

from evaluation.pretraining_plot import Comparison, plot_accuracies, plot_exposure, plot_pretraining
from tests.evaluation.drawing import draw, legend_texts

NOTHING = {"accuracy": 0.0}
ROWS = [
    {"seen": "both", "times": times, "questions": count, "pretrained": {"accuracy": share}, "no_pretraining": NOTHING}
    for times, count, share in (("never", 24, 0.0), ("once", 475, 0.952))
]
PERSON = {"seen": "person", "times": "once", "questions": 499, "pretrained": {"accuracy": 0.9}}
COMPARISON = Comparison("", [0.024, 0.03, 0.904, 0.954], 500, [PERSON, *ROWS])


def test_each_baseline_the_model_and_the_bound_have_a_bar_and_its_share():
    axes = draw(plot_accuracies, COMPARISON)
    assert [bar.get_width() for bar in axes.patches] == [0.024, 0.03, 0.904, 0.954]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [label.split(":")[0] for label in labels] == [
        "always the top answer", "no pretraining", "pretrained", "upper bound",
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["2.4 %", "3.0 %", "90.4 %", "95.4 %"]
    assert axes.get_title() == "Accuracy on 500 questions"


def test_what_was_not_measured_has_no_bar():
    axes = draw(plot_accuracies, COMPARISON._replace(name="studied", accuracies=[0.1, None, 0.5, 0.9]))
    assert len(axes.patches) == 3
    assert "no pretraining" not in [label.get_text() for label in axes.get_yticklabels()]
    assert axes.get_title() == "studied: accuracy on 500 questions"


def test_accuracy_is_drawn_for_each_range_of_exposure_with_its_number_of_questions():
    axes = draw(plot_exposure, ROWS)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["never\n(n = 24)", "once\n(n = 475)"]
    assert legend_texts(axes) == ["pretrained", "no pretraining"]
    shares = [line.get_ydata()[0] for bars in axes.containers for line in bars.lines[:1]]
    assert shares == [0.0, 0.952, 0.0, 0.0]


@pytest.mark.parametrize(
    "comparisons",
    [[COMPARISON], [COMPARISON._replace(exposure=[])], [COMPARISON, COMPARISON._replace(name="studied", exposure=[])]],
    ids=["exposure", "no-exposure", "two-relations"],
)
def test_any_results_have_a_picture(comparisons, tmp_path):
    plot_pretraining(comparisons, tmp_path / "pretraining.png")
    assert (tmp_path / "pretraining.png").read_bytes().startswith(b"\x89PNG")
