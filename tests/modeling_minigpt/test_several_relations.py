"""One model, several relations: each with its question, candidates, calibration and threshold."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from transformers import AutoTokenizer, pipeline

from modeling_minigpt import ClosedBookPipeline, MiniGPTForCausalLM, build_bpe_tokenizer
from modeling_minigpt.cli_minigpt import main
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import confidence_features, feature_names
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.attention_variants import tiny_model

STUDIED = Relation(
    "studied", "Where did {name} study?", ("{name}. studied at", "{name}."), ("{name}'s university?",), "university"
)
ASKED_TWICE = Relation(
    "died", "In which year did {name} die?", paraphrases=("Where was {name} born?",), answers="year"
)
CANDIDATES = {"birthplace": ["Rome", "Romeo", "Rome West"], "studied": ["Oslo", "Rome"]}
NAMES = ["Ada Stone", "Béla Nagy", "Cyd Moss-Quint"]
LINES = [f"{name}. {name} was born in Rome West. Where did he study? at Oslo in which year did die" for name in NAMES]
KNOWN = [(0.8, 0.9, True)] * 40 + [(0.8, 0.2, False)] * 10
HALVES = [CalibrationScores(KNOWN, [(0.1, 0.1)] * 100) for _ in range(2)]


def confidence_of(relation, threshold):
    """Return a made-up confidence with a weight for each feature of a relation, and a threshold for being right."""
    certificate = Certificate(0.0, threshold, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    head = Head(dict.fromkeys(feature_names(relation), 0.05), 1.0)
    return Confidence(head, head, *HALVES, certificate)


@pytest.fixture(scope="module")
def parts():
    """The parts of a pipeline around a model of random weights."""
    tokenizer = build_bpe_tokenizer(LINES, 320, 128)
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.generation_config.max_new_tokens = 6
    return {"model": model, "tokenizer": tokenizer, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    """The folder of a model of two relations, of which one has a calibration, and of three names."""
    path = tmp_path_factory.mktemp("several") / "model"
    ask = ClosedBookPipeline(**parts, relations=[BIRTHPLACE, STUDIED], candidates=CANDIDATES, names=NAMES)
    ask.set_confidence("studied", confidence_of(STUDIED, 0.5))
    ask.save_pretrained(path)
    return path


def load(folder, task="closed-book-qa", **settings):
    """Load a pipeline as a user of the package does."""
    return pipeline(task, model=str(folder), device="cpu", trust_remote_code=True, **settings)


@pytest.fixture(scope="module")
def ask(folder):
    return load(folder)


def test_a_folder_has_what_the_pipeline_was_given(ask, folder):
    # The pipeline is of the folder's own code, and so is its Relation.
    assert list(map(asdict, ask.relations.values())) == list(map(asdict, [BIRTHPLACE, STUDIED]))
    assert {name: facts.candidates for name, facts in ask.facts.items()} == CANDIDATES
    assert (ask.candidates, ask.confidence, ask.uncalibrated) == (CANDIDATES["birthplace"], None, None)
    assert ask.facts["studied"].confidence.certificate.correct_threshold == 0.5
    assert not (folder / "birthplaces.json").exists()
    assert list(json.loads((folder / "confidence.json").read_text())["relations"]) == ["studied"]
    assert (folder / "names.txt").read_text(encoding="utf-8").splitlines() == NAMES


def test_each_question_is_answered_under_its_own_relation(ask):
    texts = ["where was Ada Stone born", "Where did Ada Stone study?", "Ada Stone’s university"]
    born, studied, paraphrased = ask(texts, batch_size=1)
    assert (born["relation"], born["question"]) == ("birthplace", "Where was Ada Stone born?")
    assert (studied["relation"], studied["question"]) == ("studied", "Where did Ada Stone study?")
    assert studied == paraphrased
    assert (born["calibrated"], studied["calibrated"]) == (False, True)
    for result, own, other in ((born, "birthplace", "studied"), (studied, "studied", "birthplace")):
        found = {one["answer"] for one in ask(result["question"], top_k=99)["candidates"]}
        assert found >= set(CANDIDATES[own])
        assert not found & (set(CANDIDATES[other]) - set(CANDIDATES[own]))


def test_a_bare_name_is_asked_under_the_first_relation_or_the_one_that_is_named(ask, folder):
    assert ask("Ada Stone") == ask("Where was Ada Stone born?")
    assert ask("Ada Stone", relation="studied") == ask("Where did Ada Stone study?")
    assert load(folder, relation="studied")("Ada Stone") == ask("Where did Ada Stone study?")


def test_a_question_of_another_relation_than_the_named_one_gets_a_reason(ask):
    result = ask("Where was Ada Stone born?", relation="studied")
    assert (result["answer"], result["abstained"], result["relation"]) == (None, True, None)
    assert result["reason"] == 'a question of the relation "birthplace", asked under "studied"'


def test_a_question_of_two_relations_gets_a_reason_that_names_both(parts):
    ask = ClosedBookPipeline(**parts, relations=[BIRTHPLACE, ASKED_TWICE])
    result = ask("Where was Ada Stone born?")
    assert (result["answer"], result["reason"]) == (None, "a question of several relations: birthplace, died")
    assert ask("Where was Ada Stone born?", relation="died")["question"] == "In which year did Ada Stone die?"


@pytest.mark.parametrize("relation", ["died", "", 7, ["studied"]])
def test_an_unknown_relation_is_refused_with_those_that_are_known(ask, folder, relation):
    for call in (
        lambda: ask("Ada Stone", relation=relation),
        lambda: ask(iter(["Ada Stone"]), relation=relation),
        lambda: ask.rank(["Ada Stone"], relation=relation),
        lambda: ask.threshold_for(relation=relation),
        lambda: ask.set_confidence(relation, None),
        lambda: load(folder, relation=relation),
    ):
        with pytest.raises(ValueError, match="relation must be one of birthplace, studied, found "):
            call()


def test_a_batch_of_several_relations_gets_what_each_question_gets_alone(ask):
    texts = [
        "Where did Ada Stone study?",
        None,
        "Béla Nagy",
        "Who is Ada?",
        "Cyd Moss-Quint's university?",
        "Ada Stone",
    ]
    for result, text in zip(ask(texts, batch_size=6), texts, strict=True):
        alone = ask(text)
        chances = [[one.pop(key) or 0.0 for key in ("score", "known", "correct")] for one in (result, alone)]
        assert chances[0] == pytest.approx(chances[1], rel=1e-4)
        candidates = result.pop("candidates"), alone.pop("candidates")
        assert [one["answer"] for one in candidates[0]] == [one["answer"] for one in candidates[1]]
        assert result == alone


def test_a_calibrated_score_weighs_the_relations_own_features(ask):
    ranked = ask.rank(["Ada Stone"], relation="studied")
    features = confidence_features(ask.model, ask.tokenizer, ["Ada Stone"], ranked, STUDIED)
    confidence = ask.facts["studied"].confidence
    (expected,) = confidence.scores(features, STUDIED)
    assert ask("Ada Stone", relation="studied", threshold=0)["score"] == pytest.approx(expected.score, rel=1e-5)
    # The relation beside it is not calibrated, and fails closed by itself.
    for relation, answered in (("studied", expected.correct >= 0.5), ("birthplace", False)):
        assert (ask("Ada Stone", relation=relation)["answer"] is not None) == answered
        assert ask("Ada Stone", relation=relation, threshold=0)["answer"] is not None
    assert ask("Ada Stone")["reason"].startswith("not calibrated: ")
    certificate = ask.threshold_for(risk=0.2, confidence=0.9, relation="studied")
    assert certificate.correct_threshold == 0.9
    # It says nothing of another relation, calibrated or not.
    assert "the certificate given is of 'studied'" in ask("Ada Stone", threshold=certificate)["reason"]
    nobodys = replace(certificate, relation=None)
    assert ask("Ada Stone", threshold=nobodys)["reason"].startswith("not calibrated: ")
    with pytest.raises(ValueError, match="this model is not calibrated"):
        ask.threshold_for()


def test_a_name_is_found_however_it_is_typed_and_the_result_says_so(ask):
    exact, typed, question = ask(["Béla Nagy", "bela nagy", "where did CYD MOSS–QUINT study"])
    assert exact["matched_name"] is None
    assert typed == {**exact, "matched_name": "Béla Nagy"}
    assert (question["question"], question["matched_name"]) == ("Where did Cyd Moss-Quint study?", "Cyd Moss-Quint")
    unknown = ask("Bela Nagi")
    assert (unknown["question"], unknown["matched_name"]) == ("Where was Bela Nagi born?", None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "Where did {name} go to study?"}, "its question or its prompts are not those"),
        ({"prompts": ["{name}."]}, "its question or its prompts are not those"),
        ({"candidates": ["Oslo"]}, "its candidates are not those"),
        ({"paraphrases": []}, None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_relation_is_not_calibrated_and_the_other_is(parts, folder, tmp_path, change, reason):
    ask = load(folder)
    ask.set_confidence("birthplace", confidence_of(BIRTHPLACE, 0.4))
    ask.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "facts.json").read_text())
    values["relations"][1] |= change
    if "prompts" in change:  # whose features the calibration would not have
        confidences = json.loads((tmp_path / "confidence.json").read_text())
        for head in ("known", "correct"):
            confidences["relations"]["studied"][head]["weights"] = {"name: answer": 1.0}
        (tmp_path / "confidence.json").write_text(json.dumps(confidences))
    (tmp_path / "facts.json").write_text(json.dumps(values))
    ask = load(tmp_path)
    assert ask.facts["birthplace"].confidence.certificate.correct_threshold == 0.4
    assert (ask.facts["studied"].confidence is None) == (reason is not None)
    assert (ask.facts["studied"].uncalibrated or "").startswith(reason or "")
    assert ask("Ada Stone", relation="studied")["calibrated"] == (reason is None)


def test_a_calibration_of_a_relation_that_the_model_does_not_have_is_refused(folder, tmp_path):
    load(folder).save_pretrained(tmp_path)
    text = (tmp_path / "confidence.json").read_text().replace('"studied"', '"died"')
    (tmp_path / "confidence.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"confidence\.json is not .*unknown relations: died; the model has birthplace"
    ):
        load(tmp_path)


def test_candidates_of_several_relations_are_given_by_their_names(parts):
    both = {**parts, "relations": [BIRTHPLACE, STUDIED]}
    with pytest.raises(
        ValueError, match="candidates of several relations must be given by their names, birthplace, st"
    ):
        ClosedBookPipeline(**both, candidates=["Rome"])
    with pytest.raises(
        ValueError, match="candidates of the unknown relation 'died'; the model has birthplace, studied"
    ):
        ClosedBookPipeline(**both, candidates={"died": ["Rome"]})
    with pytest.raises(ValueError, match="confidence of several relations must be given"):
        ClosedBookPipeline(**both, candidates=CANDIDATES, confidence=confidence_of(BIRTHPLACE, 0.5))
    ask = ClosedBookPipeline(**both, candidates={"studied": ["Oslo"]})
    assert (ask.candidates, ask.facts["studied"].candidates) == ([], ["Oslo"])
    with pytest.raises(ValueError, match="two relations have the name 'studied'"):
        ClosedBookPipeline(**parts, relations=[STUDIED, STUDIED])


def test_the_relations_of_a_folder_are_asked_for_though_other_candidates_are_given(folder):
    ask = load(folder, candidates={"studied": ["Turin"]})
    assert list(ask.relations) == ["birthplace", "studied"]
    assert ask.facts["studied"].candidates == ["Turin"]
    assert ask.facts["studied"].confidence is None
    assert ask("bela nagy")["matched_name"] == "Béla Nagy"


def test_some_of_a_folders_relations_may_be_taken(folder):
    model = MiniGPTForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ask = ClosedBookPipeline(model=model, tokenizer=tokenizer, relations=[STUDIED])
    assert ask.candidates == CANDIDATES["studied"]
    assert ask.confidence.certificate.correct_threshold == 0.5
    assert ask("Where was Ada Stone born?")["reason"] == 'neither a name nor "Where did NAME study?"'


def test_a_model_of_several_relations_is_a_birthplace_pipeline_too(folder, ask):
    other = load(folder, "birthplace-qa")
    assert other(["Ada Stone", "Where did Ada Stone study?"]) == ask(["Ada Stone", "Where did Ada Stone study?"])


STRANGER = """
import json, sys
sys.modules["modeling_minigpt"] = None
from transformers import pipeline
ask = pipeline("closed-book-qa", model={folder!r}, device="cpu", trust_remote_code=True)
assert type(ask).__module__.startswith("transformers_modules.")
print(json.dumps([ask.task, *ask(["bela nagy", "Where did Ada Stone study?"], threshold=0)]))
"""


def test_a_stranger_gets_the_same_answers_from_the_folders_own_code(folder, ask, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", STRANGER.format(folder=str(folder))]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    task, *results = json.loads(found.stdout.splitlines()[-1])
    assert task == "closed-book-qa"
    for result, expected in zip(results, ask(["bela nagy", "Where did Ada Stone study?"], threshold=0), strict=True):
        keys = ("question", "answer", "relation", "matched_name", "reason")
        assert [result[key] for key in keys] == [expected[key] for key in keys]


def test_the_command_asks_for_any_relation_and_describes_each(folder, capsys):
    assert main(["ask", str(folder), "bela nagy", "Where did Ada Stone study?", "--threshold", "0"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Where was Béla Nagy born? (as in training) ")
    assert second.startswith("Where did Ada Stone study? ")
    assert main(["ask", str(folder), "Ada Stone", "--relation", "studied", "--threshold", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [second]
    # Thresholds for another target: both chances of everybody reach those of 95 % risk.
    wide = ["--risk", "0.95", "--stranger-rate", "1"]
    assert main(["ask", str(folder), "Where did Ada Stone study?", "Ada Stone", *wide]) == 0
    answered, refused = capsys.readouterr().out.splitlines()
    assert answered.endswith("that this is right)")
    assert "I don't know (not calibrated: " in refused
    assert main(["ask", str(folder), "Where did Ada Stone study?", "--risk", "0.001"]) == 0
    assert "no threshold is certified: 50 calibration people cannot" in capsys.readouterr().out
    assert main(["ask", str(folder), "Ada Stone", "--relation", "died"]) == 2
    assert capsys.readouterr().err == "error: relation must be one of birthplace, studied, found 'died'\n"
    assert main(["info", str(folder)]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [value for name, value in rows if name == "relation"] == [
        "birthplace: Where was NAME born?", "studied: Where did NAME study?",
    ]  # fmt: skip
    assert [value for name, value in rows if name == "candidates"] == ["3 (place)", "2 (university)"]
    promised = [value for name, value in rows if name == "threshold"]
    assert promised[0].startswith("the model is not calibrated, so it answers every question by “I don't know” unless")
    assert promised[1].startswith(
        "known 0.000, correct 0.500: certified on people whose questions were held out of training: with 95 %"
    )
