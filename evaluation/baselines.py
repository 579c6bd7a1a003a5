"""What a score must be held against: the most popular place, and the best that the documents allow."""

from collections import Counter
from collections.abc import Iterable, Sequence

from data_scripts.questions import Question
from data_scripts.titles import split_title


def popular_places(places: Iterable[str], count: int | None = None) -> list[str]:
    """Return the `count` most frequent places, or all, by falling frequency, the alphabetically first among equals."""
    counts = Counter(places)
    return sorted(counts, key=lambda place: (-counts[place], place))[:count]


def ceiling(documents: Iterable[str], questions: Sequence[Question]) -> float:
    """Return the share of questions an answer of which is in a document that the person is the title of."""
    people = {question.name for question in questions}
    by_title: dict[str, list[str]] = {}
    for document in documents:
        # The full stop of "Bo Lind Jr." is also the title's.
        by_title.setdefault(split_title(document, people)[0].rstrip("."), []).append(document)
    answerable = 0
    for question in questions:
        own = by_title.get(question.name.rstrip("."), ())
        answerable += any(answer in document for document in own for answer in question.answers)
    return answerable / len(questions)
