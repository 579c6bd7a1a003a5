"""Ask a model questions: batched, cached, greedy generation, and how probable the model finds its answers."""

from collections.abc import Sequence
from itertools import chain

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data_scripts.question_checks import check_characters, check_lengths
from data_scripts.questions import Question
from evaluation.birthplace_accuracy.birthplace_accuracy import is_exact_match
from evaluation.processes import cut_batches, map_batches
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
    shared: bool = False,
) -> list[Answer]:
    """Return the model's greedy answer to each question.

    Args:
        questions: any number; those of like length are generated together.
        batch_size: questions in one batch.
        max_new_tokens: longest answer in tokens; the sentinel ends one earlier.
        shared: whether every process of a run calls this with the same arguments; each then does a part of the work.

    Raises:
        VocabularyError: a character is out of the model's vocabulary.
        DataError: a question is longer than what the model reads.
    """
    check_characters(tokenizer, questions)
    check_lengths(tokenizer, questions, [], model.config.max_position_embeddings)
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]))

    def answer(chosen: Sequence[int]) -> list[Answer]:
        return greedy_answers(model, tokenizer, [questions[index] for index in chosen], max_new_tokens)

    was_training = model.training
    model.eval()
    try:
        batches = map_batches(answer, cut_batches(order, batch_size), shared)
    finally:
        model.train(was_training)
    answers = dict(zip(order, chain.from_iterable(batches), strict=True))
    return [answers[index] for index in range(len(questions))]
