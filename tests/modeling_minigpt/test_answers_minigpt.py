"""A trie gives every answer the probability that it has alone, in every attention variant."""

import math

import pytest
import torch

from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answers_minigpt import AnswerTrie, greedy_answers, score_answers
from tests.attention_variants import VARIANTS, tiny_model

LINES = [
    "Where was Ada Stone born in Rome?",
    "Béla Nagy was born in Romeo .",
    "Where was Cyd Moss-Quint of Rome West?",
]
PLACES = ["Rome", "Romeo", "Rome West", "Ada", "West", "Quint-Moss Rome"]  # some begin as others do, or are the same
QUESTIONS = ["Where was Ada born?", "Where was Béla Nagy-Moss Stone born?", "Where was Cyd born?"]
TOKENIZERS = {
    "characters": build_character_tokenizer(LINES, 128),
    "bpe": build_bpe_tokenizer(LINES, 300, 128),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    """A character tokenizer, then a byte-level one."""
    return TOKENIZERS[request.param]


@pytest.fixture(params=["vanilla", *VARIANTS])
def model(request, tokenizer):
    """A model of each variant with spread probabilities."""
    return tiny_model(request.param, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)


def alone(model, tokenizer, question, place):
    """Return an answer's log-probability by one plain forward pass."""
    prompt = tokenizer(question + tokenizer.mask_token)["input_ids"]
    answer = [*tokenizer(place)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        following = model(torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return sum(following[len(prompt) - 1 + index, token].item() for index, token in enumerate(answer))


def test_every_answer_has_the_probability_it_has_alone(model, tokenizer):
    scores = score_answers(model, tokenizer, QUESTIONS, AnswerTrie(PLACES, tokenizer), cutoff=0.0)
    expected = [[alone(model, tokenizer, question, place) for place in PLACES] for question in QUESTIONS]
    torch.testing.assert_close(scores.double(), torch.tensor(expected).double(), atol=1e-3, rtol=1e-4)


def test_what_is_cut_off_is_less_probable_than_the_cutoff(tokenizer):
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    trie = AnswerTrie(PLACES, tokenizer)
    full = score_answers(model, tokenizer, QUESTIONS, trie, cutoff=0.0)
    cutoff = math.exp(full.median().item())
    cut = score_answers(model, tokenizer, QUESTIONS, trie, cutoff=cutoff)
    lost = cut.isinf()
    assert lost.any()
    assert not lost.all()
    assert (full[lost] < math.log(cutoff)).all()
    torch.testing.assert_close(cut[~lost], full[~lost], atol=1e-4, rtol=1e-4)
    assert score_answers(model, tokenizer, QUESTIONS, trie, cutoff=0.999).isinf().all()


def test_a_greedy_answer_has_its_score_in_the_trie():
    tokenizer = TOKENIZERS["characters"]
    for seed_question in QUESTIONS:
        model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
        ids = tokenizer(seed_question + tokenizer.mask_token, return_tensors="pt")
        tokens = model.generate(**ids, max_new_tokens=60, do_sample=False)[0, ids["input_ids"].shape[1] :]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if tokens[-1] != tokenizer.eos_token_id or text != text.strip() or not text:
            continue
        (greedy,) = greedy_answers(model, tokenizer, [seed_question], 60)
        scores = score_answers(model, tokenizer, [seed_question], AnswerTrie([text], tokenizer), cutoff=0.0)
        assert greedy.text == text
        assert greedy.probability == pytest.approx(scores.exp().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        pytest.param([], "no answers", id="none"),
        pytest.param(["Rome", " "], "answer 2 is empty", id="blank"),
        pytest.param(["Rome", "Ada", "Rome"], "answers 1 and 3 are the same: 'Rome'", id="twice"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(tokenizer, answers, message):
    with pytest.raises(ValueError, match=message):
        AnswerTrie(answers, tokenizer)
