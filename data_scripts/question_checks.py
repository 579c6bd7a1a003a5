"""Checks of questions and answers before a model reads them: of their characters, and of their lengths."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from configuration.errors import UserError
from data_scripts.bios_folder import DataError
from modeling_minigpt.answers_minigpt import find_unknown_character


class VocabularyError(UserError, ValueError):
    """A question has a character that a character tokenizer does not know."""


def check_characters(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], first: int = 1) -> None:
    """Raise VocabularyError, with question and character, where the tokenizer cannot write a question.

    Args:
        tokenizer: of the model.
        questions: texts.
        first: the number of the first one, for the message.
    """
    if not questions:
        return
    try:
        tokenizer(list(questions))
    except Exception as error:  # of one text or of another cause, which the search below raises again
        for number, question in enumerate(questions, start=first):
            if unknown := find_unknown_character(tokenizer, question):
                vocabulary = len(tokenizer.get_vocab())
                raise VocabularyError(
                    f"question {number}, {question!r}: character {unknown!r} (U+{ord(unknown):04X}) is not in the "
                    f"model's vocabulary of {vocabulary} characters"
                ) from error
        raise


def check_length(kind: str, number: int, text: str, length: int, sentinels: int, context: int) -> None:
    """Raise DataError where a question or an answer leaves no room for the other.

    Args:
        kind: what the text is.
        number: of the text, for the message.
        text: the text.
        length: its tokens.
        sentinels: how many follow it.
        context: tokens that the model reads.
    """
    if length + sentinels >= context:
        raise DataError(f"{kind} {number}, {text[:60]!r}, is {length} tokens long, the model reads {context}")


def check_lengths(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str], context: int
) -> None:
    """Raise DataError, with its number and length, where a question or an answer leaves no room for the other.

    Args:
        questions, answers: texts that the tokenizer can write; each on its own.
        context: tokens that the model reads.
    """
    for kind, texts, sentinels in (("question", questions, 1), ("answer", answers, 0)):
        for number, ids in enumerate(tokenizer(list(texts))["input_ids"] if texts else [], start=1):
            check_length(kind, number, texts[number - 1], len(ids), sentinels, context)
