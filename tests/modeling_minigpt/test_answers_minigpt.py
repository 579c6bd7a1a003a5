"""A trie gives every answer the probability that it has alone, in every attention variant."""

import math

import pytest
import torch

from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answer_trie_minigpt import AnswerTrie
from modeling_minigpt.answers_minigpt import encode_prompts, greedy_answers, score_answers
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


def test_what_begins_less_probably_than_the_cutoff_is_cut_off_and_nothing_else(tokenizer):
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    trie = AnswerTrie(PLACES, tokenizer)
    full = score_answers(model, tokenizer, QUESTIONS, trie)
    firsts = torch.tensor([ids[0] for ids in tokenizer(PLACES)["input_ids"]])
    with torch.no_grad():
        prompts = encode_prompts(tokenizer, QUESTIONS, "cpu")
        opening = model(**prompts, logits_to_keep=1).logits[:, -1].softmax(-1)[:, firsts]
    cutoff = opening.mean().item()
    cut = score_answers(model, tokenizer, QUESTIONS, trie, cutoff=cutoff)
    lost = cut.isinf()
    assert torch.equal(lost, opening < cutoff)
    assert 0 < lost.sum() < lost.numel()
    assert (full[lost] < math.log(cutoff)).all()
    torch.testing.assert_close(cut[~lost], full[~lost], atol=1e-4, rtol=1e-4)
    assert score_answers(model, tokenizer, QUESTIONS, trie, cutoff=0.999).isinf().all()


@pytest.mark.parametrize("together", [1, 2, 50])
def test_rows_read_together_or_alone_score_alike(tokenizer, together):
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    trie = AnswerTrie(PLACES, tokenizer)
    scores = score_answers(model, tokenizer, QUESTIONS, trie, rows_together=together)
    torch.testing.assert_close(scores, score_answers(model, tokenizer, QUESTIONS, trie), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 4, 64])
def test_a_row_holds_what_goes_on_from_one_question_once(tokenizer, width):
    trie = AnswerTrie(PLACES, tokenizer)
    names = {place: tuple(trie.tokens[trie.path(place)].tolist()) for place in range(len(trie.tokens))}
    followed = torch.ones(2, len(trie.first), dtype=torch.bool)
    followed[1, 0] = False
    rows = trie.rows(followed, tree_attention=True, width=width)
    for question in (0, 1):
        held = rows.prefixes[rows.question == question].flatten()
        held = held[held >= 0].tolist()
        wanted = [place for place, prefix in names.items() if question == 0 or prefix[0] != trie.first[0].item()]
        assert sorted(held) == wanted
    for prefixes, parents in zip(rows.prefixes.tolist(), rows.parents.tolist(), strict=True):
        for place, parent in zip(prefixes, parents, strict=True):
            above = names[place][:-1] if place >= 0 else ()
            assert (names[prefixes[parent]] if parent >= 0 else ()) == above


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_both_kernels_keep_answers_apart(tokenizer, kernel):
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.set_attn_implementation(kernel)
    scores = score_answers(model, tokenizer, QUESTIONS, AnswerTrie(PLACES, tokenizer))
    expected = [[alone(model, tokenizer, question, place) for place in PLACES] for question in QUESTIONS]
    torch.testing.assert_close(scores.double(), torch.tensor(expected).double(), atol=1e-3, rtol=1e-4)


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
