"""`pipeline("birthplace-qa")`: native to call, faithful to the model, and unharmed by bad items."""

import json
import os
import subprocess
import sys
from string import ascii_letters

import pytest
from transformers import pipeline

from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answers_minigpt import Answer, greedy_answers
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import confidence_features, format_prompts
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from modeling_minigpt.results_minigpt import describe_result
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.attention_variants import tiny_model

LINES = [
    "Where was Ada Stone born in Rome?",
    "Béla Nagy was born in Romeo .",
    "Where was Cyd Moss-Quint of Rome West?",
]
PLACES = ["Rome", "Romeo", "Rome West", "Ada"]
KEYS = {
    "question", "answer", "known", "correct", "score", "abstained", "candidates", "calibrated", "reason", "failed",
    "relation", "matched_name",
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
    """Load it as a user does who wants every answer: nothing is certified for it."""
    return pipeline("birthplace-qa", model=str(folder), device="cpu", trust_remote_code=True, threshold=0)


def test_a_name_and_its_question_are_asked_alike(ask):
    (named, questioned, lower) = ask(["Ada Stone", "Where was Ada Stone born?", "  where was Ada  Stone born "])
    assert named == questioned == lower
    assert named.keys() == KEYS
    assert named["question"] == "Where was Ada Stone born?"
    assert (named["abstained"], named["calibrated"], named["reason"]) == (False, False, None)
    assert (named["known"], named["correct"], named["failed"]) == (None, None, None)


def test_without_a_certificate_nothing_is_answered_unless_that_is_asked_for(ask, folder, capsys):
    closed = pipeline("birthplace-qa", model=str(folder), device="cpu", trust_remote_code=True)
    open_ones, refused = ask(["Ada Stone", "Albert Einstein"]), closed(["Ada Stone", "Albert Einstein"])
    for given, withheld in zip(open_ones, refused, strict=True):
        assert (withheld["answer"], withheld["abstained"], withheld["failed"]) == (None, True, None)
        assert withheld["reason"].startswith("not calibrated: train.py calibrates where")
        assert withheld["reason"].endswith("(threshold=0 answers always)")
        assert withheld["candidates"] == given["candidates"]
        assert f"I would have guessed {given['answer']}" in describe_result(withheld)
    assert closed(["Ada Stone", "Albert Einstein"], threshold=0) == open_ones
    assert ask(["Ada Stone", "Albert Einstein"], threshold="certified") == refused


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
    tokenizer = build_character_tokenizer([*LINES, ascii_letters], 128)  # the letters of all prompts
    model = random_model(tokenizer)
    by_characters = BirthplacePipeline(model=model, tokenizer=tokenizer, device="cpu")
    before, *refused, after = by_characters(["Ada Stone", "東京", "Ada \ud800 Stone", "Cyd"], threshold=0)
    for result in refused:
        assert (result["abstained"], result["reason"]) == (
            True,
            "contains a character that is not in the model's vocabulary",
        )
    assert before["answer"] == by_characters("Ada Stone", threshold=0)["answer"] is not None
    assert after["answer"] is not None


def test_a_model_without_facts_answers_freely_and_a_warning_names_the_question(tmp_path, ask, caplog):
    random_model(ask.tokenizer).save_pretrained(tmp_path)
    ask.tokenizer.save_pretrained(tmp_path)
    result = pipeline("birthplace-qa", model=str(tmp_path), device="cpu")("Ada Stone", threshold=0)
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
    assert again("Ada Stone", threshold=0) == ask("Ada Stone")
    assert again.candidates == PLACES


def test_a_cutoff_leaves_improbable_candidates_at_zero(ask):
    full, cut = (ask("Ada Stone", top_k=99, cutoff=cutoff)["candidates"] for cutoff in (0.0, 0.9))
    assert min(candidate["score"] for candidate in full) > 0.0
    assert sum(candidate["score"] > 0.0 for candidate in cut) == 1  # the greedy answer's
    assert {candidate["answer"] for candidate in cut} == {candidate["answer"] for candidate in full}


@pytest.fixture(scope="module")
def calibrated(ask, tmp_path_factory):
    """Load a pipeline with a confidence, made up, from its folder."""
    known = [(0.8, 0.9, True)] * 40 + [(0.8, 0.2, False)] * 10
    halves = [CalibrationScores(known, [(0.05, 0.9)] * 100) for _ in range(2)]
    certificate = Certificate(0.1, 0.5, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    heads = Head({"name: neg_entropy": 0.1}, 2.0), Head({"question: answer": 0.1}, 1.5)
    confidence = Confidence(*heads, *halves, certificate)
    path = tmp_path_factory.mktemp("calibrated") / "model"
    parts = {"model": ask.model, "tokenizer": ask.tokenizer, "device": "cpu", "candidates": PLACES}
    BirthplacePipeline(**parts, confidence=confidence).save_pretrained(path)
    return pipeline("birthplace-qa", model=str(path), device="cpu", trust_remote_code=True)


def test_both_chances_weigh_the_features_of_the_best_answer_and_the_score_is_their_product(calibrated):
    names = ["Ada Stone", "Cyd"]
    features = confidence_features(calibrated.model, calibrated.tokenizer, names, calibrated.rank(names))
    expected = calibrated.confidence.scores(features)
    for result, scores in zip(calibrated(names, threshold=0.0), expected, strict=True):
        assert result["calibrated"]
        assert (result["known"], result["correct"]) == pytest.approx(scores[:2], rel=1e-4)
        assert result["score"] == result["known"] * result["correct"]
        assert result["candidates"][0] == {"answer": result["answer"], "score": result["score"]}
        scores = [candidate["score"] for candidate in result["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) <= 1.0 + 1e-9


def test_below_the_threshold_there_is_no_answer_but_a_reason(calibrated):
    score = calibrated("Ada Stone", threshold=0.0)["score"]
    for threshold, abstains in ((score - 1e-6, False), (score + 1e-6, True)):
        result = calibrated("Ada Stone", threshold=threshold)
        assert result["abstained"] == abstains
        assert (result["answer"] is None) == abstains
        assert (result["reason"] is not None) == (result["failed"] is not None) == abstains
        assert result["candidates"]  # shown all the same
        assert result["score"] == pytest.approx(score)


def test_the_certified_thresholds_are_the_default_and_each_is_for_its_own_chance(calibrated):
    result = calibrated("Ada Stone", threshold=0)
    thresholds = {"known": (result["known"] + 1e-6, 0.0), "correct": (0.0, result["correct"] + 1e-6)}
    for failed, pair in thresholds.items():
        certificate = Certificate(*pair, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
        found = calibrated("Ada Stone", threshold=certificate)
        assert (found["failed"], found["answer"]) == (failed, None)
    own = calibrated("Ada Stone")
    assert own["abstained"] == (result["known"] < 0.1 or result["correct"] < 0.5)


@pytest.mark.parametrize("threshold", [None, 0])
def test_what_is_not_a_number_is_no_answer(calibrated, monkeypatch, threshold):
    def broken(*arguments):
        features = confidence_features(*arguments)
        features[0] = float("nan")
        return features

    expected = calibrated("Cyd", threshold=threshold)
    monkeypatch.setattr(sys.modules[type(calibrated).__module__], "confidence_features", broken)
    result, other = calibrated(["Ada Stone", "Cyd"], threshold=threshold)
    assert (result["answer"], result["score"], result["known"], result["candidates"]) == (None, 0.0, None, [])
    assert result["reason"] == "the model computes something that is not a number"
    assert other["answer"] == expected["answer"]
    json.dumps(result, allow_nan=False)


def test_a_threshold_can_be_certified_for_another_risk(calibrated, ask):
    certificate = calibrated.threshold_for(risk=0.2, confidence=0.9)
    assert (certificate.correct_threshold, certificate.risk, certificate.answered) == (0.9, 0.2, 40)
    assert 0.1 < certificate.known_threshold <= 0.8
    everybody = calibrated.threshold_for(risk=0.3, stranger_rate=1.0)
    assert everybody.stranger_rate is None
    said = calibrated("Ada Stone", threshold=0)
    surely = said["known"] >= certificate.known_threshold and said["correct"] >= 0.9
    assert calibrated("Ada Stone", threshold=certificate)["abstained"] == (not surely)
    with pytest.raises(ValueError, match="this model is not calibrated"):
        ask.threshold_for()


@pytest.mark.parametrize("other", [{"free_form": True}, {"cutoff": 0.01}], ids=["free-form", "cutoff"])
def test_a_calibration_speaks_for_the_way_it_was_made_for_alone(calibrated, other):
    result = calibrated("Ada Stone", **other)
    assert (result["calibrated"], result["abstained"]) == (False, True)
    assert result["reason"].startswith("nothing is certified for answers with free_form or another cutoff")
    assert calibrated("Ada Stone", **other, threshold=0)["answer"] is not None
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
    head = Head({"question: answer": 1.0}, 0.0)
    ask.confidence = Confidence(head, head, *halves)
    results = ask(["A" * length for length in range(10, 40)], threshold=0)
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
    for threshold in (1.5, float("nan"), "sure"):
        with pytest.raises(ValueError, match=r'threshold must be in \[0, 1\], a certificate or "certified", found '):
            ask("Ada Stone", threshold=threshold)


def test_a_stranger_gets_the_same_answers_from_the_folders_own_code(folder, ask, tmp_path):
    script = f"""
import json, sys
sys.modules["modeling_minigpt"] = None
from transformers import pipeline
ask = pipeline("birthplace-qa", model={str(folder)!r}, device="cpu", trust_remote_code=True)
assert type(ask).__module__.startswith("transformers_modules.")
print(json.dumps(ask(["Ada Stone", None], threshold=0)))
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
