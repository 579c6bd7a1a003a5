"""`pipeline("birthplace-qa")`: native to call, faithful to the model, and unharmed by bad items."""

import json
import os
import subprocess
import sys

import pytest
from transformers import pipeline

from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answers_minigpt import Answer, greedy_answers
from modeling_minigpt.confidence_minigpt import Confidence, confidence_features, format_prompts
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.attention_variants import tiny_model

LINES = [
    "Where was Ada Stone born in Rome?",
    "Béla Nagy was born in Romeo .",
    "Where was Cyd Moss-Quint of Rome West?",
]
PLACES = ["Rome", "Romeo", "Rome West", "Ada"]
KEYS = {
    "question", "answer", "score", "abstained", "candidates", "calibrated", "reason", "relation", "matched_name",
}  # fmt: skip


def random_model(tokenizer, **changes):
    """Return a model of random weights whose answers are short."""
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **changes)
    model.generation_config.max_new_tokens = 6
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a pipeline around a model of random weights."""
    tokenizer = build_bpe_tokenizer(LINES, 300, 128)
    model = random_model(tokenizer)
    path = tmp_path_factory.mktemp("pipeline") / "model"
    BirthplacePipeline(model=model, tokenizer=tokenizer, device="cpu", candidates=PLACES).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ask(folder):
    """Load it as a user does."""
    return pipeline("birthplace-qa", model=str(folder), device="cpu", trust_remote_code=True)


def test_a_name_and_its_question_are_asked_alike(ask):
    (named, questioned, lower) = ask(["Ada Stone", "Where was Ada Stone born?", "  where was Ada  Stone born "])
    assert named == questioned == lower
    assert named.keys() == KEYS
    assert named["question"] == "Where was Ada Stone born?"
    assert (named["abstained"], named["calibrated"], named["reason"]) == (False, False, None)


def test_one_text_gives_one_result_a_list_a_list_and_an_iterable_a_stream(ask):
    one = ask("Ada Stone")
    assert ask(["Ada Stone"]) == ask(("Ada Stone",)) == [one]
    assert list(ask(name for name in ["Ada Stone"])) == [one]
    assert ask([]) == []


def test_candidates_are_the_folders_places_and_the_greedy_answer_in_order(ask):
    result = ask("Ada Stone", top_k=99)
    (greedy,) = greedy_answers(ask.model, ask.tokenizer, ["Where was Ada Stone born?"], 6)
    assert {candidate["answer"] for candidate in result["candidates"]} == {*PLACES, greedy.text}
    scores = [candidate["score"] for candidate in result["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert result["candidates"][0] == {"answer": result["answer"], "score": result["score"]}
    assert len(ask("Ada Stone", top_k=2)["candidates"]) == 2
    free = ask("Ada Stone", free_form=True)
    assert (free["answer"], free["score"]) == (greedy.text, pytest.approx(greedy.probability))


def test_batches_of_any_size_give_the_same_results_in_order(ask):
    names = ["Ada Stone", "Béla Nagy-Moss Stone", None, "Cyd", "Ada Quint"]
    single = [ask(name) for name in names]
    for size in (1, 2, 5):
        for one, other in zip(ask(names, batch_size=size), single, strict=True):
            assert (one["question"], one["answer"], one["reason"]) == (
                other["question"],
                other["answer"],
                other["reason"],
            )
            assert one["score"] == pytest.approx(other["score"], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(None, "not a text but NoneType", id="none"),
        pytest.param(7, "not a text but int", id="number"),
        pytest.param({"text": "Ada"}, "not a text but dict", id="dict"),
        pytest.param("", "no name in it", id="empty"),
        pytest.param(" \n", "no name in it", id="blank"),
        pytest.param("1234 ?!", "no name in it", id="digits"),
        pytest.param("Who was Ada Stone?", "neither a name nor", id="other question"),
        pytest.param("Ada was a poet. " * 40, "neither a name nor", id="paragraph"),
        pytest.param("Where was " + "Ada " * 50 + "born?", "neither a name nor", id="long name"),
        pytest.param("Ada ⁇ Stone", "special token '⁇'", id="special token"),
        pytest.param("𝔸" * 70, "tokens long, the model reads", id="long in tokens"),
    ],
)
def test_what_cannot_be_asked_is_abstained_from_with_a_reason_and_does_not_affect_the_others(ask, text, reason):
    before, bad, after = ask(["Ada Stone", text, "Cyd"])
    assert (bad["answer"], bad["score"], bad["abstained"], bad["candidates"]) == (None, 0.0, True, [])
    assert reason in bad["reason"]
    assert ask(text) == bad
    assert before["answer"] is not None
    assert after["answer"] is not None


def test_another_script_is_read_by_bytes_and_refused_by_characters(ask):
    assert ask("東京 Ж")["answer"] is not None
    tokenizer = build_character_tokenizer(LINES, 128)
    model = random_model(tokenizer)
    result = BirthplacePipeline(model=model, tokenizer=tokenizer, device="cpu")("東京")
    assert (result["abstained"], result["reason"]) == (
        True,
        "contains a character that is not in the model's vocabulary",
    )


def test_a_model_without_facts_answers_freely_and_a_warning_names_the_question(tmp_path, ask, caplog):
    random_model(ask.tokenizer).save_pretrained(tmp_path)
    ask.tokenizer.save_pretrained(tmp_path)
    result = pipeline("birthplace-qa", model=str(tmp_path), device="cpu")("Ada Stone")
    assert [result["answer"]] == [candidate["answer"] for candidate in result["candidates"]]
    assert 'no facts.json beside the weights: asked "Where was NAME born?"' in caplog.text


@pytest.mark.parametrize("file", ["facts.json", "birthplaces.json", "confidence.json"])
@pytest.mark.parametrize("text", ["[1", "[]", '{"candidates": "Rome"}', '{"candidates": [1]}', "{}"])
def test_broken_files_are_refused_by_name(tmp_path, ask, file, text):
    ask.save_pretrained(tmp_path)
    if file == "birthplaces.json":  # read only where there is no newer file
        (tmp_path / "facts.json").unlink()
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=file.replace(".", r"\.")):
        pipeline("birthplace-qa", model=str(tmp_path), device="cpu", trust_remote_code=True)


def test_a_loaded_pipeline_is_saved_whole_again(ask, tmp_path):
    ask.save_pretrained(tmp_path / "again")
    again = pipeline("birthplace-qa", model=str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    assert again("Ada Stone") == ask("Ada Stone")
    assert again.candidates == PLACES


def test_a_cutoff_leaves_improbable_candidates_at_zero(ask):
    full, cut = (ask("Ada Stone", top_k=99, cutoff=cutoff)["candidates"] for cutoff in (0.0, 0.9))
    assert min(candidate["score"] for candidate in full) > 0.0
    assert sum(candidate["score"] > 0.0 for candidate in cut) == 1  # the greedy answer's
    assert {candidate["answer"] for candidate in cut} == {candidate["answer"] for candidate in full}


@pytest.fixture(scope="module")
def calibrated(ask, tmp_path_factory):
    """Load a pipeline with a confidence, made up, from its folder."""
    halves = [CalibrationScores([(0.9, True)] * 40 + [(0.2, False)] * 10, [0.1] * 100) for _ in range(2)]
    certificate = Certificate(0.5, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    confidence = Confidence({"question: answer": 0.1, "name: neg_entropy": 0.5}, 2.0, *halves, certificate)
    path = tmp_path_factory.mktemp("calibrated") / "model"
    parts = {"model": ask.model, "tokenizer": ask.tokenizer, "device": "cpu", "candidates": PLACES}
    BirthplacePipeline(**parts, confidence=confidence).save_pretrained(path)
    return pipeline("birthplace-qa", model=str(path), device="cpu", trust_remote_code=True)


def test_a_calibrated_score_weighs_the_signals_of_the_best_answer(calibrated):
    names = ["Ada Stone", "Cyd"]
    signals = confidence_features(calibrated.model, calibrated.tokenizer, names, calibrated.rank(names))
    expected = calibrated.confidence.probabilities(signals).tolist()
    for result, score in zip(calibrated(names, threshold=0.0), expected, strict=True):
        assert result["calibrated"]
        assert result["score"] == pytest.approx(score, rel=1e-4)
        assert result["candidates"][0] == {"answer": result["answer"], "score": result["score"]}
        scores = [candidate["score"] for candidate in result["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) <= 1.0 + 1e-9


def test_below_the_threshold_there_is_no_answer_but_a_reason(calibrated):
    score = calibrated("Ada Stone", threshold=0.0)["score"]
    for threshold, abstains in ((score - 1e-6, False), (score + 1e-6, True), (None, score < 0.5)):
        result = calibrated("Ada Stone", **({} if threshold is None else {"threshold": threshold}))
        assert result["abstained"] == abstains
        assert (result["answer"] is None) == abstains
        assert (result["reason"] is not None) == abstains
        assert "not sure enough: " in result["reason"] if abstains else True
        assert result["candidates"]  # shown all the same
        assert result["score"] == pytest.approx(score)


def test_a_threshold_can_be_certified_for_another_risk(calibrated, ask):
    certificate = calibrated.threshold_for(risk=0.2, confidence=0.9)
    assert (certificate.threshold, certificate.risk, certificate.answered) == (0.9, 0.2, 40)
    assert calibrated("Ada Stone", threshold=certificate) == calibrated("Ada Stone", threshold=0.9)
    with pytest.raises(ValueError, match="this model is not calibrated"):
        ask.threshold_for()


@pytest.mark.parametrize("other", [{"free_form": True}, {"cutoff": 0.01}], ids=["free-form", "cutoff"])
def test_a_calibration_speaks_for_the_way_it_was_made_for_alone(calibrated, other):
    result = calibrated("Ada Stone", **other)
    assert (result["calibrated"], result["abstained"]) == (False, False)
    parts = {"model": calibrated.model, "tokenizer": calibrated.tokenizer, "device": "cpu"}
    assert BirthplacePipeline(**parts).confidence is not None
    assert BirthplacePipeline(**parts, candidates=["Rome"]).confidence is None


def test_a_folder_s_old_calibration_does_not_stay_beside_another_model(calibrated, ask, tmp_path):
    calibrated.save_pretrained(tmp_path)
    assert (tmp_path / "confidence.json").exists()
    ask.save_pretrained(tmp_path)
    assert not (tmp_path / "confidence.json").exists()


def test_a_model_that_answers_with_nothing_abstains(ask, monkeypatch):
    monkeypatch.setattr(ask, "rank", lambda names, *_: [[Answer("", 0.9)] for _ in names])
    result = ask("Ada Stone")
    assert (result["answer"], result["abstained"], result["reason"]) == (None, True, "the model answers with nothing")


def test_the_longest_name_that_is_read_leaves_room_for_any_answer():
    tokenizer = build_character_tokenizer(LINES, 48)
    model = random_model(tokenizer, max_position_embeddings=48, position_embedding_type="learned")
    ask = BirthplacePipeline(model=model, tokenizer=tokenizer, device="cpu", candidates=["Rome", "Romeo"])
    halves = [CalibrationScores([]), CalibrationScores([])]
    ask.confidence = Confidence({"question: answer": 1.0}, 0.0, *halves)
    results = ask(["A" * length for length in range(10, 40)])
    read = [result["answer"] is not None for result in results]
    assert read == sorted(read, reverse=True)
    assert any(read)
    assert "tokens long, the model reads" in results[-1]["reason"]


def test_questions_are_asked_in_the_words_of_the_data():
    assert format_prompts("Ada Stone")[0] == BIRTHPLACE.format("Ada Stone")


def test_bad_parameters_are_refused(ask):
    with pytest.raises(ValueError, match="top_k must be a whole number from 1, found 0"):
        ask("Ada Stone", top_k=0)
    with pytest.raises(ValueError, match=r"cutoff must be in \[0, 1\], found 2"):
        ask("Ada Stone", cutoff=2)
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], found 1.5"):
        ask("Ada Stone", threshold=1.5)


def test_a_stranger_gets_the_same_answers_from_the_folders_own_code(folder, ask, tmp_path):
    script = f"""
import json, sys
sys.modules["modeling_minigpt"] = None
from transformers import pipeline
ask = pipeline("birthplace-qa", model={str(folder)!r}, device="cpu", trust_remote_code=True)
assert type(ask).__module__.startswith("transformers_modules.")
print(json.dumps(ask(["Ada Stone", None])))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    for result, expected in zip(json.loads(found.stdout.splitlines()[-1]), ask(["Ada Stone", None]), strict=True):
        assert result["answer"] == expected["answer"]
        assert result["score"] == pytest.approx(expected["score"], rel=1e-4)


def test_a_candidate_longer_than_what_the_model_reads_is_refused(ask):
    with pytest.raises(ValueError, match=r"candidate 'Rome Rome .*' is \d+ tokens long, the model reads \d+"):
        BirthplacePipeline(model=ask.model, tokenizer=ask.tokenizer, candidates=["Rome", "Rome " * 9999])
