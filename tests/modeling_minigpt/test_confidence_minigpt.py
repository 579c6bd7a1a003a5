"""Signals say what the model says, whatever batch a name stands in, and a confidence survives its file."""

import math
from dataclasses import replace

import pytest
import torch

from modeling_minigpt import build_bpe_tokenizer
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_minigpt import (
    FEATURE_NAMES,
    MIN_LOG_PROB,
    Confidence,
    answer_features,
    confidence_features,
    confidences_from_json,
    confidences_to_json,
    feature_names,
    prompt_templates,
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


def make(**changes):
    certificate = Certificate(0.75, 0.1, 0.05, 0.95, 40, 30, 0, 50, 1)
    halves = [CalibrationScores([(0.9, True)] * 30 + [(0.2, False)] * 10, [0.1] * 100) for _ in range(2)]
    values = {"weights": {"question: answer": 2.0, "name: neg_entropy": 0.5}, "bias": 1.0, "certificate": certificate}
    return Confidence(**{**values, "selection": halves[0], "certification": halves[1], **changes})


def test_probabilities_weigh_the_signals():
    signals = torch.zeros(2, len(FEATURE_NAMES), dtype=torch.float64)
    signals[1, FEATURE_NAMES.index("question: answer")], signals[1, FEATURE_NAMES.index("name: neg_entropy")] = (
        -1.5,
        4.0,
    )
    assert make().probabilities(signals).tolist() == pytest.approx([1 / (1 + math.exp(-1.0)), 0.5])


@pytest.mark.parametrize("changes", [{}, {"certificate": None, "refusal": "too few"}], ids=["certified", "refused"])
def test_a_confidence_survives_its_file(changes):
    confidence = make(**changes)
    again = Confidence.from_json(confidence.to_json())
    assert again == confidence
    assert again.threshold == (None if changes else 0.75)


def test_a_threshold_is_found_for_another_risk_and_refused_where_it_cannot_be():
    assert make().threshold_for(risk=0.1).threshold == 0.9
    with pytest.raises(CertificationError, match="cannot"):
        make().threshold_for(risk=0.01)


def test_signals_of_another_version_are_refused():
    text = make().to_json().replace("name: neg_entropy", "shoe size")
    with pytest.raises(ValueError, match="unknown features: shoe size"):
        Confidence.from_json(text)


@pytest.mark.parametrize(
    "change",
    [
        ('"bias": 1.0', '"bias": NaN'),
        ('"bias": 1.0', '"bias": "1"'),
        ('"question: answer": 2.0', '"question: answer": 1e999'),
        ('"threshold": 0.75', '"threshold": 1.5'),
        ('"wrong": 0', '"wrong": "none"'),
        ('"refusal": null', '"refusal": 3'),
        ("0.9,", "Infinity,"),
    ],
    ids=["nan", "text", "infinite weight", "threshold", "count", "refusal", "score"],
)
def test_a_confidence_of_anything_but_numbers_is_refused(change):
    text = make().to_json()
    assert change[0] in text
    with pytest.raises(ValueError, match=r"wanted a number|refusal must be a text"):
        Confidence.from_json(text.replace(*change))


def test_a_file_of_before_the_names_changed_is_still_read():
    text = make().to_json()
    former = text.replace("selection", "picking").replace("certification", "certifying")
    former = former.replace("neg_entropy", "surety").replace("empty_answer", "nothing")
    assert former != text
    assert Confidence.from_json(former) == Confidence.from_json(text)


def test_the_features_of_the_birthplace_are_those_of_older_files():
    assert FEATURE_NAMES == feature_names(BIRTHPLACE) == [
        "question: answer", "question: empty_answer", "question: neg_entropy",
        "born in: answer", "born in: empty_answer", "born in: neg_entropy",
        "and: answer", "and: empty_answer", "and: neg_entropy",
        "name: answer", "name: empty_answer", "name: neg_entropy",
        "candidates: neg_entropy",
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
    assert len(set(feature_names(relation))) == 3 * 7 + 1


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
    confidences = {"birthplace": make(), "studied": make(weights={"studied at: answer": 1.0})}
    text = confidences_to_json(confidences)
    assert confidences_from_json(text, [BIRTHPLACE, studied]) == confidences
    with pytest.raises(ValueError, match="unknown features: studied at: answer"):
        confidences_from_json(text, [BIRTHPLACE, replace(studied, prompts=())])
    with pytest.raises(ValueError, match="unknown relations: studied; the model has birthplace"):
        confidences_from_json(text, [BIRTHPLACE])
    with pytest.raises(TypeError, match="relations must be confidences by their names"):
        confidences_from_json('{"relations": []}', [BIRTHPLACE])


def test_a_file_of_one_confidence_is_of_the_first_relation():
    studied = Relation("studied", "Where did {name} study?")
    assert confidences_from_json(make().to_json(), [BIRTHPLACE, studied]) == {"birthplace": make()}
