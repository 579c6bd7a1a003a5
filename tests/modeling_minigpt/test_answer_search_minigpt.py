"""Best-first search finds the answers that full scoring finds, in every attention variant, and reads few of them."""

import itertools

import pytest
import torch

from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answer_search_minigpt import top_answers
from modeling_minigpt.answer_trie_minigpt import AnswerTrie
from modeling_minigpt.answers_minigpt import encode_prompts, score_answers
from tests.attention_variants import VARIANTS, tiny_model

LINES = ["Where was Ada Stone born in Rome?", "Béla Nagy was born in Romeo .", "Where was Cyd Moss-Quint of West?"]
WORDS = ["Rome", "West", "Ada", "Quint", "Nagy", "born"]
# "Rome" begins "Rome West", "Rome West Ada" …: of many answers, all prefixes are answers, too.
PLACES = [" ".join(words) for length in (1, 2, 3) for words in itertools.permutations(WORDS, length)]
QUESTIONS = ["Where was Ada born?", "Where was Béla Nagy-Moss Stone born?", "Where was Cyd born?", "Where was?"]
TOKENIZERS = {
    "characters": build_character_tokenizer(LINES, 128),
    "bpe": build_bpe_tokenizer(LINES, 300, 128),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    """A character tokenizer, then a byte-level one."""
    return TOKENIZERS[request.param]


def make_model(variant, tokenizer, **overrides):
    """Return a tiny model with spread probabilities."""
    return tiny_model(variant, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **overrides)


def full_scoring(model, tokenizer, places, cutoff=0.0):
    """Return all (place, probability) for each question, the most probable first, equals in their order."""
    scores = score_answers(model, tokenizer, QUESTIONS, AnswerTrie(places, tokenizer), cutoff).exp().tolist()
    return [sorted(zip(places, row, strict=True), key=lambda pair: -pair[1]) for row in scores]


def assert_same(found, wanted, k):
    """Compare the best k; those whose probabilities differ by rounding alone may change places."""
    for answers, expected in zip(found, wanted, strict=True):
        known = dict(expected)
        assert len(answers) == len({answer.text for answer in answers}) == k
        for answer, (_, probability) in zip(answers, expected, strict=False):
            assert answer.probability == pytest.approx(known[answer.text], rel=1e-4)
            assert answer.probability == pytest.approx(probability, rel=1e-4)
        assert answers[0].text == expected[0][0]


@pytest.mark.parametrize("variant", ["vanilla", *VARIANTS])
def test_the_best_answers_are_those_of_full_scoring(variant, tokenizer):
    model = make_model(variant, tokenizer)
    wanted = full_scoring(model, tokenizer, PLACES)
    trie = AnswerTrie(PLACES, tokenizer)
    for k in (1, 5):
        assert_same(top_answers(model, tokenizer, QUESTIONS, trie, k), wanted, k)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("together", [1, 7, 64])
def test_random_models_and_few_rows_at_a_time_agree_with_full_scoring(seed, together):
    tokenizer = TOKENIZERS["bpe"]
    model = make_model("vanilla", tokenizer)
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.05 + 0.15 * seed)  # from hesitant to sure
    places = PLACES[seed::3]
    found = top_answers(model, tokenizer, QUESTIONS, AnswerTrie(places, tokenizer), 3, rows_together=together)
    assert_same(found, full_scoring(model, tokenizer, places), 3)


def test_a_k_above_the_number_of_answers_gives_all_of_them(tokenizer):
    places = PLACES[:20]
    model = make_model("vanilla", tokenizer)
    found = top_answers(model, tokenizer, QUESTIONS, AnswerTrie(places, tokenizer), 100)
    assert_same(found, full_scoring(model, tokenizer, places), len(places))


@pytest.mark.parametrize("variant", ["vanilla", "performer"])
def test_what_begins_less_probably_than_the_cutoff_is_not_read_and_has_probability_zero(variant, tokenizer):
    model = make_model(variant, tokenizer)
    with torch.no_grad():
        first = model(**encode_prompts(tokenizer, QUESTIONS, "cpu")).logits[:, -1].softmax(-1)
    cutoff = first[:, AnswerTrie(PLACES, tokenizer).first].median().item()
    wanted = full_scoring(model, tokenizer, PLACES, cutoff)
    cut = sum(probability == 0.0 for row in wanted for _, probability in row)
    assert 0 < cut < len(QUESTIONS) * len(PLACES)
    found = top_answers(model, tokenizer, QUESTIONS, AnswerTrie(PLACES, tokenizer), len(PLACES), cutoff)
    assert_same(found, wanted, len(PLACES))
    everything_cut = top_answers(model, tokenizer, QUESTIONS, AnswerTrie(PLACES, tokenizer), 3, cutoff=0.999)
    assert everything_cut == [[(place, 0.0) for place in PLACES[:3]]] * len(QUESTIONS)


def test_equal_answers_come_in_their_order():
    tokenizer = TOKENIZERS["characters"]
    model = make_model("vanilla", tokenizer)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as probable as any other
    places = ["West", "Rome", "Moss", "Ada", "Nagy", "Bo"]
    found = top_answers(model, tokenizer, QUESTIONS, AnswerTrie(places, tokenizer), 4)
    assert [[answer.text for answer in answers] for answers in found] == [["Bo", "Ada", "West", "Rome"]] * 4
    assert found[0][0].probability == pytest.approx(len(tokenizer) ** -3)


def test_a_question_has_the_same_answers_alone_and_in_a_batch(tokenizer):
    model = make_model("vanilla", tokenizer)
    trie = AnswerTrie(PLACES, tokenizer)
    together = top_answers(model, tokenizer, QUESTIONS, trie, 4)
    for question, answers in zip(QUESTIONS, together, strict=True):
        (alone,) = top_answers(model, tokenizer, [question], trie, 4)
        assert [answer.text for answer in alone] == [answer.text for answer in answers]
        assert [a.probability for a in alone] == pytest.approx([a.probability for a in answers], rel=1e-4)


def test_few_of_many_answers_are_read_and_nothing_square_is_made(monkeypatch):
    tokenizer = TOKENIZERS["bpe"]
    model = make_model("vanilla", tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    trie = AnswerTrie(PLACES, tokenizer)
    read = []
    forward = model.model.forward

    def count_rows(*arguments, **settings):
        read.append(len(arguments[0] if arguments else settings["input_ids"]))
        return forward(*arguments, **settings)

    monkeypatch.setattr(model.model, "forward", count_rows)
    top_answers(model, tokenizer, QUESTIONS, trie, 1)
    assert sum(read) < len(QUESTIONS) * len(PLACES) / 4
    assert "is_ancestor" not in vars(trie)
