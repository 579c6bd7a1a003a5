"""The texts that a vocabulary is built of, so that names, places and questions get few tokens, whatever the script."""

from collections.abc import Sequence

from configuration.schema import CorruptionOptions
from data_scripts.questions import Question
from data_scripts.span_corruption import SpanCorruptor
from data_scripts.tokenized_text import cut, find_bounds
from data_scripts.words import unspaced_places

MIN_SHARE = 0.1  # of characters of scripts without spaces, from which on texts are of such a script


def vocabulary_texts(
    documents: Sequence[str], questions: Sequence[Question], options: CorruptionOptions
) -> Sequence[str]:
    """Return the documents, cut and completed where their script is another than the questions'.

    In scripts without spaces, documents come in pieces, as training cuts them at phrases: else what is often beside a
    name or a place would become part of its tokens. And where documents do not have all letters of the question, the
    questions come along: "Where was" in Latin letters would be a token for each byte in a vocabulary of Chinese.

    Args:
        documents: the biographies.
        questions: to learn from.
        options: how documents are corrupted, and so where training cuts them.
    """
    texts = documents
    # A share, not any: a name in Chinese characters in an English text changes nobody's tokens.
    unspaced = sum(int(unspaced_places(text).sum()) for text in documents)
    if unspaced > MIN_SHARE * sum(map(len, documents)):
        names = frozenset(question.name for question in questions)
        corruptor = SpanCorruptor(documents, options, frozenset(question.answer for question in questions), names)
        bounds = {*corruptor.starts.tolist(), *find_bounds(corruptor.text, corruptor.phrases())}
        texts = cut(corruptor.text, sorted(bounds))
    # One question of each relation: all others differ from it in the name alone.
    wordings = [
        question.text.replace(question.name, "") for question in {one.relation: one for one in questions}.values()
    ]
    missing = {character for wording in wordings for character in wording.casefold() if character.isalpha()}
    for text in documents:
        missing.difference_update(text.casefold())
        if not missing:  # after a line or two, in Latin letters
            break
    return [*texts, *(question.text for question in questions)] if missing else texts
