"""Features are what the model says, whatever batch a name is in, and a confidence survives its file."""

import json
import math
from dataclasses import replace

import pytest
import torch

from modeling_minigpt import build_bpe_tokenizer
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_file_minigpt import confidences_from_json, confidences_to_json
from modeling_minigpt.confidence_minigpt import Confidence, Head, describe_promise
from modeling_minigpt.features_minigpt import (
    FEATURE_NAMES,
    MIN_LOG_PROB,
    answer_features,
    confidence_features,
    feature_names,
    prompt_templates,
    title_features,
)
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate, CertificationError
from tests.attention_variants import VARIANTS, tiny_model

LINES = [
    "Where was Ada Stone born in Rome?",
    "Béla Nagy was born in Romeo .",
    "Where was Cyd Moss-Quint of Rome West?",
]
TOKENIZER = build_bpe_tokenizer(LINES, 300, 128)
NAMES = ["Ada Stone", "Béla Nagy-Moss Stone", "Cyd"]
RANKED = [
    [Answer("Rome", 0.6), Answer("Ada", 0.3)],
    [Answer("Rome West", 0.2), Answer("Rome", 0.0)],
    [Answer("Romeo", 1.0)],
]


@pytest.fixture(params=["vanilla", *VARIANTS])
def model(request):
    return tiny_model(request.param, vocab_size=len(TOKENIZER), eos_token_id=TOKENIZER.eos_token_id)


def column(signals, name):
    return signals[:, FEATURE_NAMES.index(name)]


def test_signals_are_what_plain_passes_say(model):
    signals = confidence_features(model, TOKENIZER, NAMES, RANKED)
    assert signals.shape == (3, len(FEATURE_NAMES))
    for way, prompt in prompt_templates(BIRTHPLACE).items():
        for index, (name, (best, *_)) in enumerate(zip(NAMES, RANKED, strict=True)):
            ids = TOKENIZER(prompt.format(name=name) + TOKENIZER.mask_token)["input_ids"]
            answer = [*TOKENIZER(best.text)["input_ids"], TOKENIZER.eos_token_id]
            with torch.no_grad():
                following = model(torch.tensor([ids + answer])).logits[0].double().log_softmax(-1)
            first = following[len(ids) - 1]
            said = sum(following[len(ids) - 1 + place, token].item() for place, token in enumerate(answer))
            expected = {
                "answer": max(MIN_LOG_PROB, said),
                "empty_answer": -max(MIN_LOG_PROB, first[TOKENIZER.eos_token_id].item()),
                "neg_entropy": (first.exp() * first).sum().item(),
            }
            for what, value in expected.items():
                assert column(signals, f"{way}: {what}")[index] == pytest.approx(value, abs=1e-3), (way, what)


def test_the_candidates_surety_is_minus_their_entropy(model):
    found = column(confidence_features(model, TOKENIZER, NAMES, RANKED), "candidates: neg_entropy")
    expected = [
        0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1),
        0.2 * math.log(0.2) + 0.8 * math.log(0.8),
    ]
    assert found.tolist() == pytest.approx([*expected, 0.0])


def test_a_name_is_as_probable_as_its_tokens_are_one_after_the_other(model):
    names = [*NAMES, "Ada Stone."]
    signals = confidence_features(model, TOKENIZER, names, [*RANKED, RANKED[0]])
    for index, name in enumerate(names):
        ids = TOKENIZER(f"{name.removesuffix('.')}.")["input_ids"]
        with torch.no_grad():
            following = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        said = [following[place, token].item() for place, token in enumerate(ids[1:])]
        for what, value in (("mean", sum(said) / len(said)), ("least", min(said))):
            assert column(signals, f"title: {what}")[index] == pytest.approx(max(MIN_LOG_PROB, value), abs=1e-3)


def test_a_name_of_one_token_has_no_surprise():
    model = tiny_model("vanilla", vocab_size=len(TOKENIZER), eos_token_id=TOKENIZER.eos_token_id)
    alone = title_features(model, TOKENIZER, ["."])
    assert {name: value.tolist() for name, value in alone.items()} == {"mean": [0.0], "least": [0.0]}
    beside = title_features(model, TOKENIZER, [".", "Ada Stone"])
    assert all(value[0] == 0.0 > value[1] for value in beside.values())


def make(**changes):
    """Return a confidence, made up; its heads use different features."""
    certificate = Certificate(0.5, 0.75, 0.1, 0.05, 0.95, 40, 30, 0, 100, 0)
    known = [(0.95, 0.9, True)] * 30 + [(0.95, 0.2, False)] * 10
    halves = [CalibrationScores(known, [(0.1, 0.8)] * 100) for _ in range(2)]
    heads = {"known": Head({"name: neg_entropy": 0.5}, 1.0), "correct": Head({"question: answer": 2.0}, 0.5)}
    values = {**heads, "selection": halves[0], "certification": halves[1], "certificate": certificate}
    return Confidence(**{**values, **changes})


def read(text):
    """Read the confidence of a file that has one."""
    return confidences_from_json(text, [BIRTHPLACE])["birthplace"]


def write(confidence):
    """Return the file of one confidence."""
    return confidences_to_json({"birthplace": confidence})


def test_each_head_weighs_its_own_features_and_the_score_is_their_product():
    features = torch.zeros(2, len(FEATURE_NAMES), dtype=torch.float64)
    features[1, FEATURE_NAMES.index("question: answer")] = -0.25
    features[1, FEATURE_NAMES.index("name: neg_entropy")] = -2.0
    first, second = make().scores(features)
    assert first[:2] == pytest.approx((1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))))
    assert second == pytest.approx((0.5, 0.5, 0.25))
    assert first.score == first.known * first.correct


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_feature_that_is_no_number_gives_no_chance(value):
    features = torch.full((1, len(FEATURE_NAMES)), value, dtype=torch.float64)
    heads = {"known": Head(dict.fromkeys(FEATURE_NAMES[:2], 1.0), 0.0), "correct": Head({FEATURE_NAMES[0]: -1.0}, 0.0)}
    (scores,) = make(**heads).scores(features)
    assert not math.isfinite(scores.score) or scores.score == 0.0


@pytest.mark.parametrize("changes", [{}, {"certificate": None, "refusal": "too few"}], ids=["certified", "refused"])
def test_a_confidence_survives_its_file(changes):
    confidence = make(**changes)
    assert read(write(confidence)) == confidence


def test_certificates_are_of_the_same_calibration_after_its_file():
    confidence = make(known=Head({"name: neg_entropy": 1, "question: answer": 2}, 1))  # to JSON 1.0 is another text
    certified = replace(confidence, certificate=confidence.threshold_for(risk=0.1))
    again = read(write(certified))
    assert again.certificate == again.threshold_for(risk=0.1) == certified.certificate
    assert again.certificate.calibration == confidence.measured != make().measured
    with pytest.raises(TypeError, match="calibration must be a text, found 7"):
        read(write(certified).replace(f'"calibration": "{confidence.measured}"', '"calibration": 7'))


def test_thresholds_are_found_for_another_risk_and_refused_where_they_cannot_be():
    found = make().threshold_for(risk=0.1)
    assert (found.answered, found.wrong, found.strangers_answered) == (30, 0, 0)
    with pytest.raises(CertificationError, match="cannot"):
        make().threshold_for(risk=0.01)


def test_features_of_another_version_are_refused():
    text = write(make()).replace("name: neg_entropy", "shoe size")
    with pytest.raises(ValueError, match="unknown features: shoe size"):
        read(text)


@pytest.mark.parametrize(
    "change",
    [
        ('"bias": 1.0', '"bias": NaN'),
        ('"bias": 0.5', '"bias": "1"'),
        ('"question: answer": 2.0', '"question: answer": 1e999'),
        ('"correct_threshold": 0.75', '"correct_threshold": 1.5'),
        ('"known_threshold": 0.5', '"known_threshold": -0.5'),
        ('"risk": 0.1', '"risk": 7'),
        ('"confidence": 0.95', '"confidence": 95'),
        ('"wrong": 0', '"wrong": "none"'),
        ('"refusal": null', '"refusal": 3'),
        ("0.9,", "Infinity,"),
    ],
    ids=["nan", "text", "infinite weight", "correct", "known", "risk", "confidence", "count", "refusal", "score"],
)
def test_a_confidence_of_anything_but_numbers_in_their_bounds_is_refused(change):
    text = write(make())
    assert change[0] in text
    with pytest.raises(ValueError, match=r"wanted a number|refusal must be a text"):
        read(text.replace(*change))


CONTRADICTIONS = {
    "thresholds": (
        {"certificate": {"known_threshold": 0.0, "correct_threshold": 0.0}},
        "the certificate says answered: 30, but by its thresholds and the scores of the certification half it is 40",
    ),
    "wrong": ({"certificate": {"correct_threshold": 0.1, "answered": 40}}, "wrong: 0, but by .* it is 10"),
    "people": ({"certificate": {"people": 400}}, "people: 400, but by .* it is 40"),
    "strangers": ({"certificate": {"known_threshold": 0.05}}, "strangers_answered: 0, but by .* it is 100"),
    "risk": (
        {"certificate": {"risk": 0.01}},
        "at most 1 % of answers wrong with 95 % confidence, which 0 of 30 do not support",
    ),
    "stranger rate": (
        {"certificate": {"stranger_rate": 0.01}},
        "at most 1 % of strangers answered with 95 % confidence, which 0 of 100 do not support",
    ),
    "no strangers": (
        {"certificate": {"strangers": 0}, "certification": {"strangers": []}},
        "at most 5 % of strangers answered with 95 % confidence, which 0 of 0 do not support",
    ),
    "no selection": ({"selection": {"known": [], "strangers": []}}, "nobody in the selection half"),
    "known without weights": ({"known": {"weights": {}}}, "'known' has no weights: it gives everybody 0.731059, but"),
    "correct without weights": ({"correct": {"weights": {}}}, "'correct' has no weights: it gives everybody 0.62"),
}


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_certificate_or_a_head_that_contradicts_the_scores_beside_it_is_refused(changes, message):
    values = json.loads(write(make()))
    for part, fields in changes.items():
        values["relations"]["birthplace"][part].update(fields)
    with pytest.raises(ValueError, match=message):
        read(json.dumps(values))


def test_a_head_without_weights_is_read_where_everybody_has_its_probability():
    halves = [CalibrationScores([(0.9, 0.75, True)] * 40, [(0.1, 0.75)] * 100)] * 2
    heads = {"correct": Head({}, math.log(3.0)), "selection": halves[0], "certification": halves[1]}
    confidence = make(certificate=None, **heads)
    found = replace(confidence, certificate=confidence.threshold_for())
    assert read(write(found)) == found


@pytest.fixture
def former():
    """The values of a file of before there were two heads: one score, one threshold."""
    half = {"known": [[0.9, True]] * 40 + [[0.2, False]] * 10, "strangers": [0.1] * 100}
    counts = {"people": 50, "answered": 40, "wrong": 0, "strangers": 100, "strangers_answered": 0}
    certificate = {"threshold": 0.5, "risk": 0.1, "stranger_rate": 0.05, "confidence": 0.95, **counts}
    weights = {"question: answer": 2.0, "name: neg_entropy": 0.5}
    return {
        "weights": weights, "bias": 1.0, "selection": half, "certification": half, "certificate": certificate,
        "refusal": None, "fingerprint": None,
    }  # fmt: skip


def test_a_file_of_one_head_is_read_as_one_score_and_certifies_as_before(former):
    confidence = read(json.dumps(former))
    assert (confidence.known, confidence.correct.bias) == (None, 1.0)
    (scores,) = confidence.scores(torch.zeros(1, len(FEATURE_NAMES), dtype=torch.float64))
    assert scores == (None, None, pytest.approx(1 / (1 + math.exp(-1.0))))
    assert scores.pair == (1.0, scores.score)
    certificate = confidence.certificate
    assert (certificate.known_threshold, certificate.correct_threshold) == (0.0, 0.5)
    found = confidence.threshold_for(risk=0.2, confidence=0.9)
    assert (found.known_threshold, found.correct_threshold, found.answered) == (0.0, 0.9, 40)
    assert read(write(confidence)) == confidence


@pytest.mark.parametrize(("field", "value"), [("risk", 7), ("confidence", 95), ("stranger_rate", 5), ("threshold", 2)])
def test_impossible_numbers_in_such_a_file_are_refused(former, field, value):
    former["certificate"][field] = value
    with pytest.raises(ValueError, match=r"wanted a number in \[0, 1\], found"):
        read(json.dumps(former))


def test_a_file_of_before_the_names_changed_is_still_read(former):
    text = json.dumps(former)
    older = text.replace("selection", "picking").replace('"certification"', '"certifying"')
    older = older.replace("neg_entropy", "surety").replace("empty_answer", "nothing")
    assert older != text
    assert read(older) == read(text)


def test_what_is_promised_is_one_sentence():
    assert describe_promise(make().certificate, True, None).startswith(
        "certified on people whose questions were held out of training: with"
    )
    refused = describe_promise(None, True, "too few people")
    assert refused.startswith("no threshold is certified, so it answers every question by “I don't know” unless")
    assert refused.endswith("threshold=0 is given: too few people")
    assert "the model is not calibrated" in describe_promise(None, False, None)


def test_the_features_of_the_birthplace_are_those_of_older_files_and_two_of_the_name():
    assert FEATURE_NAMES == feature_names(BIRTHPLACE) == [
        "question: answer", "question: empty_answer", "question: neg_entropy",
        "born in: answer", "born in: empty_answer", "born in: neg_entropy",
        "and: answer", "and: empty_answer", "and: neg_entropy",
        "name: answer", "name: empty_answer", "name: neg_entropy",
        "candidates: neg_entropy",
        "title: mean", "title: least",
    ]  # fmt: skip


def test_prompts_whose_ends_are_the_same_have_labels_of_their_own():
    prompts = (
        "{name}. studied at",
        "{name} studied at",
        "{name}.",
        "Dr. {name}.",
        "{name}. question",
        "{name} candidates",
    )
    relation = Relation("studied", "Where did {name} study?", prompts)
    assert list(prompt_templates(relation)) == [
        "question", "studied at", "{name} studied at", "name", "Dr. {name}.", "{name}. question", "{name} candidates",
    ]  # fmt: skip
    assert len(set(feature_names(relation))) == 3 * 7 + 3


def test_a_relation_is_measured_after_its_own_question_and_prompts(model):
    relation = Relation("studied", "Where did {name} study?", ("{name}. of",))
    found = confidence_features(model, TOKENIZER, NAMES, RANKED, relation)
    assert found.shape == (3, len(feature_names(relation)))
    answers = [candidates[0].text for candidates in RANKED]
    for label, start in (("question", "Where did {} study?"), ("of", "{}. of")):
        expected = answer_features(model, TOKENIZER, [start.format(name) for name in NAMES], answers)["answer"]
        index = feature_names(relation).index(f"{label}: answer")
        assert found[:, index].tolist() == pytest.approx(expected.clamp(min=MIN_LOG_PROB).tolist(), abs=1e-5)


def test_confidences_of_several_relations_survive_their_file():
    studied = Relation("studied", "Where did {name} study?", ("{name}. studied at",))
    heads = {"known": Head({"title: mean": 1.0}, 0.0), "correct": Head({"studied at: answer": 1.0}, 0.0)}
    confidences = {"birthplace": make(), "studied": make(**heads)}
    text = confidences_to_json(confidences)
    assert confidences_from_json(text, [BIRTHPLACE, studied]) == confidences
    with pytest.raises(ValueError, match="unknown features: studied at: answer"):
        confidences_from_json(text, [BIRTHPLACE, replace(studied, prompts=())])
    with pytest.raises(ValueError, match="unknown relations: studied; the model has birthplace"):
        confidences_from_json(text, [BIRTHPLACE])
    with pytest.raises(TypeError, match="relations must be confidences by their names"):
        confidences_from_json('{"relations": []}', [BIRTHPLACE])


def test_a_file_of_one_confidence_is_of_the_first_relation(former):
    studied = Relation("studied", "Where did {name} study?")
    assert list(confidences_from_json(json.dumps(former), [BIRTHPLACE, studied])) == ["birthplace"]
