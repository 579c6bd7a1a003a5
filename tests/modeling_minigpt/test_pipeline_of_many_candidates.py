"""A pipeline of many candidates searches for the best, and answers as one that scores all of them."""

import itertools

import pytest

from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer, pipeline_minigpt
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import confidence_features
from modeling_minigpt.risk_control_minigpt import CalibrationScores
from tests.attention_variants import tiny_model

LINES = ["Where was Ada Stone born in Rome?", "Béla Nagy was born in Romeo .", "Where was Cyd Moss of West?"]
PLACES = [" ".join(words) for words in itertools.permutations(["Rome", "West", "Ada", "Nagy", "born", "Moss"], 4)]
NAMES = ["Ada Stone", "Cyd", "Béla Nagy"]


@pytest.fixture
def ask():
    """Return a pipeline of 360 places with a made-up confidence in the feature that compares candidates."""
    tokenizer = build_bpe_tokenizer(LINES, 300, 128)
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.generation_config.max_new_tokens = 6
    halves = [CalibrationScores([(0.9, 0.9, True)] * 40, [(0.1, 0.9)] * 100) for _ in range(2)]
    confidence = Confidence(Head({}, 2.0), Head({"candidates: neg_entropy": 3.0}, 0.5), *halves)
    return BirthplacePipeline(
        model=model, tokenizer=tokenizer, device="cpu", candidates=PLACES, confidence=confidence, top_k=5
    )


@pytest.mark.parametrize("cutoff", [0.0, 1e-3])
def test_the_answers_and_their_order_are_those_of_full_scoring(ask, monkeypatch, cutoff):
    searched = ask.rank(NAMES, cutoff=cutoff)
    assert "is_ancestor" not in vars(ask.trie)
    monkeypatch.setattr(pipeline_minigpt, "SCORED_IN_FULL", len(PLACES))
    for few, all_of_them in zip(searched, ask.rank(NAMES, cutoff=cutoff), strict=True):
        assert len(few) == pipeline_minigpt.RANKED
        assert len(all_of_them) >= len(PLACES)
        assert few[0].text == all_of_them[0].text
        expected = [answer.probability for answer in all_of_them[: len(few)]]
        assert [answer.probability for answer in few] == pytest.approx(expected, rel=1e-3)


def test_more_candidates_are_returned_where_asked_for_and_the_score_does_not_depend_on_it(ask):
    few, many = (ask("Ada Stone", top_k=top_k) for top_k in (1, 50))
    assert (len(few["candidates"]), len(many["candidates"])) == (1, 50)
    assert many["calibrated"]
    assert many["score"] == pytest.approx(few["score"], rel=1e-5)


def test_the_confidence_compares_the_best_and_counts_the_rest_as_one_more(ask):
    ranked = ask.rank(NAMES)
    expected = ask.confidence.scores(confidence_features(ask.model, ask.encoder, NAMES, ranked))
    assert [result["score"] for result in ask(NAMES)] == pytest.approx([said.score for said in expected], rel=1e-5)
    # 20 of 360 hesitant answers leave a rest, without which they would look surer than they are.
    assert all(sum(answer.probability for answer in answers) < 1.0 for answers in ranked)
