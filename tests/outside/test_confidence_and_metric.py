"""What is said of answers: a calibration of a model that knows everybody, its file's bounds, and the metric."""

import json
import re

import evaluate
import numpy as np
import pytest
import torch

from data_scripts.questions import question_about
from evaluation import calibration
from evaluation.calibration import CalibrationError, calibrate, fit_platt
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_file_minigpt import confidences_to_json, read_confidence
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.facts_minigpt import RelationFacts
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from modeling_minigpt.names_minigpt import NameIndex
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.running import ROOT


class Rememberer:
    """A pipeline that answers everybody with "Rome"; the name says about which people it is right."""

    model = tokenizer = None
    names = NameIndex("")

    def find_facts(self, relation):
        return RelationFacts(BIRTHPLACE, [])

    def preprocess(self, names, relation):
        return {"reasons": [None for _ in names]}

    def rank(self, names, relation):
        return [[Answer("Rome", 0.5)] for _ in names]


@pytest.fixture
def calibrated(monkeypatch):
    """Return a function that calibrates on numbers of right and wrong answers; strangers are less certain."""

    def find(model, tokenizer, names, ranked, relation):
        found = np.random.default_rng(len(names)).normal(size=(len(names), len(FEATURE_NAMES)))
        found[:, FEATURE_NAMES.index("title: mean")] += [4.0 * ("Stranger" not in name) for name in names]
        found[:, FEATURE_NAMES.index("born in: answer")] += [2.0 * name.startswith("Right") for name in names]
        return torch.tensor(found)

    monkeypatch.setattr(calibration, "confidence_features", find)

    def run(right: int, wrong: int) -> Confidence:
        people = [question_about(f"Right {index}", "Rome") for index in range(right)]
        people += [question_about(f"Wrong {index}", "Oslo") for index in range(wrong)]
        return calibrate(Rememberer(), people, [f"Stranger {index}" for index in range(400)])

    return run


@pytest.mark.row("T19")
@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_a_model_right_on_nearly_everybody_is_certified_and_answers_nearly_everybody(calibrated, wrong):
    confidence = calibrated(400 - wrong, wrong)
    certificate = confidence.certificate
    assert confidence.refusal is None
    assert certificate.people == 200
    assert certificate.answered >= 190
    assert certificate.wrong <= wrong
    assert certificate.strangers_answered <= 5
    # In the certificate are all that the model knows, so it is at least as good as of one that is wrong more often.
    assert certificate.answered > calibrated(300, 100).certificate.answered


@pytest.mark.row("T19")
def test_the_scores_of_a_model_right_on_everybody_are_high_for_people_and_low_for_strangers(calibrated):
    confidence = calibrated(400, 0)
    known, correct, _ = np.transpose(confidence.certification.known)
    assert 0.97 < np.mean(correct) < 1.0  # no certainty after 400 people
    assert np.mean(known) > 0.9
    assert np.mean([chance for chance, _ in confidence.certification.strangers]) < 0.1
    assert confidence.threshold_for(risk=0.02).answered >= 190  # the best that 200 people can show


@pytest.mark.row("T19")
@pytest.mark.parametrize("right", [0, 1])
def test_a_model_wrong_on_everybody_is_refused_with_the_counts(calibrated, right):
    with pytest.raises(CalibrationError, match=r"too few right answers to calibrate on: [01] right answers, 200 str"):
        calibrated(right, 400 - right)


@pytest.mark.row("T19")
def test_a_few_wrong_answers_that_were_sure_do_not_undo_the_calibration():
    scores = np.linspace(-2.0, 2.0, 100)
    right = np.ones(100, dtype=bool)
    right[-2:] = False  # the two surest ones, by chance
    slope, shift = fit_platt(scores, right)
    assert slope > 0.0
    assert np.mean(1 / (1 + np.exp(-(slope * scores + shift)))) == pytest.approx(0.98, abs=0.02)


def contents(**changes) -> dict:
    """Return what a confidence's file holds, with some fields of the certificate changed."""
    half = CalibrationScores([(0.9, 1.0, True)] * 40 + [(0.9, 0.2, False)] * 10, [(0.1, 0.2)] * 100)
    certificate = Certificate(0.5, 0.75, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    head = Head({FEATURE_NAMES[0]: 2.0}, 1.0)
    text = confidences_to_json({"birthplace": Confidence(head, head, half, half, certificate)})
    found = json.loads(text)["relations"]["birthplace"]
    found["certificate"] |= changes
    return found


@pytest.mark.row("H17")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("risk", 7), ("risk", 7.0), ("risk", 0), ("risk", 1), ("risk", 1.0), ("risk", -0.1), ("risk", None),
        ("risk", "0.1"), ("risk", True), ("risk", float("nan")),
        ("confidence", 95), ("confidence", 1), ("confidence", 0.0), ("confidence", None),
        ("stranger_rate", 5), ("stranger_rate", 0), ("stranger_rate", 1),
        ("known_threshold", 2), ("known_threshold", -1), ("correct_threshold", None), ("correct_threshold", 1.5),
        ("people", 0.5), ("people", -1), ("people", 50.5), ("people", None), ("people", True), ("people", 1e300),
        ("answered", 51), ("wrong", 41), ("wrong", 0.25), ("strangers_answered", 101), ("strangers", float("inf")),
    ],
)  # fmt: skip
def test_a_certificate_with_a_field_out_of_its_bounds_is_refused(field, value):
    with pytest.raises((ValueError, TypeError)):
        read_confidence(contents(**{field: value}))


@pytest.mark.row("H17")
@pytest.mark.parametrize("count", [50, 50.0])
def test_a_whole_number_is_a_count_however_it_is_written(count):
    found = read_confidence(contents(people=count, answered=40.0, wrong=0.0))
    assert found == read_confidence(contents())
    assert "0 of 40 were, among 50 people" in str(found.certificate)


@pytest.mark.row("H17")
@pytest.mark.parametrize(
    ("field", "value"), [("known_threshold", 0), ("correct_threshold", 1), ("stranger_rate", None)]
)
def test_the_ends_of_the_bounds_are_read(field, value):
    certificate = read_confidence(contents(**{field: value})).certificate
    assert getattr(certificate, field) == value


@pytest.mark.row("H17")
@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["selection"]["known"].append([0.5, 0.5, "false"]),
        lambda values: values["selection"]["known"].append([0.5, 0.5, 2]),
        lambda values: values["selection"]["known"].append([0.5, True]),
        lambda values: values["certification"]["known"].append([0.5, 2, True]),
        lambda values: values["certification"]["known"].append([2, 0.5, True]),
        lambda values: values["certification"]["strangers"].append([0.5, 1.5]),
        lambda values: values["certification"]["strangers"].append(0.5),
        lambda values: values["known"].update(weights=[2.0]),
        lambda values: values["correct"].update(bias=float("nan")),
        lambda values: values.update(known=[1]),
        lambda values: values.update(correct=None),
        lambda values: values.update(unknown_field=1),
        lambda values: values.update(certificate=[1]),
        lambda values: values["certificate"].pop("risk"),
        lambda values: values["certificate"].update(alpha=0.1),
    ],
)
def test_other_fields_of_the_wrong_kind_are_refused(change):
    values = contents()
    change(values)
    with pytest.raises((ValueError, TypeError, KeyError)):
        read_confidence(values)


@pytest.mark.row("H17")
@pytest.mark.parametrize("text", ['"picking"', "[]", "3", "null"])
def test_json_that_is_no_confidence_is_refused(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        read_confidence(json.loads(text))


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(ROOT / "evaluation" / "birthplace_accuracy"))


@pytest.mark.row("H13")
@pytest.mark.parametrize(
    ("answers", "places", "correct"),
    [
        (["Rome", None], ["Rome", "Oslo"], 1),
        ([None, "Rome"], ["Rome", "Rome"], 1),
        ([None, None], ["Rome", "Oslo"], 0),
        ([None], ["None"], 0),
        (np.array([None, "Rome"], dtype=object), ["Oslo", "Rome"], 1),
    ],
)
def test_an_abstention_is_an_answer_that_is_not_right(metric, answers, places, correct):
    found = metric.compute(predictions=answers, references=places)
    assert found == {"accuracy": correct / len(places), "correct": correct, "total": len(places)}


@pytest.mark.row("H13")
def test_abstentions_can_be_added_one_by_one(metric):
    metric.add(prediction=None, reference="Rome")
    metric.add(prediction="Oslo", reference="Oslo")
    metric.add_batch(predictions=[None, None], references=["Rome", "Bonn"])
    assert metric.compute() == {"accuracy": 0.25, "correct": 1, "total": 4}


@pytest.mark.row("H13")
def test_a_reference_of_none_is_refused_with_its_number(metric):
    with pytest.raises(ValueError, match=re.escape("reference 1 is None, wanted a place")):
        metric.compute(predictions=["Rome", "Oslo"], references=["Rome", None])
