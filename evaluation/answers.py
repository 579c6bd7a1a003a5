"""Ask a model questions: batched, cached, greedy generation, and how probable the model finds its answers."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data_scripts.question_checks import check_characters, check_lengths
from data_scripts.questions import Question
from evaluation.birthplace_accuracy.birthplace_accuracy import is_exact_match
from modeling_minigpt.answers_minigpt import Answer, greedy_answers


def exact_matches(answers: Sequence[str], questions: Sequence[Question]) -> list[bool]:
    """Return of each answer whether it is one that its question accepts."""
    return [
        any(is_exact_match(answer, accepted) for accepted in question.answers)
        for answer, question in zip(answers, questions, strict=True)
    ]


def answer_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    batch_size: int = 100,
    max_new_tokens: int = 32,
) -> list[Answer]:
    """Return the model's greedy answer to each question.

    Args:
        questions: any number; those of like length are generated together.
        batch_size: questions in one batch.
        max_new_tokens: longest answer in tokens; the sentinel ends one earlier.

    Raises:
        VocabularyError: a character is out of the model's vocabulary.
        DataError: a question is longer than what the model reads.
    """
    check_characters(tokenizer, questions)
    check_lengths(tokenizer, questions, [], model.config.max_position_embeddings)
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]))
    answers = [Answer("", 0.0)] * len(questions)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            batch = greedy_answers(model, tokenizer, [questions[index] for index in chosen], max_new_tokens)
            for index, answer in zip(chosen, batch, strict=True):
                answers[index] = answer
    finally:
        model.train(was_training)
    return answers
