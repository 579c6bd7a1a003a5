"""Ask a model questions: batched, cached, greedy generation, and how probable the model finds its answers."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class VocabularyError(ValueError):
    """A question holds a character that a character tokenizer does not know."""


class Answer(NamedTuple):
    """What a model answers, and the probability that it gives this answer to be the whole one: not calibrated."""

    text: str
    probability: float


def check_characters(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> None:
    """Raise VocabularyError, with question and character, where the tokenizer cannot write a question."""
    if not questions:
        return
    try:
        tokenizer(list(questions))
    except Exception as error:  # the Rust tokenizer raises bare Exception
        vocabulary = tokenizer.get_vocab()
        for number, question in enumerate(questions, start=1):
            unknown = next((character for character in question if character not in vocabulary), None)
            if unknown is not None:
                raise VocabularyError(
                    f"question {number}, {question!r}: character {unknown!r} (U+{ord(unknown):04X}) is not in the "
                    f"model's vocabulary of {len(vocabulary)} characters"
                ) from error
        raise


@torch.inference_mode()
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
    """
    check_characters(tokenizer, questions)
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]))
    answers = [Answer("", 0.0)] * len(questions)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            batch = generate_answers(model, tokenizer, [questions[index] for index in chosen], max_new_tokens)
            for index, answer in zip(chosen, batch, strict=True):
                answers[index] = answer
    finally:
        model.train(was_training)
    return answers


def generate_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[str], max_new_tokens: int
) -> list[Answer]:
    """Return the greedy answers to one batch of questions, each on one line and stripped."""
    prompts = [question + tokenizer.mask_token for question in questions]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
    generated = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = generated.sequences[:, batch["input_ids"].shape[1] :]  # (B, T)
    log_probabilities = torch.stack(generated.logits, dim=1).float().log_softmax(-1)  # (B, T, V)
    chosen = log_probabilities.gather(-1, tokens[..., None])[..., 0]
    ended = (tokens == tokenizer.eos_token_id).cumsum(-1) - (tokens == tokenizer.eos_token_id).long() > 0
    probabilities = chosen.masked_fill(ended, 0.0).sum(-1).exp().tolist()  # what follows the end is padding
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [
        Answer(" ".join(text.splitlines()).strip(), probability)
        for text, probability in zip(texts, probabilities, strict=True)
    ]
