"""Asking a model: the same answers in batches as one at a time, in the order asked, and characters it cannot read."""

import pytest
import torch

from data_scripts.bios_folder import DataError
from data_scripts.question_checks import VocabularyError, check_lengths
from evaluation.answers import answer_questions
from modeling_minigpt.configuration_minigpt import MiniGPTConfig
from modeling_minigpt.modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.tokenization_minigpt import build_bpe_tokenizer, build_character_tokenizer

LINES = ["Where was Ada Stone born?", "Béla Nagy was born in Győr .", "Where was Cyd Moss-Quint born?"]
QUESTIONS = [
    "Where was Ada born?",
    "Where was Béla Nagy-Moss Stone born?",
    "Where was Cyd Quint born?",
    "Where was Béla born?",
    "Where was Ada Nagy born?",
]


def tiny_model(tokenizer, position_type: str) -> MiniGPTForCausalLM:
    """Return a model of random weights, large enough that every position matters to its answers."""
    torch.manual_seed(1)  # its answers differ, and some end before the longest allowed
    config = MiniGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        position_embedding_type=position_type,
        initializer_range=0.3,
        residual_dropout=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return MiniGPTForCausalLM(config)


@pytest.fixture(scope="module", params=["characters-rotary", "characters-learned", "bpe-rotary", "bpe-learned"])
def asked(request):
    """A model and its tokenizer."""
    kind, position_type = request.param.split("-")
    tokenizer = build_character_tokenizer(LINES, 128) if kind == "characters" else build_bpe_tokenizer(LINES, 300, 128)
    return tiny_model(tokenizer, position_type), tokenizer


@pytest.fixture(scope="module")
def character_model():
    tokenizer = build_character_tokenizer(LINES, 128)
    return tiny_model(tokenizer, "rotary"), tokenizer


def texts(answers) -> list[str]:
    """Return the answers without their probabilities."""
    return [answer.text for answer in answers]


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_a_batch_gives_the_answers_of_single_questions(asked, batch_size):
    single = [answer_questions(*asked, [question])[0] for question in QUESTIONS]
    batched = answer_questions(*asked, QUESTIONS, batch_size=batch_size)
    assert len(set(texts(single))) >= 4
    assert texts(batched) == texts(single)
    for one, other in zip(batched, single, strict=True):
        assert one.probability == pytest.approx(other.probability, rel=1e-4)


def test_a_probability_is_that_of_the_answer_and_its_end(asked):
    model, tokenizer = asked
    for question in QUESTIONS:
        prompt = tokenizer(question + tokenizer.mask_token, return_tensors="pt").input_ids
        whole = model.eval().generate(prompt, max_new_tokens=32, do_sample=False)
        with torch.no_grad():
            predicted = model(whole).logits[0, prompt.shape[1] - 1 : -1].double().softmax(-1)
        tokens = whole[0, prompt.shape[1] :]
        expected = predicted[range(len(tokens)), tokens].prod().item()
        (answer,) = answer_questions(model, tokenizer, [question])
        assert answer.probability == pytest.approx(expected, rel=1e-3)
        assert 0.0 < answer.probability < 1.0


def test_padding_after_the_end_costs_no_probability(character_model):
    model, tokenizer = character_model
    alone = [answer_questions(model, tokenizer, [question])[0] for question in QUESTIONS]
    lengths = [len(answer.text) for answer in alone]
    assert min(lengths) < max(lengths) - 5  # so that the shortest is padded
    for one, other in zip(answer_questions(model, tokenizer, QUESTIONS), alone, strict=True):
        assert one.probability == pytest.approx(other.probability, rel=1e-4)


def test_answers_come_in_the_order_of_the_questions(asked):
    answers = texts(answer_questions(*asked, QUESTIONS, batch_size=2))
    assert texts(answer_questions(*asked, QUESTIONS[::-1], batch_size=2)) == answers[::-1]


def test_a_question_asked_twice_is_answered_twice(character_model):
    first, _, third = texts(answer_questions(*character_model, [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]]))
    assert first == third


def test_no_questions_have_no_answers(character_model):
    assert answer_questions(*character_model, []) == []


def test_an_answer_is_stripped_and_holds_no_special_token(asked):
    tokenizer = asked[1]
    for answer in texts(answer_questions(*asked, QUESTIONS)):
        assert answer == answer.strip()
        assert tokenizer.mask_token not in answer
        assert tokenizer.pad_token not in answer


def test_an_answer_is_no_longer_than_asked_for(character_model):
    full = texts(answer_questions(*character_model, QUESTIONS))
    short = texts(answer_questions(*character_model, QUESTIONS, max_new_tokens=2))
    assert max(map(len, full)) > 2 >= max(map(len, short)) > 0
    assert all(answer.startswith(beginning) for answer, beginning in zip(full, short, strict=True))


def test_an_unknown_character_is_named_with_its_question(character_model):
    questions = ["Where was Ada born?", "Where was Nagy Ődön born?"]
    with pytest.raises(VocabularyError) as error:
        answer_questions(*character_model, questions)
    message = str(error.value)
    assert (
        "question 2, 'Where was Nagy Ődön born?': character 'Ő' (U+0150) is not in the model's vocabulary" in message
    )
    assert "\n" not in message


def test_a_byte_level_vocabulary_knows_every_character():
    tokenizer = build_bpe_tokenizer(LINES, 300, 128)
    assert len(answer_questions(tiny_model(tokenizer, "rotary"), tokenizer, ["Where was 東 Ődön born?"])) == 1


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_the_model_s_mode_is_restored_and_dropout_never_answers(character_model, training):
    model, tokenizer = character_model
    expected = answer_questions(model.eval(), tokenizer, QUESTIONS)
    model.train(training)
    assert answer_questions(model, tokenizer, QUESTIONS) == expected
    assert model.training is training
    with pytest.raises(VocabularyError):
        answer_questions(model, tokenizer, ["東?"])
    assert model.training is training


def test_a_question_longer_than_what_the_model_reads_is_refused_with_its_number(character_model):
    with pytest.raises(DataError, match=r"question 2, 'Where was Ada .*', is 140 tokens long, the model reads 128"):
        answer_questions(*character_model, [QUESTIONS[0], "Where was " + "Ada " * 31 + "born ?"])


def test_a_question_or_an_answer_must_leave_room_for_an_answer(character_model):
    tokenizer = character_model[1]
    check_lengths(tokenizer, ["born"], ["Ada born"], 9)
    with pytest.raises(DataError, match="question 1, 'Ada born', is 8 tokens long, the model reads 9"):
        check_lengths(tokenizer, ["Ada born"], [], 9)
    with pytest.raises(DataError, match="answer 2, 'Ada borns', is 9 tokens long, the model reads 9"):
        check_lengths(tokenizer, [], ["Ada", "Ada borns"], 9)


def test_answers_end_where_learned_positions_do(asked):
    model, tokenizer = asked
    question = "Where was Ada born? " * 6
    (answer,) = answer_questions(model, tokenizer, [question], max_new_tokens=100)
    prompt = len(tokenizer(question + tokenizer.mask_token)["input_ids"])
    if model.config.position_embedding_type == "learned":
        assert len(answer.text) <= 8 * (model.config.max_position_embeddings - prompt)
