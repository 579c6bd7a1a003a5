"""A calibration learns whom to believe, tells the truth about it, and refuses what it cannot know."""

import numpy as np
import pytest
import torch

from data_scripts.questions import question_about
from evaluation import calibration
from evaluation.calibration import (
    CalibrationError,
    calibrate,
    cross_fit,
    fit_logistic,
    fit_platt,
    head_features,
    split_halves,
    split_withheld,
)
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.facts_minigpt import RelationFacts
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from modeling_minigpt.names_minigpt import NameIndex
from modeling_minigpt.relations_minigpt import BIRTHPLACE

RIGHT_SIGNAL, KNOWN_SIGNAL = FEATURE_NAMES.index("question: answer"), FEATURE_NAMES.index("name: neg_entropy")


class Rememberer:
    """A pipeline that answers everybody with "Rome"; who is right about whom is in the name."""

    model = tokenizer = None

    def __init__(self, names=()):
        self.names = NameIndex.from_names(names)

    def find_facts(self, relation):
        return RelationFacts(BIRTHPLACE, [])

    def preprocess(self, names, relation):
        return {"reasons": ["unreadable" if "⁇" in name else None for name in names]}

    def rank(self, names, relation):
        return [[Answer("Rome", 0.5)] for _ in names]


@pytest.fixture
def signals(monkeypatch):
    """Replace the signals by ones that know who is right and who exists, with noise."""

    def find(model, tokenizer, names, ranked, relation):
        found = np.random.default_rng(len(names)).normal(size=(len(names), len(FEATURE_NAMES)))
        found[:, RIGHT_SIGNAL] += [3.0 * name.startswith("Right") for name in names]
        found[:, KNOWN_SIGNAL] += [3.0 * ("Stranger" not in name) for name in names]
        return calibration.torch.tensor(found)

    monkeypatch.setattr(calibration, "confidence_features", find)


def people(right, wrong):
    """Return questions, of which "Rome" answers the first `right`."""
    questions = [question_about(f"Right {index}", "Rome") for index in range(right)]
    return questions + [question_about(f"Wrong {index}", "Oslo") for index in range(wrong)]


STRANGERS = [f"Stranger {index}" for index in range(400)]


def test_each_chance_is_true_of_its_own_question(signals):
    confidence = calibrate(Rememberer(), people(300, 100), STRANGERS)
    for half in (confidence.selection, confidence.certification):
        known, correct, right = np.transpose(half.known)
        strange, _ = np.transpose(half.strangers)
        assert len(known) == len(strange) == 200
        assert np.mean(correct) == pytest.approx(np.mean(right), abs=0.07)
        assert np.mean(correct[right == 1]) > 0.85
        assert np.mean(correct[right == 0]) < 0.45
        assert np.mean(known) > 0.8
        assert np.mean(strange) < 0.2
        assert np.mean([*known, *strange]) == pytest.approx(0.5, abs=0.05)
    assert confidence.certificate == confidence.threshold_for()
    assert confidence.certificate.answered > 100
    counts = [confidence.threshold_for(stranger_rate=rate).answered for rate in (0.02, 0.05, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_each_head_weighs_what_tells_its_own_question_apart(signals):
    confidence = calibrate(Rememberer(), people(300, 100), STRANGERS)
    for head, signal in ((confidence.known, KNOWN_SIGNAL), (confidence.correct, RIGHT_SIGNAL)):
        weights = {name: abs(weight) for name, weight in head.weights.items()}
        assert max(weights, key=weights.get) == FEATURE_NAMES[signal]


def test_a_head_may_use_some_of_the_features_alone(signals, monkeypatch):
    chosen = {"known": FEATURE_NAMES, "correct": ["question: answer", "born in: answer"]}
    monkeypatch.setattr(calibration, "head_features", lambda relation: chosen)
    confidence = calibrate(Rememberer(), people(300, 100), STRANGERS)
    assert list(confidence.correct.weights) == chosen["correct"]
    _, correct, right = np.transpose(confidence.certification.known)
    assert np.mean(correct[right == 1]) > np.mean(correct[right == 0]) + 0.4
    assert head_features(BIRTHPLACE)["known"] == FEATURE_NAMES


def test_nobody_is_scored_by_a_head_that_was_fitted_on_them():
    """Noise that a head can learn by heart says nothing of people whom it has not seen."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 40))
    target = rng.random(60) < 0.5
    weights, bias = fit_logistic(features, target)
    own = features @ weights + bias
    other = cross_fit(features, target)
    assert np.mean((own > 0) == target) > np.mean((other > 0) == target) + 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_by_name(signals, monkeypatch, value):
    measure = calibration.measure

    def broken(*arguments):
        answers, found = measure(*arguments)
        found[3, RIGHT_SIGNAL] = value
        return answers, found

    monkeypatch.setattr(calibration, "measure", broken)
    with pytest.raises(CalibrationError, match="feature 'question: answer' of 1 of 400 people is not a finite number"):
        calibrate(Rememberer(), people(300, 100), STRANGERS)


def test_some_of_the_withheld_people_are_strangers_to_calibrate_on_and_the_others_to_evaluate_on():
    questions = people(0, 400)
    own, others = split_withheld(questions)
    assert sorted(own + others) == sorted(questions)
    assert 70 < len(own) < 130
    assert split_withheld(questions[::-1])[0] == own[::-1]


def test_a_model_that_is_never_wrong_is_as_sure_of_everybody(signals):
    confidence = calibrate(Rememberer(), people(400, 0), STRANGERS)
    assert confidence.correct.weights == {}
    assert all(correct == pytest.approx(401 / 402) for _, correct, _ in confidence.certification.known)
    assert confidence.certificate.answered > 150


@pytest.mark.parametrize("wrong", [1, 2, 3, 4])
def test_a_head_that_is_as_sure_of_everybody_says_of_askers_what_the_calibration_has(signals, wrong):
    for count in range(40, 80):
        features = np.random.default_rng(count).normal(size=(count, 3))
        right = np.arange(count) >= wrong
        head, own, others = calibration.fit_head(["a", "b", "c"], (features, right), (features[:9], right[:9]))
        asked = head.probabilities(torch.from_numpy(features[:1]), ["a", "b", "c"]).item()
        assert head.weights == {}
        assert {*own.tolist(), *others.tolist()} == {asked}


def test_where_nothing_shows_who_is_known_strangers_are_as_likely_as_known_people(monkeypatch):
    """There are five strangers a known person in these calibration people, and that says nothing of who asks."""
    rng = np.random.default_rng(0)
    names = [f"feature {number}" for number in range(3)]
    features = [rng.normal(size=(size, 3)) for size in (120, 60)]
    target = [np.repeat([True, False], [size // 6, size - size // 6]) for size in (120, 60)]
    head, own, others = calibration.fit_head(names, *zip(features, target, strict=True), balanced=True)
    chances = np.concatenate([own, others])
    assert np.mean(chances) == pytest.approx(0.5, abs=0.12)
    few = [target[0] & False | (np.arange(120) < 3), target[1] & False | (np.arange(60) < 1)]
    head, own, _ = calibration.fit_head(names, (features[0], ~few[0]), (features[1], ~few[1]), balanced=True)
    assert (head.weights, head.bias) == ({}, 0.0)
    assert own.tolist() == [0.5] * 120


def test_halves_share_nobody_and_leave_out_nobody():
    one, other = split_halves(101, seed=3)
    assert sorted(one + other) == list(range(101))
    assert (len(one), len(other)) == (50, 51)
    assert split_halves(101, seed=4)[0] != one


def test_a_threshold_that_cannot_be_certified_is_said_to_be_so(signals):
    confidence = calibrate(Rememberer(), people(20, 20), STRANGERS)
    assert confidence.certificate is None
    assert "calibration people cannot" in confidence.refusal


def test_who_is_asked_for_twice_counts_once_and_who_cannot_be_read_not_at_all(signals):
    questions = people(60, 40)
    confidence = calibrate(Rememberer(), [*questions, *questions[:9], question_about("Right ⁇", "Rome")], STRANGERS)
    assert [len(half.known) for half in (confidence.selection, confidence.certification)] == [50, 50]


def test_a_made_up_name_that_is_another_spelling_of_somebody_s_is_no_stranger(signals):
    confidence = calibrate(Rememberer(["STRANGER 7", "Stranger 8"]), people(60, 40), STRANGERS)
    # "Stranger 8" is as training has it: whoever draws strangers leaves it out by itself.
    assert sum(len(half.strangers) for half in (confidence.selection, confidence.certification)) == 399


def test_any_accepted_answer_of_a_calibration_person_is_right(signals):
    both = [question._replace(answers=("Roma", "Rome")) for question in people(300, 0)]
    confidence = calibrate(Rememberer(), [*both, *people(0, 100)], STRANGERS)
    known = [*confidence.selection.known, *confidence.certification.known]
    assert sum(is_right for _, _, is_right in known) == 300


def test_a_half_without_a_wrong_answer_makes_no_certainties():
    slope, shift = fit_platt(np.linspace(0.0, 1.0, 50), np.ones(50, dtype=bool))
    assert 0.9 < 1 / (1 + np.exp(-(slope + shift))) < 0.99


def test_chances_are_true_on_average():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=5000)
    right = rng.random(5000) < 1 / (1 + np.exp(-(2.0 * scores + 0.5)))
    assert fit_platt(scores, right) == (pytest.approx(2.0, abs=0.15), pytest.approx(0.5, abs=0.1))


@pytest.mark.parametrize(
    ("questions", "strangers", "message"),
    [
        pytest.param(people(0, 40), STRANGERS, "too few right answers to calibrate on: 0 right", id="none-right"),
        pytest.param(people(20, 20), [], "too few strangers .* 0 strangers", id="no-strangers"),
        pytest.param(people(1, 1), STRANGERS, "1 people, one half, wanted 2 of each", id="two-people"),
    ],
)
def test_too_little_to_calibrate_on_is_refused(signals, questions, strangers, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(Rememberer(), questions, strangers)
