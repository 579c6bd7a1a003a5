"""What has been read once is continued as if each text had been read by itself."""

import pytest
import torch

from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer
from modeling_minigpt.answer_search_minigpt import top_answers
from modeling_minigpt.answer_trie_minigpt import AnswerTrie
from modeling_minigpt.answers_minigpt import Answer, greedy_answers, score_answers
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import answer_features, confidence_features, feature_names
from modeling_minigpt.reading_minigpt import open_questions, read_questions
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores
from tests.attention_variants import VARIANTS, assert_equal, tiny_model

LINES = ["Where was Ada Stone born in Rome?", "Béla Nagy was born in Romeo, Cyd Moss-Quint in Rome West ."]
TOKENIZER = build_bpe_tokenizer(LINES, 300, 128)
NAMES = ["Ada Stone", "Béla Moss-Nagy Stone", "Cyd"]
QUESTIONS = [BIRTHPLACE.format(name) for name in NAMES]
PLACES = ["Rome", "Romeo", "Rome West", "Ada", "West"]
# The best of the second name is empty, so of its question and an answer no token is left to be read.
RANKED = [[Answer("Rome West", 0.6)], [Answer("", 0.2)], [Answer("Romeo", 1.0)]]
LEARNED = {"position_embedding_type": "learned"}


def make_model(variant, **settings):
    return tiny_model(variant, vocab_size=len(TOKENIZER), eos_token_id=TOKENIZER.eos_token_id, **settings)


@pytest.fixture(params=["vanilla", "vanilla-learned", "performer-learned", *VARIANTS])
def model(request):
    """A model of each variant; of two of them with learned positions, too."""
    return make_model(request.param.removesuffix("-learned"), **(LEARNED if "-learned" in request.param else {}))


def generated_by_the_library(model, question, max_new_tokens, **settings):
    """Return the library's greedy answer to one question, and its probability."""
    ids = torch.tensor(open_questions(TOKENIZER, [question]))
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0,
        return_dict_in_generate=True, output_logits=True, **settings,
    )  # fmt: skip
    tokens = found.sequences[0, ids.shape[1] :]
    log_probs = torch.stack(found.logits, dim=1)[0].log_softmax(-1).gather(-1, tokens[:, None]).sum()
    text = TOKENIZER.decode(tokens, skip_special_tokens=True)
    return Answer(" ".join(text.splitlines()).strip(), log_probs.exp().item())


def assert_same(found, expected):
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    probabilities = [answer.probability for answer in expected]
    assert [answer.probability for answer in found] == pytest.approx(probabilities, rel=1e-4)


def test_questions_that_were_read_give_the_answers_of_each_read_by_itself_in_any_order(model):
    trie = AnswerTrie(PLACES, TOKENIZER)
    greedy = [generated_by_the_library(model, question, 12) for question in QUESTIONS]
    scores = torch.cat([score_answers(model, TOKENIZER, [question], trie) for question in QUESTIONS])
    best = [top_answers(model, TOKENIZER, [question], trie, 2)[0] for question in QUESTIONS]
    read = read_questions(model, TOKENIZER, QUESTIONS)
    for _ in range(2):  # nothing that continues the questions changes them for what comes after it
        assert_same(greedy_answers(model, TOKENIZER, QUESTIONS, 12, read), greedy)
        found = score_answers(model, TOKENIZER, QUESTIONS, trie, read=read)
        torch.testing.assert_close(found, scores, atol=1e-4, rtol=1e-4)
        for one, expected in zip(top_answers(model, TOKENIZER, QUESTIONS, trie, 2, read=read), best, strict=True):
            assert_same(one, expected)


@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param(("{name}. born in", "{name}. and", "{name}."), id="after the title"),
        pytest.param(("{name}. born in", "{name} was", "Moss {name}."), id="after other beginnings"),
        pytest.param((), id="none"),
    ],
)
def test_features_after_a_common_beginning_are_those_of_each_prompt_read_whole(model, prompts):
    relation = Relation("birthplace", BIRTHPLACE.question, prompts)
    questions = read_questions(model, TOKENIZER, QUESTIONS)
    found = confidence_features(model, TOKENIZER, NAMES, RANKED, relation, questions)
    assert_equal(found, confidence_features(model, TOKENIZER, NAMES, RANKED, relation), atol=1e-4)
    for label, prompt in zip(["question", *prompts], [relation.question, *prompts], strict=True):
        column = 3 * ["question", *prompts].index(label)
        for row, name in enumerate(NAMES):
            alone = answer_features(model, TOKENIZER, [prompt.format(name=name)], [RANKED[row][0].text])
            expected = torch.cat([alone["answer"], -alone["empty_answer"], alone["neg_entropy"]]).double()
            assert_equal(found[row, column : column + 3], expected.clamp(-12, 12), atol=1e-4)
    assert found.shape == (3, len(feature_names(relation)))


def test_an_empty_answer_to_one_question_has_the_probability_of_an_empty_answer(model):
    questions = read_questions(model, TOKENIZER, QUESTIONS[:1])
    found = answer_features(model, TOKENIZER, QUESTIONS[:1], [""], questions)
    assert_equal(found["answer"], found["empty_answer"])


@pytest.mark.parametrize("variant", ["vanilla", "performer", "hybrid"])
def test_an_answer_may_grow_past_the_length_at_which_frequencies_change(variant):
    scaling = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    model = make_model(variant, max_position_embeddings=20, rope_parameters=scaling)
    expected = [generated_by_the_library(model, question, 12, use_cache=False) for question in QUESTIONS]
    assert_same(greedy_answers(model, TOKENIZER, QUESTIONS, 12), expected)


def test_a_pipeline_reads_each_question_and_each_name_once(monkeypatch):
    halves = [CalibrationScores([(0.9, 0.9, True)] * 40, [(0.1, 0.9)] * 100) for _ in range(2)]
    confidence = Confidence(Head({"name: answer": 0.1}, 2.0), Head({"question: answer": 0.1}, 0.5), *halves)
    model = make_model("vanilla")
    parts = {"tokenizer": TOKENIZER, "device": "cpu", "candidates": PLACES, "confidence": confidence}
    ask = BirthplacePipeline(model=model, **parts)
    read = []
    forward = model.model.forward

    def record(*arguments, **settings):
        read.extend(map(tuple, (arguments[0] if arguments else settings["input_ids"]).tolist()))
        return forward(*arguments, **settings)

    monkeypatch.setattr(model.model, "forward", record)
    ask("Ada Stone", threshold=0)
    title = tuple(TOKENIZER("Ada Stone.")["input_ids"])
    question = tuple(open_questions(TOKENIZER, QUESTIONS[:1])[0])
    for text in (title, question):
        assert sum(row[: len(text)] == text for row in read) == 1
