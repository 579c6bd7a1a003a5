"""The comparison of signals: fair folds, any scale, and every signal in the table."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import confidence_signals
from benchmarks.confidence_measures import cross_validate, judge, mean_probability, typicality
from benchmarks.confidence_signals import compare, report
from data_scripts.splits import TrainingData
from data_scripts.synthetic_bios import invent
from evaluation.calibration import CalibrationError, measure
from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer
from modeling_minigpt.features_minigpt import answer_features
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from tests.attention_variants import tiny_model

RELATION = replace(BIRTHPLACE, paraphrases=("What is {name}'s birthplace?",))


@pytest.fixture(scope="module")
def bios():
    return invent(120, seed=3)


@pytest.fixture(scope="module")
def pipelines(bios):
    """Two pipelines around random weights."""
    tokenizer = build_bpe_tokenizer(bios.documents, 400, 128)
    candidates = sorted({question.answer for question in bios.train})
    made = []
    for layers in (1, 2):
        model = tiny_model(
            "vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, num_hidden_layers=layers
        )
        model.generation_config.max_new_tokens = 6
        parts = {"model": model, "tokenizer": tokenizer, "device": "cpu"}
        made.append(BirthplacePipeline(**parts, relations=[RELATION], candidates=candidates))
    return made


def test_every_signal_is_judged_and_stands_in_the_table(bios, pipelines, tmp_path, monkeypatch):
    monkeypatch.setattr(confidence_signals, "STRANGERS", 60)
    monkeypatch.setattr(confidence_signals, "PRIOR_STRANGERS", 20)
    asked = bios.train[:40]
    answers, _ = measure(pipelines[0], [question.name for question in asked])
    places = [answer if index % 2 else "Nowhere" for index, answer in enumerate(answers)]  # half of them are right
    asked = [question._replace(answers=(place,)) for question, place in zip(asked, places, strict=True)]
    data = TrainingData("bios", tmp_path, bios.documents, [], bios.train[40:], [], asked, [])
    results = compare(pipelines[0], pipelines[1:], data)
    signals = results.pop("signals")
    assert results["people"] == 20  # the half that fits the heads
    assert {"agreement of 2 seeds", "agreement of 2 paraphrases", "`known`", "`correct`"} < signals.keys()
    for found in signals.values():
        cost = found.pop("milliseconds")
        assert 0.0 <= cost < 1000.0
        assert all(0.0 <= value <= 1.0 for value in found.values())
    points = [{"subject": name, "rounds": [found, found]} for name, found in signals.items()]
    machine = {"device": "cpu", "threads": 1, "torch": "2"}
    text = report({**results, "machine": machine, "runs": 2, "points": points})
    assert all(f"| {name} |" in text for name in signals)
    assert "± 0.000" in text


def test_too_few_people_are_refused(bios, pipelines, tmp_path):
    data = TrainingData("bios", tmp_path, bios.documents, [], bios.train, [], bios.train[:3], [])
    with pytest.raises(CalibrationError, match="1 calibration people"):
        compare(pipelines[0], [], data)


def test_agreement_is_the_mean_probability_of_the_first_one_s_answers(pipelines):
    names, answers = ["Ada Stone", "Cyd"], ["Rome", "Oslo"]
    prompts = [BIRTHPLACE.format(name) for name in names]
    said = [
        answer_features(one.model, one.tokenizer, prompts, answers)["answer"].double().numpy() for one in pipelines
    ]
    ways = [(pipeline, BIRTHPLACE.question) for pipeline in pipelines]
    assert mean_probability(ways, names, answers) == pytest.approx((np.exp(said[0]) + np.exp(said[1])) / 2)


def test_a_state_is_as_typical_as_it_is_near_in_units_of_the_known_ones_spread():
    known = np.array([[-2.0, 0.1], [2.0, -0.1], [-2.0, -0.1], [2.0, 0.1]])
    far, near, center = typicality(np.array([[0.0, 2.0], [2.0, 0.0], [0.0, 0.0]]), known)
    assert far < near < center == 0.0
    assert near == pytest.approx(-np.sqrt(3 / 4), rel=1e-2)  # a variance of 16 / 3


def test_a_fold_is_scored_by_the_others():
    known, strangers = np.arange(20.0)[:, None], 100 + np.arange(30.0)[:, None]

    def fit(some, right, others):
        seen = {*some[:, 0], *others[:, 0]}
        assert len(right) == len(some)
        return lambda features: np.array([float(value in seen) for value in features[:, 0]])

    scores = cross_validate(fit, known, np.ones(20, dtype=bool), strangers)
    assert [score.tolist() for score in scores] == [[0.0] * 20, [0.0] * 30]


def test_a_signal_s_scale_does_not_matter():
    rng = np.random.default_rng(0)
    known, strangers = rng.normal(1, 1, 200), rng.normal(0, 1, 200)
    right = known + rng.normal(0, 1, 200) > 0
    found = judge(known, right, strangers)
    assert judge(np.exp(known), right, np.exp(strangers)) == pytest.approx(found)
    assert 0.7 < found["auroc_made_up"] < 0.85
    assert found["auroc_correct"] > 0.7


def test_a_folder_that_is_no_run_is_refused_in_a_line(tmp_path, capsys):
    assert confidence_signals.main([str(tmp_path), "--output", str(tmp_path / "x.json")]) == 2
    assert "wanted a run's output folder" in capsys.readouterr().err
