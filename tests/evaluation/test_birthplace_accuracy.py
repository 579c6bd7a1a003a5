"""The metric module: exact match after stripping, and the published runs' scores."""

from pathlib import Path

import evaluate
import pytest

from data_scripts.bios_folder import FILES, read_questions

METRIC = Path(__file__).parents[2] / "evaluation" / "birthplace_accuracy"


@pytest.fixture(scope="module")
def metric() -> evaluate.Metric:
    return evaluate.load(str(METRIC))


@pytest.mark.parametrize(
    ("prediction", "place", "correct"),
    [
        pytest.param("London", "London", 1, id="equal"),
        pytest.param(" London\t\n", "London", 1, id="space-around-the-answer"),
        pytest.param("London", "London ", 1, id="space-around-the-place"),
        pytest.param("New York", "New  York", 0, id="space-within"),
        pytest.param("london", "London", 0, id="case"),
        pytest.param("London, England", "London", 0, id="more-than-the-place"),
        pytest.param("Győr", "Gyor", 0, id="accent"),
        pytest.param("", "London", 0, id="no-answer"),
    ],
)
def test_an_answer_counts_when_it_is_the_place(metric, prediction, place, correct):
    scores = metric.compute(predictions=[prediction], references=[place])
    assert scores == {"accuracy": float(correct), "correct": correct, "total": 1}


def test_answers_are_counted_in_their_own_places(metric):
    scores = metric.compute(predictions=["Rome", "Oslo", "Bonn", "Lund"], references=["Oslo", "Rome", "Bonn", "Lund"])
    assert scores == {"accuracy": 0.5, "correct": 2, "total": 4}


def test_unequal_lengths_are_refused(metric):
    with pytest.raises(ValueError, match=r"predictions \(1\) and references \(2\)"):
        metric.compute(predictions=["Rome"], references=["Rome", "Oslo"])


@pytest.mark.parametrize(("run", "correct"), [("nopretrain", 6), ("pretrain", 64)])
def test_the_published_predictions_have_the_published_scores(metric, cs224n, run, correct):
    path = cs224n / f"seed.vanilla.{run}.dev.predictions"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    places = [question.answer for question in read_questions(cs224n / FILES["validation"])]
    scores = metric.compute(predictions=path.read_text(encoding="utf-8").splitlines(), references=places)
    assert scores == {"accuracy": correct / 500, "correct": correct, "total": 500}


def test_any_of_several_accepted_answers_is_right(metric):
    references = [["Munich", "München"], ["Rome"], ["Győr", "Raab"]]
    scores = metric.compute(predictions=["München ", "Paris", None], references=references)
    assert scores == {"accuracy": 1 / 3, "correct": 1, "total": 3}


@pytest.mark.parametrize(
    ("references", "message"),
    [
        pytest.param([["Rome"], []], "reference 1 is an empty list, wanted at least one place", id="empty"),
        pytest.param([["Rome", None], ["Oslo"]], "reference 0 is None, wanted a place", id="none-among-them"),
        pytest.param([], "there are no answers to score", id="no-questions"),
    ],
)
def test_references_that_say_nothing_are_refused(metric, references, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=["Rome"] * len(references), references=references)
