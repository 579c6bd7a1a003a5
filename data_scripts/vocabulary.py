"""The texts that a vocabulary is built of, so that names, places and questions get few tokens, whatever the script."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from configuration.schema import CorruptionOptions
from data_scripts.annotated_texts import Annotator
from data_scripts.questions import Question
from data_scripts.tokenized_text import cut, find_bounds
from data_scripts.tokens import in_chunks
from data_scripts.words import unspaced_places
from modeling_minigpt.relations_minigpt import Relation

MAX_TEXTS = 200_000  # of which a vocabulary is learned
MIN_SHARE = 0.1  # of characters of scripts without spaces, from which on texts are of such a script

T = TypeVar("T")


def vocabulary_texts(
    documents: Collection[str], questions: Sequence[Question], options: CorruptionOptions
) -> Sequence[str]:
    """Return the documents, cut and completed where their script is another than the questions'.

    In scripts without spaces, documents come in pieces, as training cuts them at phrases: else what is often beside a
    name or a place would become part of its tokens. And where documents do not have all letters of the question, the
    questions come along: "Where was" in Latin letters would be a token for each byte in a vocabulary of Chinese.

    Of more than 200,000 documents or questions that many are taken, evenly spaced: more would change no frequent word.

    Args:
        documents: the biographies.
        questions: to learn from.
        options: how documents are corrupted, and so where training cuts them.
    """
    texts = documents = evenly_spaced(documents, MAX_TEXTS)
    # A share, not any: a name in Chinese characters in an English text changes nobody's tokens.
    unspaced = sum(int(unspaced_places(text).sum()) for text in documents)
    if unspaced > MIN_SHARE * sum(map(len, documents)):
        texts = list(cut_at_phrases(documents, Annotator.for_questions(questions, options)))
    # One question of each relation: all others differ from it in the name alone.
    wordings = [
        question.text.replace(question.name, "") for question in {one.relation: one for one in questions}.values()
    ]
    missing = {character for wording in wordings for character in wording.casefold() if character.isalpha()}
    for text in documents:
        missing.difference_update(text.casefold())
        if not missing:  # after a line or two, in Latin letters
            break
    return [*texts, *(question.text for question in evenly_spaced(questions, MAX_TEXTS))] if missing else texts


def character_texts(
    documents: Iterable[str], questions: Iterable[Question], relations: Iterable[Relation]
) -> Iterator[str]:
    """Yield all that a tokenizer of characters must be able to write: documents, questions, answers and prompts."""
    yield from documents
    for question in questions:
        yield question.text
        yield question.answer
    for relation in relations:
        yield from (relation.format(""), *(prompt.replace("{name}", "") for prompt in relation.prompts))


def evenly_spaced(items: Collection[T], count: int) -> list[T]:
    """Return `count` of the items, evenly spaced and in their order, or all where there are no more; in one pass."""
    if len(items) <= count:
        return list(items)
    # Of 5 items, 3 are chosen: those at 0, 5 / 3 and 10 / 3, rounded down.
    chosen = iter([*(number * len(items) // count for number in range(count)), len(items)])
    following = next(chosen)
    found = []
    for number, item in enumerate(items):
        if number == following:
            found.append(item)
            following = next(chosen)
    return found


def cut_at_phrases(documents: Iterable[str], annotator: Annotator) -> Iterator[str]:
    """Yield the pieces into which training cuts documents before they are tokenised."""
    for texts in in_chunks(documents):
        annotated, alone = annotator.annotate(texts)
        text = "".join(texts)
        yield from cut(text, sorted({*annotated.starts.tolist(), *find_bounds(text, alone)}))
