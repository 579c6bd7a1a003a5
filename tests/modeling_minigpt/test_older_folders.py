"""A model's folder of before there were relations: it answers as it did, under its own calibration."""

import json
from dataclasses import asdict

import pytest
from transformers import AutoTokenizer, pipeline

from modeling_minigpt import BirthplacePipeline, ClosedBookPipeline, MiniGPTForCausalLM
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.attention_variants import tiny_model
from tests.pipelines import build_bpe

PLACES = ["Rome", "Romeo", "Rome West"]
NAMES = ["Ada Stone", "Béla Nagy", "Cyd Moss-Quint"]


@pytest.fixture(scope="module")
def parts():
    """The parts of a pipeline around a model of random weights."""
    tokenizer = build_bpe([f"{name}. {name} was born in Rome West." for name in NAMES])
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.generation_config.max_new_tokens = 6
    return {"model": model, "tokenizer": tokenizer, "device": "cpu"}


def load(folder):
    """Load a pipeline as a user of the package does."""
    return pipeline("closed-book-qa", model=str(folder), device="cpu", trust_remote_code=True)


@pytest.fixture
def older_folder(parts, tmp_path):
    """The folder of a calibrated model of before there were relations, its files written by hand."""
    path = tmp_path / "older"
    ask = BirthplacePipeline(**parts, candidates=PLACES)
    ask.save_pretrained(path)
    (path / "facts.json").unlink()
    (path / "birthplaces.json").write_text(json.dumps({"candidates": PLACES}, indent=1) + "\n")
    fingerprint = {name: digest for name, digest in ask.fingerprint().items() if name != "relation"}
    scores = {"known": [[0.9, True]] * 40 + [[0.2, False]] * 10, "strangers": [0.1] * 100}
    values = {
        "weights": dict.fromkeys(FEATURE_NAMES, 0.05), "bias": 1.0, "selection": scores, "certification": scores,
        "certificate": {
            "threshold": 0.3, "risk": 0.1, "stranger_rate": 0.05, "confidence": 0.95, "people": 50, "answered": 40,
            "wrong": 0, "strangers": 100, "strangers_answered": 0,
        },
        "refusal": None, "fingerprint": fingerprint,
    }  # fmt: skip
    (path / "confidence.json").write_text(json.dumps(values, indent=1) + "\n")
    return path


def test_a_folder_of_before_there_were_relations_answers_as_it_did(older_folder, parts, tmp_path):
    ask = load(older_folder)
    head = Head(dict.fromkeys(FEATURE_NAMES, 0.05), 1.0)
    half = CalibrationScores([(1.0, 0.9, True)] * 40 + [(1.0, 0.2, False)] * 10, [(1.0, 0.1)] * 100)
    confidence = Confidence(None, head, half, half, Certificate(0.0, 0.3, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0))
    expected = BirthplacePipeline(**parts, candidates=PLACES, confidence=confidence)
    assert (ask.uncalibrated, ask.candidates) == (None, PLACES)
    assert asdict(ask.confidence) | {"fingerprint": None} == asdict(confidence)
    assert ask([*NAMES, "bela nagy"]) == expected([*NAMES, "bela nagy"])
    assert {(result["calibrated"], result["known"]) for result in ask(NAMES)} == {(True, None)}
    ask.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "birthplaces.json").exists()
    assert load(tmp_path / "again")(NAMES) == expected(NAMES)


def test_a_calibration_of_before_there_were_relations_is_of_the_birthplace_alone(older_folder):
    (older_folder / "birthplaces.json").write_text('{"candidates": ["Rome"]}')
    assert load(older_folder).uncalibrated == "its candidates are not those that it was calibrated with"
    wording = Relation("birthplace", "In what city was {name} born?", BIRTHPLACE.prompts)
    model = MiniGPTForCausalLM.from_pretrained(older_folder)
    tokenizer = AutoTokenizer.from_pretrained(older_folder)
    (older_folder / "birthplaces.json").write_text(json.dumps({"candidates": PLACES}))
    ask = ClosedBookPipeline(model=model, tokenizer=tokenizer, relations=[wording])
    assert ask.uncalibrated == "its question or its prompts are not those that it was calibrated with"
