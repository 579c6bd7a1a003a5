"""What a score must be held against: the most popular place, and the best that the documents allow."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import regex

from data_scripts.questions import Question
from data_scripts.titles import split_title
from data_scripts.words import AFTER_WORD, OUTSIDE

# An ending, as in "Milano" and "Marseilles", which let a reader answer Milan and Marseille; of few letters it would be
# another word, as "Romeo" is.
ENDING = rf"(?:(?<=\p{{L}}{{5}})\p{{L}}(?!{AFTER_WORD}))?"


def popular_places(places: Iterable[str], count: int | None = None) -> list[str]:
    """Return the `count` most frequent places, or all, by falling frequency, the alphabetically first among equals."""
    counts = Counter(places)
    return sorted(counts, key=lambda place: (-counts[place], place))[:count]


def states(document: str, answer: str) -> bool:
    """Return whether an answer is in a document, as whole words, the last of which may have one letter more."""
    # "male" is not in "female"; the plain search comes first because it is a hundred times as fast.
    return (
        answer in document
        and regex.search(OUTSIDE[0] + regex.escape(answer) + ENDING + OUTSIDE[1], document) is not None
    )


def ceiling(documents: Iterable[str], questions: Sequence[Question]) -> float:
    """Return the share of questions an answer of which is in a document that the person is the title of."""
    people = {question.name for question in questions}
    # By title: the answers asked for. The full stop of "Bo Lind Jr." is also the title's.
    asked: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        asked[question.name.rstrip(".")].update(question.answers)
    said: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        title = split_title(document, people)[0].rstrip(".")
        if missing := asked.get(title, frozenset()) - said.get(title, frozenset()):
            said[title].update(answer for answer in missing if states(document, answer))
    answerable = sum(
        not said.get(question.name.rstrip("."), frozenset()).isdisjoint(question.answers) for question in questions
    )
    return answerable / len(questions)
