"""A calibration learns whom to believe, tells the truth about it, and refuses what it cannot know."""

import numpy as np
import pytest

from data_scripts.questions import question_about
from evaluation import calibration
from evaluation.calibration import CalibrationError, calibrate, fit_platt, fit_ranker, split_halves
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_minigpt import FEATURE_NAMES
from modeling_minigpt.facts_minigpt import RelationFacts
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


def test_scores_are_true_for_the_known_and_low_for_strangers(signals):
    confidence = calibrate(Rememberer(), people(300, 100), STRANGERS)
    scores, right = zip(*confidence.certification.known, strict=True)
    assert (len(scores), len(confidence.selection.known)) == (200, 200)
    assert np.mean(scores) == pytest.approx(np.mean(right), abs=0.01)
    assert np.mean([score for score, is_right in confidence.certification.known if is_right]) > 0.85
    assert np.mean([score for score, is_right in confidence.certification.known if not is_right]) < 0.45
    assert np.median(confidence.certification.strangers) < 0.2
    assert confidence.certificate.threshold == confidence.threshold_for().threshold
    assert confidence.certificate.answered > 100


def test_halves_share_nobody_and_leave_out_nobody():
    one, other = split_halves(101, seed=3)
    assert sorted(one + other) == list(range(101))
    assert (len(one), len(other)) == (50, 51)
    assert split_halves(101, seed=4)[0] != one


def test_the_order_parts_right_answers_from_wrong_ones_and_from_strangers():
    rng = np.random.default_rng(0)
    known, strangers = rng.normal(size=(400, len(FEATURE_NAMES))), rng.normal(size=(400, len(FEATURE_NAMES)))
    right = known[:, 0] > 0
    strangers[:, 1] -= 3.0
    weights, bias = fit_ranker(known, right, strangers)
    assert weights[0] > 2 * np.abs(weights[2:]).max()
    assert weights[1] > 2 * np.abs(weights[2:]).max()
    scores, strange = known @ weights + bias, strangers @ weights + bias
    assert np.median(scores[right]) > np.quantile(strange, 0.9)
    assert np.median(scores[right]) > np.quantile(scores[~right], 0.9)


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
    assert sum(is_right for _, is_right in known) == 300


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
